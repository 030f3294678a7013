package microvmtest

import (
	"context"
	"errors"
	"time"

	"github.com/tangle-network/microvm"
)

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

	err = b.call(func(ctx context.Context) error {
		_, err := w.WaitVM(ctx, id)
		return err
	})
	b.refused("WaitVM for no state", err, microvm.ErrInvalidSpec, id)

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
		left, came := gone(id), false
		id = "renamed"
		arrived, went := in(microvm.StatusStopped), false
		next("RenameVM", events, func(e microvm.Event) bool { // in either order
			went, came = went || left(e), came || arrived(e)
			return went && came
		})
	}
	b.ok("DestroyVM", b.destroy(id))
	next("DestroyVM", events, in(microvm.StatusDestroyed))
	if p, ok := b.rt.(microvm.Pruner); ok {
		id = "brief"
		b.make(id, microvm.StatusDestroyed)
		next("DestroyVM", events, in(microvm.StatusDestroyed))
		b.prunes(p, time.Hour, "brief")
		next("Prune", events, gone("brief"))
	}
	next("DestroyVM, where nobody had read", unread, func(e microvm.Event) bool { return e.View.Status == microvm.StatusDestroyed })
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
