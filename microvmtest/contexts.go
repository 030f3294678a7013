package microvmtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tangle-network/microvm"
)

// trial is one verb that may or may not be carried out: on VM id, in state
// from, with name for what is new.
type trial struct {
	verb     verb
	id, name string
	from     microvm.Status // empty for CreateVM
}

// settled says whether the verb was carried out, and fails when the VM is
// neither as before nor as after it.
func (b *bench) settled(try trial) (done bool) {
	b.t.Helper()
	switch try.verb.name {
	case verbCreate.name, verbRestore.name:
		done = slices.ContainsFunc(b.list(), func(v microvm.View) bool { return v.ID == try.id })
		if done {
			b.is(try.id, try.verb.to)
		} else {
			b.absent(try.id)
		}
	case verbRename.name:
		done = slices.ContainsFunc(b.list(), func(v microvm.View) bool { return v.ID == try.name })
		here, gone := try.id, try.name
		if done {
			here, gone = gone, here
		}
		b.is(here, try.from)
		b.absent(gone)
	case verbSnapshot.name:
		done = slices.Contains(b.is(try.id, try.from).Snapshots, try.name)
	default:
		status := b.get(try.id).Status
		done = status == try.verb.to
		if !done && status != try.from {
			b.t.Fatalf("%s left VM %q %s; want %s or %s", try.verb.name, try.id, status, try.from, try.verb.to)
		}
	}
	return done
}

// tried checks the outcome of a verb whose context ended: an error that is
// cause, or success; then that the verb can still be carried out, and leaves it
// carried out.
func (b *bench) tried(try trial, err, cause error) {
	b.t.Helper()
	done := b.settled(try)
	switch {
	case err == nil && !done:
		b.t.Fatalf("%s returned nil and did nothing", try.verb.name)
	case err == nil:
		return
	case !errors.Is(err, cause):
		b.t.Fatalf("%s: %v; want %v", try.verb.name, err, cause)
	case done && try.verb.from == nil:
		b.t.Fatalf("%s failed (%v) and left VM %q behind", try.verb.name, err, try.id)
	case !done:
		b.ok(try.verb.name+" after one that was cancelled", b.do(try.verb, try.id, try.name))
		if !b.settled(try) {
			b.t.Fatalf("%s returned nil and did nothing", try.verb.name)
		}
	}
}

// deadContexts gives every method a context that has ended already.
func deadContexts(b *bench) {
	dead, cancel := context.WithCancel(context.Background())
	cancel()
	late, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	for ctx, cause := range map[context.Context]error{dead: context.Canceled, late: context.DeadlineExceeded} {
		b.run(cause.Error(), func(b *bench) {
			id := "by-cancel"
			if ctx == late {
				id = "by-deadline"
			}
			fails := func(what string, err error) {
				if !errors.Is(err, cause) {
					b.t.Errorf("%s: %v; want %v", what, err, cause)
				}
			}
			try := trial{verb: verbCreate, id: id}
			err := verbCreate.call(ctx, b, id, "")
			fails("CreateVM", err)
			b.tried(try, err, cause)
			for _, v := range b.onVMs() {
				from := b.get(id).Status
				try := trial{v, id, id + "-" + v.hold, from}
				err := v.call(ctx, b, id, try.name)
				fails(v.name, err)
				b.tried(try, err, cause)
				if v.name == verbRename.name {
					id = try.name
				}
			}
			_, err = b.rt.ListVMs(ctx)
			fails("ListVMs", err)
			_, err = b.rt.GetVM(ctx, id)
			fails("GetVM", err)
			_, err = b.rt.ListSnapshots(ctx, id)
			fails("ListSnapshots", err)
			if p, ok := b.rt.(microvm.Pruner); ok {
				_, err = p.Prune(ctx, time.Now().Add(time.Hour))
				fails("Prune", err)
			}
			if m, ok := b.rt.(microvm.SnapshotManager); ok {
				_, err = m.GetSnapshot(ctx, id, "x")
				fails("GetSnapshot", err)
				fails("DeleteSnapshot", m.DeleteSnapshot(ctx, id, "x"))
			}
			b.is(id, microvm.StatusDestroyed)
			if !b.lacks(Restores) && !b.lacks(Specs) {
				names := b.snapshotsOf(id)
				if len(names) != 1 {
					b.t.Fatalf("VM %q has the snapshots %q; want one", id, names)
				}
				fails("restore", b.restoreIn(ctx, id+"-clone", microvm.RestoreFrom{VMID: id, SnapshotID: names[0]}))
				b.absent(id + "-clone")
			}
		})
	}
}

// cancelledContexts ends a context at moments spread over the time that the
// verb takes.
func cancelledContexts(b *bench) {
	moments := b.o.some(8, 1)
	took := map[string]time.Duration{}
	// cut carries out the verb under a context that ends at the given moment.
	cut := func(b *bench, try trial, moment int) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		after := took[try.verb.name] * time.Duration(2*moment+1) / time.Duration(2*moments)
		timer := time.AfterFunc(after, cancel)
		defer timer.Stop()
		began := time.Now()
		err := try.verb.call(ctx, b, try.id, try.name)
		if waited := time.Since(began); waited > b.o.Timeout {
			b.t.Errorf("%s returned %v after its context had ended", try.verb.name, waited-after)
		}
		b.tried(try, err, context.Canceled)
	}
	// One life undisturbed, to measure.
	measure := func(v verb, id string) {
		began := time.Now()
		b.ok(v.name, b.do(v, id, "measured"))
		took[v.name] = time.Since(began)
	}
	measure(verbCreate, "measure")
	for _, v := range []verb{verbStart, verbSnapshot, verbStop, verbDestroy} {
		measure(v, "measure")
	}
	took[verbRename.name] = took[verbSnapshot.name] / 4
	restores := !b.lacks(Restores) && !b.lacks(Specs)
	if restores {
		b.make("source", microvm.StatusRunning)
		b.ok("SnapshotVM", b.snapshot("source", "s"))
		measure(verbRestore, "measure-restore")
	}
	for moment := range moments {
		b.run(fmt.Sprintf("moment %d of %d", moment+1, moments), func(b *bench) {
			id := fmt.Sprintf("cut%d", moment)
			cut(b, trial{verb: verbCreate, id: id}, moment)
			if restores {
				cut(b, trial{verb: verbRestore, id: id + "-clone"}, moment)
			}
			for _, v := range b.onVMs() {
				try := trial{v, id, fmt.Sprintf("%s-%s", id, v.hold), b.get(id).Status}
				cut(b, try, moment)
				if v.name == verbRename.name {
					id = try.name
				}
			}
			b.is(id, microvm.StatusDestroyed)
		})
	}
}

// spentContexts ends the contexts of verbs that have returned and sees that
// nothing happens.
func spentContexts(b *bench) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	const id = "free"
	b.ok("CreateVM", verbCreate.call(ctx, b, id, ""))
	b.ok("StartVM", b.rt.StartVM(ctx, id))
	b.ok("SnapshotVM", b.rt.SnapshotVM(ctx, id, "s"))
	ids := []string{id}
	if !b.lacks(Restores) && !b.lacks(Specs) {
		b.ok("restore", b.restoreIn(ctx, "clone", microvm.RestoreFrom{VMID: id, SnapshotID: "s", ResumeImmediately: true}))
		ids = append(ids, "clone")
	}
	b.unchanged("the end of a context whose calls had returned", func() {
		cancel()
		time.Sleep(100 * time.Millisecond)
	})
	for _, id := range ids {
		b.is(id, microvm.StatusRunning)
		b.ok("StopVM", b.stop(id))
		b.ok("StartVM", b.start(id))
	}
}

// verbsInFlight holds each verb half-way, looks around, and then ends the held
// call's context or lets it go on.
func verbsInFlight(b *bench) {
	if b.o.Hold == nil {
		b.t.Skip("Options.Hold is not set")
	}
	b.ok("CreateVM", b.create("bystander"))
	for _, end := range []string{"cancelled", "released"} {
		b.run(end, func(b *bench) {
			id := end
			for _, v := range append([]verb{verbCreate}, b.onVMs()...) {
				try := trial{verb: v, id: id, name: id + "-" + v.hold}
				if v.name != verbCreate.name {
					try.from = b.get(id).Status
				}
				b.held(try, end == "cancelled")
				if v.name == verbRename.name {
					id = try.name
				}
			}
		})
	}
}

func (b *bench) held(try trial, cancelled bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*b.o.Timeout)
	defer cancel()
	entered, release := b.o.Hold(b.rt, try.verb.hold)
	defer release()
	result := make(chan error, 1)
	go func() { result <- try.verb.call(ctx, b, try.id, try.name) }()
	select {
	case <-entered:
	case err := <-result:
		b.t.Fatalf("%s was not held: %v", try.verb.name, err)
	}
	b.aroundHeld(try)
	if cancelled {
		cancel()
		select {
		case err := <-result:
			b.tried(try, err, context.Canceled)
		case <-time.After(b.o.Timeout):
			release()
			b.t.Fatalf("%s ran on for %v after its context had ended; then: %v", try.verb.name, b.o.Timeout, <-result)
		}
		return
	}
	release()
	b.ok(try.verb.name, <-result)
	if !b.settled(try) {
		b.t.Fatalf("%s returned nil and did nothing", try.verb.name)
	}
}

// aroundHeld is called while a verb on a VM is held.
func (b *bench) aroundHeld(try trial) {
	b.t.Helper()
	name := "beside-" + try.name
	missing := func(err error) bool { return try.from == "" && errors.Is(err, microvm.ErrVMNotFound) }
	for _, c := range []struct {
		what string
		call func(ctx context.Context) error
		fits func(error) bool
	}{
		{"ListVMs", func(ctx context.Context) error { _, err := b.rt.ListVMs(ctx); return err }, nil},
		{"GetVM", func(ctx context.Context) error { _, err := b.rt.GetVM(ctx, try.id); return err }, missing},
		{"ListSnapshots", func(ctx context.Context) error { _, err := b.rt.ListSnapshots(ctx, try.id); return err }, missing},
		{"SnapshotVM of another VM", func(ctx context.Context) error { return b.rt.SnapshotVM(ctx, "bystander", name) }, nil},
		// Verbs on one VM come one after the other: this one waits as long as
		// its context lets it. A VM that is still being made may not be there.
		{"SnapshotVM of the same VM, for 20 ms", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			defer cancel()
			if err := b.rt.SnapshotVM(ctx, try.id, name); !errors.Is(err, context.DeadlineExceeded) && !missing(err) {
				return fmt.Errorf("%w; want %w", err, context.DeadlineExceeded)
			}
			return nil
		}, nil},
	} {
		done := make(chan error, 1)
		ctx, cancel := context.WithTimeout(context.Background(), b.o.Timeout)
		defer cancel()
		go func() { done <- c.call(ctx) }()
		select {
		case err := <-done:
			if err != nil && (c.fits == nil || !c.fits(err)) {
				b.t.Errorf("while %s is under way: %s: %v", try.verb.name, c.what, err)
			}
		case <-ctx.Done():
			b.t.Fatalf("while %s is under way: %s waits for it", try.verb.name, c.what)
		}
	}
}
