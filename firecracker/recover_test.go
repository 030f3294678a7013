package firecracker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
)

// cutCreates leaves n creations of a program that has died.
func cutCreates(t *testing.T, c Config, n int) {
	t.Helper()
	for i := range n {
		killedAt(t, c, string(fpCreateSpawned), step{Verb: "create", ID: fmt.Sprintf("cut%d", i)})
	}
}

func TestRecoveryMakesNoMoreRepairsThanItMay(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.NoRecovery = true
	r := open(t, c)
	start(t, r, "runs", microvm.Spec{})
	killedAt(t, c, string(fpSnapshotPaused), step{Verb: "snapshot", ID: "runs", Other: "s"})
	cutCreates(t, c, 3)
	old := filepath.Join(r.store.Root(), ".gone-x-01")
	must(t, os.Mkdir(old, 0o700))
	must(t, os.Chtimes(old, time.Now(), time.Now().Add(-time.Hour)))

	for _, dry := range []bool{true, false} {
		rep, err := r.Recover(bg, RecoverOptions{Repairs: 2, DryRun: dry})
		must(t, err)
		if len(rep.RolledBack) != 2 || len(rep.Deferred) != 2 || !slices.Contains(rep.Deferred, old) {
			t.Errorf("dry run %v: %+v", dry, rep)
		}
		// That a guest goes on is no repair of that kind.
		if !slices.Equal(rep.Finished, []string{"runs"}) {
			t.Errorf("dry run %v: finished %v", dry, rep.Finished)
		}
	}
	rep, err := r.Recover(bg, RecoverOptions{Repairs: -1})
	must(t, err)
	if len(rep.RolledBack) != 1 || len(rep.Deferred) != 0 {
		t.Errorf("the last run: %+v", rep)
	}
	if ids, err := r.store.IDs(); err != nil || !slices.Equal(ids, []string{"runs"}) {
		t.Errorf("left: %v, %v", ids, err)
	}
	if isThere(old) {
		t.Errorf("%s is left", old)
	}
}

// A VM that a run has left alone waits for nobody: its name can be used, and it
// can be destroyed.
func TestADeferredRepairIsMadeByTheNextVerb(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.NoRecovery = true
	r := open(t, c)
	cutCreates(t, c, 2)
	start(t, r, "dying", microvm.Spec{})
	killedAt(t, c, string(fpDestroyIntended), step{Verb: "destroy", ID: "dying"})
	// No run that may do nothing can be asked for: 0 is the default.
	rec := newRecovery(r, RecoverOptions{})
	rec.repairs = 0
	must(t, rec.run(bg))
	if got := rec.sorted(); !slices.Equal(got.Deferred, []string{"cut0", "cut1", "dying"}) {
		t.Fatalf("%+v", got)
	}
	must(t, r.CreateVM(bg, "cut0"))
	must(t, r.DestroyVM(bg, "dying"))
	rep, err := r.Recover(bg, RecoverOptions{})
	must(t, err)
	if !slices.Equal(rep.RolledBack, []string{"cut1"}) {
		t.Errorf("%+v", rep)
	}
}

// runMany makes n running VMs.
func runMany(t testing.TB, r *Runtime, n int) {
	t.Helper()
	var wg sync.WaitGroup
	ids := make(chan string)
	for range 4 {
		wg.Go(func() {
			for id := range ids {
				if err := r.CreateVM(bg, id); err != nil {
					t.Error(err)
				} else if err := r.StartVM(bg, id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		ids <- fmt.Sprintf("vm-%04d", i)
	}
	close(ids)
	wg.Wait()
}

// destroyMany is the end of runMany's.
func destroyMany(t testing.TB, r *Runtime) {
	t.Helper()
	views, err := r.ListVMs(bg)
	must(t, err)
	var wg sync.WaitGroup
	for part := range slices.Chunk(views, len(views)/4+1) {
		wg.Go(func() {
			for _, v := range part {
				if err := r.DestroyVM(bg, v.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestOpenAdoptsAllThatRun(t *testing.T) {
	t.Parallel()
	const n = 100
	c := testConfig(t)
	if !under.real {
		c.BootArgs = DefaultBootArgs
	}
	first, err := Open(bg, c)
	must(t, err)
	runMany(t, first, n)
	must(t, first.Close())
	c.NoRecovery = true
	r := open(t, c)
	defer destroyMany(t, r)
	rep, err := r.Recover(bg, RecoverOptions{})
	must(t, err)
	if len(rep.Adopted) != n || len(rep.SetAside)+len(rep.Finished)+len(rep.Busy) != 0 {
		t.Errorf("adopted %d of %d: %+v", len(rep.Adopted), n, rep)
	}
	r.mu.Lock()
	watched := len(r.machines)
	r.mu.Unlock()
	if watched != n {
		t.Errorf("%d are watched", watched)
	}
	for _, id := range rep.Adopted {
		if v := mustGet(t, r, id); v.Status != microvm.StatusRunning || v.PID == 0 {
			t.Errorf("%s is %s, pid %d", id, v.Status, v.PID)
		}
	}
}

// BenchmarkAdoption is Open over running VMs.
//
//	go test -run=^$ -bench=Adoption -benchtime=5x ./firecracker
func BenchmarkAdoption(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := testConfig(b)
			c.Log = nil
			if !under.real {
				c.BootArgs = DefaultBootArgs
			}
			r, err := Open(bg, c)
			must(b, err)
			runMany(b, r, n)
			must(b, r.Close())
			var cpu time.Duration
			for b.Loop() {
				began := cpuTime(b)
				if r, err = Open(bg, c); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				cpu += cpuTime(b) - began
				if len(r.machines) != n {
					b.Fatalf("%d of %d are adopted", len(r.machines), n)
				}
				must(b, r.Close())
				b.StartTimer()
			}
			b.StopTimer()
			b.ReportMetric(float64(cpu.Microseconds())/1000/float64(b.N), "cpu-ms/op")
			r, err = Open(bg, c)
			must(b, err)
			destroyMany(b, r)
			must(b, r.Close())
		})
	}
}

// cpuTime is what this process has used of all processors: on a machine that is
// busy otherwise it says more than a clock.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
