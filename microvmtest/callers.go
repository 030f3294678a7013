package microvmtest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tangle-network/microvm"
)

// atOnce calls f n times at the same moment and returns the errors.
func atOnce(n int, f func(i int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-begin
			errs[i] = f(i)
		})
	}
	close(begin)
	wg.Wait()
	return errs
}

// oneWins checks that one call succeeded and the others were refused with want;
// it returns the winner.
func (b *bench) oneWins(what string, errs []error, want error) int {
	b.t.Helper()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			b.t.Fatalf("%s: callers %d and %d both succeeded", what, winner, i)
		case err == nil:
			winner = i
		default:
			if f := fault(err, want); f != "" {
				b.t.Fatalf("%s: %s", what, f)
			}
		}
	}
	if winner < 0 {
		b.t.Fatalf("%s: nobody succeeded: %v", what, errs[0])
	}
	return winner
}

func oneVMManyCallers(b *bench) {
	const id = "contended"
	many := b.o.some(32, 8)
	b.oneWins("CreateVM", atOnce(many, func(int) error { return b.create(id) }), microvm.ErrVMExists)
	b.is(id, microvm.StatusCreated)
	b.oneWins("StartVM", atOnce(many, func(int) error { return b.start(id) }), microvm.ErrInvalidTransition)
	b.is(id, microvm.StatusRunning)
	b.oneWins("SnapshotVM", atOnce(many, func(int) error { return b.snapshot(id, "same") }), microvm.ErrSnapshotExists)
	b.is(id, microvm.StatusRunning, "same")
	for _, err := range atOnce(b.o.some(8, 2), func(i int) error { return b.snapshot(id, fmt.Sprintf("own%d", i)) }) {
		b.ok("SnapshotVM", err)
	}
	got := slices.Sorted(slices.Values(b.snapshotsOf(id)))
	if len(got) != 1+b.o.some(8, 2) || len(slices.Compact(got)) != 1+b.o.some(8, 2) {
		b.t.Fatalf("snapshots made at once: %q", got)
	}
	b.oneWins("StopVM", atOnce(many, func(int) error { return b.stop(id) }), microvm.ErrInvalidTransition)
	b.is(id, microvm.StatusStopped)
	b.startsAndStops(id)
	b.oneWins("DestroyVM", atOnce(many, func(int) error { return b.destroy(id) }), microvm.ErrInvalidTransition)
	b.is(id, microvm.StatusDestroyed)

	b.run("everything at once", func(b *bench) {
		for round := range b.o.some(4, 1) {
			id := fmt.Sprintf("melee%d", round)
			b.ok("CreateVM", b.create(id))
			errs := atOnce(b.o.some(16, 4), func(i int) error {
				switch i % 4 {
				case 0:
					return b.start(id)
				case 1:
					return b.stop(id)
				case 2:
					return b.snapshot(id, fmt.Sprintf("s%d", i))
				default:
					return b.destroy(id)
				}
			})
			destroyed, taken := 0, 0
			for i, err := range errs {
				switch {
				case err != nil && !errors.Is(err, microvm.ErrInvalidTransition):
					b.t.Errorf("caller %d: %v", i, err)
				case err == nil && i%4 == 3:
					destroyed++
				case err == nil && i%4 == 2:
					taken++
				}
			}
			if v := b.is(id, microvm.StatusDestroyed); destroyed != 1 || len(v.Snapshots) != taken {
				b.t.Errorf("%d callers destroyed the VM, %d made snapshots: %s", destroyed, taken, asJSON(v))
			}
		}
	})
}

// startsAndStops counts what succeeded when callers start and stop a stopped VM
// at once: starts and stops take turns.
func (b *bench) startsAndStops(id string) {
	b.t.Helper()
	var mu sync.Mutex
	starts, stops := 0, 0
	atOnce(b.o.some(8, 4), func(i int) error {
		for range b.o.some(6, 1) {
			call, count := b.start, &starts
			if i%2 == 1 {
				call, count = b.stop, &stops
			}
			err := call(id)
			mu.Lock()
			if err == nil {
				*count++
			} else if !errors.Is(err, microvm.ErrInvalidTransition) {
				b.t.Errorf("starts and stops at once: %v", err)
			}
			mu.Unlock()
		}
		return nil
	})
	running := 0
	if b.get(id).Status == microvm.StatusRunning {
		running = 1
	}
	if starts-stops != running {
		b.t.Errorf("%d starts and %d stops succeeded, and then the VM is %s", starts, stops, b.get(id).Status)
	}
}

func oneNameManyCallers(b *bench) {
	n := b.o.some(8, 3)
	name := func(i int) string { return fmt.Sprintf("vm%d", i) }
	b.skipIfLacking(Renames)
	for i := range n {
		b.ok("CreateVM", b.create(name(i)))
		b.ok("SnapshotVM", b.snapshot(name(i), "s"))
	}
	b.run("many VMs onto one name", func(b *bench) {
		winner := b.oneWins("RenameVM", atOnce(n, func(i int) error { return b.rename(name(i), "prize") }), microvm.ErrVMExists)
		b.absent(name(winner))
		if got := len(b.list()); got != n {
			b.t.Errorf("%d VMs are listed; want %d", got, n)
		}
	})
	b.run("one VM onto many names", func(b *bench) {
		to := func(i int) string { return fmt.Sprintf("to%d", i) }
		winner := b.oneWins("RenameVM", atOnce(n, func(i int) error { return b.rename("prize", to(i)) }), microvm.ErrVMNotFound)
		b.is(to(winner), microvm.StatusCreated, "s")
		b.ok("RenameVM back", b.rename(to(winner), "prize"))
		if got := len(b.list()); got != n {
			b.t.Errorf("%d VMs are listed; want %d", got, n)
		}
	})
	b.ok("CreateVM", b.create("source"))
	b.ok("SnapshotVM", b.snapshot("source", "s"))
	b.run("create, rename and restore onto one name", func(b *bench) {
		for round := range b.o.some(8, 1) {
			id := fmt.Sprintf("goal%d", round)
			errs := atOnce(3, func(i int) error {
				switch {
				case i == 0:
					return b.create(id)
				case i == 1 || b.lacks(Restores) || b.lacks(Specs):
					return b.rename("prize", id)
				default:
					return b.restore(id, microvm.RestoreFrom{VMID: "source", SnapshotID: "s"})
				}
			})
			made := 0
			for i, err := range errs {
				switch {
				case err == nil:
					made++
				case errors.Is(err, microvm.ErrVMExists):
				default:
					b.t.Errorf("caller %d: %v", i, err)
				}
			}
			if made != 1 {
				b.t.Fatalf("%d callers got the id %q", made, id)
			}
			if errs[1] == nil {
				b.ok("RenameVM back", b.rename(id, "prize"))
			}
			b.is("prize", microvm.StatusCreated, "s")
		}
	})
}

// manyVMs takes many VMs through their lives at once, under the eyes of
// queries.
func manyVMs(b *bench) {
	n := b.o.VMs
	stop := make(chan struct{})
	var eyes sync.WaitGroup
	for range 2 {
		eyes.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				list, err := b.rt.ListVMs(b.t.Context())
				if err != nil {
					b.t.Errorf("ListVMs beside verbs: %v", err)
					return
				}
				if f := listFault(list); f != "" {
					b.t.Error(f)
					return
				}
			}
		})
	}
	errs := atOnce(n, func(i int) error {
		id := fmt.Sprintf("vm%02d", i)
		for _, step := range []func() error{
			func() error { return b.create(id) },
			func() error { return b.start(id) },
			func() error { return b.snapshot(id, "s") },
			func() error { return b.stop(id) },
			func() error { return b.start(id) },
			func() error { return b.destroy(id) },
		} {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	})
	close(stop)
	eyes.Wait()
	for i, err := range errs {
		b.ok("a life among others", err)
		b.is(fmt.Sprintf("vm%02d", i), microvm.StatusDestroyed, "s")
	}
}
