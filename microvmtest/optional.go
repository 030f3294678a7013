package microvmtest

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
)

// guestEnds lets a guest end by itself.
func guestEnds(b *bench) {
	if b.o.EndGuest == nil {
		b.t.Skip("Options.EndGuest is not set")
	}
	const id = "mortal"
	b.make(id, microvm.StatusRunning)
	b.ok("SnapshotVM", b.snapshot(id, "s"))
	before := b.get(id)
	b.ok("EndGuest", b.call(func(ctx context.Context) error { return b.o.EndGuest(ctx, b.rt, id) }))
	began := time.Now()
	for b.get(id).Status != microvm.StatusStopped {
		if time.Since(began) > b.o.Timeout {
			b.t.Fatalf("the guest ended, and after %v the VM is %s", b.o.Timeout, b.get(id).Status)
		}
		time.Sleep(time.Millisecond)
	}
	v := b.is(id, microvm.StatusStopped, "s")
	if v.StopReason == nil || v.StopReason.Cause != microvm.StopGuest && v.StopReason.Cause != microvm.StopVMMDied {
		b.t.Errorf("StopReason is %s; want cause %q or %q", asJSON(v.StopReason), microvm.StopGuest, microvm.StopVMMDied)
	}
	if v.StoppedAt.Before(before.StartedAt) || v.PID != 0 {
		b.t.Errorf("StoppedAt or PID after the guest's end: %s", asJSON(v))
	}
	b.refusedIn(verbStop, microvm.StatusStopped, b.stop(id), id)
	b.ok("SnapshotVM of a VM without memory", b.snapshot(id, "disks"))
	if !b.lacks(Restores) && !b.lacks(Specs) {
		b.ok("restore", b.restore("clone", microvm.RestoreFrom{VMID: id, SnapshotID: "disks", ResumeImmediately: true}))
		b.is("clone", microvm.StatusCreated)
	}
	b.ok("StartVM after the guest's end", b.start(id))
	if v := b.is(id, microvm.StatusRunning, "s", "disks"); v.StopReason != nil || v.StartedAt.Before(before.StartedAt) {
		b.t.Errorf("started again: %s", asJSON(v))
	}
}

func wait(b *bench) {
	w, ok := b.rt.(microvm.Waiter)
	if !ok {
		b.t.Skip("the runtime is no microvm.Waiter")
	}
	const id = "awaited"
	b.ok("CreateVM", b.create(id))
	waitFor := func(states ...microvm.Status) (v microvm.View, err error) {
		err = b.call(func(ctx context.Context) error {
			v, err = w.WaitVM(ctx, id, states...)
			return err
		})
		return v, err
	}
	v, err := waitFor(microvm.StatusRunning, microvm.StatusCreated)
	b.ok("WaitVM for the state that it has", err)
	if v.ID != id || v.Status != microvm.StatusCreated {
		b.t.Errorf("WaitVM returned %s", asJSON(v))
	}
	err = b.call(func(ctx context.Context) error {
		_, err := w.WaitVM(ctx, "nobody", microvm.StatusRunning)
		return err
	})
	b.refused("WaitVM", err, microvm.ErrVMNotFound, "nobody")

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := w.WaitVM(ctx, id, microvm.StatusRunning); !errors.Is(err, context.DeadlineExceeded) {
		b.t.Errorf("WaitVM whose context ends: %v; want %v", err, context.DeadlineExceeded)
	}

	// during runs f while somebody waits.
	during := func(f func(), states ...microvm.Status) (microvm.View, error) {
		type answer struct {
			v   microvm.View
			err error
		}
		got := make(chan answer, 1)
		go func() {
			v, err := waitFor(states...)
			got <- answer{v, err}
		}()
		select {
		case a := <-got:
			b.t.Fatalf("WaitVM for %v returned while the VM was %s: %s, %v", states, b.get(id).Status, asJSON(a.v), a.err)
		case <-time.After(20 * time.Millisecond): // it should be waiting by now
		}
		f()
		a := <-got
		return a.v, a.err
	}
	v, err = during(func() { b.ok("StartVM", b.start(id)) }, microvm.StatusRunning, microvm.StatusDestroyed)
	b.ok("WaitVM", err)
	if v.ID != id || v.Status != microvm.StatusRunning {
		b.t.Errorf("WaitVM for running returned %s", asJSON(v))
	}
	v, err = during(func() { b.ok("DestroyVM", b.destroy(id)) }, microvm.StatusDestroyed)
	b.ok("WaitVM", err)
	if v.Status != microvm.StatusDestroyed {
		b.t.Errorf("WaitVM for destroyed returned %s", asJSON(v))
	}
	if p, ok := b.rt.(microvm.Pruner); ok {
		_, err = during(func() { b.prunes(p, time.Hour, id) }, microvm.StatusRunning)
		b.refused("WaitVM for a VM that goes away", err, microvm.ErrVMNotFound, id)
	}
}

func watch(b *bench) {
	w, ok := b.rt.(microvm.Watcher)
	if !ok {
		b.t.Skip("the runtime is no microvm.Watcher")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	events, err := w.Watch(ctx)
	b.ok("Watch", err)
	unread, err := w.Watch(ctx)
	b.ok("Watch", err)
	// next is the next event that fits.
	next := func(what string, c <-chan microvm.Event, fits func(microvm.Event) bool) {
		b.t.Helper()
		for timeout := time.After(b.o.Timeout); ; {
			select {
			case e, ok := <-c:
				if !ok {
					b.t.Fatalf("the channel of Watch was closed before the event of %s", what)
				}
				if e.Time.IsZero() {
					b.t.Errorf("event without time: %s", asJSON(e))
				}
				if fits(e) {
					return
				}
			case <-timeout:
				b.t.Fatalf("no event of %s within %v", what, b.o.Timeout)
			}
		}
	}
	id := "watched"
	in := func(state microvm.Status) func(microvm.Event) bool {
		return func(e microvm.Event) bool { return e.View.ID == id && e.View.Status == state && !e.Gone }
	}
	gone := func(id string) func(microvm.Event) bool {
		return func(e microvm.Event) bool { return e.View.ID == id && e.Gone }
	}
	b.ok("CreateVM", b.create(id))
	next("CreateVM", events, in(microvm.StatusCreated))
	b.ok("StartVM", b.start(id))
	next("StartVM", events, in(microvm.StatusRunning))
	b.ok("SnapshotVM", b.snapshot(id, "s"))
	next("SnapshotVM", events, func(e microvm.Event) bool { return e.View.ID == id && len(e.View.Snapshots) == 1 })
	b.ok("StopVM", b.stop(id))
	next("StopVM", events, in(microvm.StatusStopped))
	if !b.lacks(Renames) {
		b.ok("RenameVM", b.rename(id, "renamed"))
		next("RenameVM", events, gone(id))
		id = "renamed"
		next("RenameVM", events, in(microvm.StatusStopped))
	}
	b.ok("DestroyVM", b.destroy(id))
	next("DestroyVM", events, in(microvm.StatusDestroyed))
	if p, ok := b.rt.(microvm.Pruner); ok {
		b.make("brief", microvm.StatusDestroyed)
		b.prunes(p, time.Hour, "brief")
		next("Prune", events, gone("brief"))
	}
	next("DestroyVM, where nobody had read", unread, in(microvm.StatusDestroyed))
	cancel()
	for _, c := range []<-chan microvm.Event{events, unread} {
		b.closes(c)
	}
}

func (b *bench) closes(c <-chan microvm.Event) {
	b.t.Helper()
	for timeout := time.After(b.o.Timeout); ; {
		select {
		case _, ok := <-c:
			if !ok {
				return
			}
		case <-timeout:
			b.t.Fatalf("Watch's context has ended, and after %v the channel is open", b.o.Timeout)
		}
	}
}

// console knows nothing of what a guest prints: it looks at how the methods end.
func console(b *bench) {
	c, ok := b.rt.(microvm.ConsoleReader)
	if !ok {
		b.t.Skip("the runtime is no microvm.ConsoleReader")
	}
	const id = "talker"
	tail := func(id string, lines int) (text []byte, err error) {
		err = b.call(func(ctx context.Context) error {
			text, err = c.ConsoleTail(ctx, id, lines)
			return err
		})
		return text, err
	}
	_, err := tail("nobody", -1)
	b.refused("ConsoleTail", err, microvm.ErrVMNotFound, "nobody")
	_, err = c.FollowConsole(b.t.Context(), "nobody", -1)
	b.refused("FollowConsole", err, microvm.ErrVMNotFound, "nobody")

	b.make(id, microvm.StatusRunning)
	_, err = tail(id, -1)
	b.ok("ConsoleTail", err)
	text, err := tail(id, 0)
	b.ok("ConsoleTail", err)
	if len(text) > 0 {
		b.t.Errorf("ConsoleTail of 0 lines is %q", text)
	}

	b.run("the end of the context ends a follower", func(b *bench) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		r, err := c.FollowConsole(ctx, id, 0)
		b.ok("FollowConsole", err)
		cancel()
		b.ends(r)
	})
	b.run("Close ends a follower", func(b *bench) {
		ctx, cancel := context.WithTimeout(context.Background(), b.o.Timeout)
		defer cancel()
		r, err := c.FollowConsole(ctx, id, 0)
		b.ok("FollowConsole", err)
		b.ok("Close", r.Close())
		b.ends(r)
	})
	b.run("DestroyVM ends a follower", func(b *bench) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*b.o.Timeout)
		defer cancel()
		r, err := c.FollowConsole(ctx, id, -1)
		b.ok("FollowConsole", err)
		b.ok("DestroyVM", b.destroy(id))
		b.ends(r)
	})
}

// ends reads to the end, which has to come.
func (b *bench) ends(r io.ReadCloser) {
	b.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, r) // with which error it ends is the provider's to choose
	}()
	select {
	case <-done:
	case <-time.After(b.o.Timeout):
		b.t.Errorf("a follower's Read does not end within %v", b.o.Timeout)
	}
	closeQuietly(b.t, r)
}

func closeQuietly(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Logf("Close of an ended follower: %v", err)
	}
}
