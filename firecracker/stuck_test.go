package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/vmm"
)

// A VMM that stands still, as one in a frozen cgroup or under a debugger, keeps
// nobody waiting for longer than the time-outs; it can be destroyed, and when it
// goes on, so does the VM.
func TestAVMMThatStandsStillHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	for name, s := range scenarios() {
		for _, then := range []string{"destroy", "go on"} {
			t.Run(name+", then "+then, func(t *testing.T) {
				t.Parallel()
				standStill(t, name, s, then)
			})
		}
	}
}

func standStill(t *testing.T, name string, s scenario, then string) {
	c := testConfig(t)
	first, err := Open(bg, c)
	must(t, err)
	for _, st := range s.setup {
		must(t, st.run(bg, first))
	}
	must(t, first.Close())

	c.APITimeout, c.transferBase, c.TermGrace = 600*time.Millisecond, 600*time.Millisecond, 100*time.Millisecond
	frozen := &frozenVMMs{}
	var r *Runtime
	c.failpoint = func(_ context.Context, at string) error {
		if at != string(fpCreateSpawned) && at != string(fpStartSpawned) || !frozen.none() {
			return nil
		}
		in, err := r.store.Intent(s.verb.ID)
		if err == nil {
			err = frozen.stop(in.Process.PID)
		}
		return err
	}
	r = open(t, c)
	before := situation(t, r)
	pid := 0
	if v, err := r.GetVM(bg, s.verb.ID); err == nil && v.PID != 0 {
		pid = v.PID
		must(t, frozen.stop(pid))
	}
	began := time.Now()
	err = s.verb.run(bg, r)
	// Two calls, the time of a snapshot, and the end of the VMM.
	if took, bound := time.Since(began), 2*c.APITimeout+r.transferTimeout(c.MemoryMiB)+c.TermGrace+c.ShutdownGrace+10*time.Second; took > bound {
		t.Errorf("it took %v, want at most %v: %v", took, bound, err)
	}
	var got string
	quickest := time.Hour // the machine may be busy
	for range 3 {
		began = time.Now()
		got = situation(t, r)
		quickest = min(quickest, time.Since(began))
	}
	if quickest > c.APITimeout/2 {
		t.Errorf("queries took %v and longer", quickest)
	}
	switch {
	// Those that don't need the VMM, or end it.
	case slices.Contains([]string{"rename", "delete", "destroy", verbEgress}, s.verb.Verb), name == "snapshot created", name == "shutdown":
		must(t, err)
	case !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer within 600ms") || got != before:
		t.Errorf("before: %s\nis:     %s\nerror:  %v", before, got, err)
	default:
		var e *microvm.Error
		if !errors.As(err, &e) || !e.Retry || e.Remedy == "" || e.VMID != s.verb.ID || !strings.Contains(err.Error(), e.Stage) {
			t.Errorf("%+v", e)
		}
	}
	if then == "go on" {
		must(t, frozen.goOn())
	}
	views, err := r.ListVMs(bg)
	must(t, err)
	for _, v := range views {
		if v.Status == microvm.StatusDestroyed {
			continue
		}
		if then == "go on" {
			runsOn(t, r, v.ID)
		}
		began = time.Now()
		must(t, r.DestroyVM(bg, v.ID))
		if took := time.Since(began); took > c.TermGrace+c.ShutdownGrace+c.APITimeout+10*time.Second {
			t.Errorf("the destroy took %v", took)
		}
	}
	if left := leftovers(c.StateDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// idle says that no verb is under way, or was cut off.
func idle(t *testing.T, r *Runtime, id string) bool {
	t.Helper()
	in, err := r.store.Intent(id)
	must(t, err)
	return in == nil
}

// runsOn makes the guest run, whatever the VM is now.
func runsOn(t *testing.T, r *Runtime, id string) {
	t.Helper()
	eventually(t, "the verb that failed is forgotten", func() bool { return idle(t, r, id) })
	if v := mustGet(t, r, id); v.Status != microvm.StatusRunning {
		must(t, r.StartVM(bg, id))
	}
	n := len(counts(t, r, id))
	eventually(t, strconv.Quote(id)+" goes on", func() bool { return len(counts(t, r, id)) > n+1 })
}

// frozenVMMs are VMMs that were stopped by SIGSTOP.
type frozenVMMs struct {
	mu  sync.Mutex
	all []vmm.Identity
}

func (f *frozenVMMs) stop(pid int) error {
	id, err := vmm.Identify(pid)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, id)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	// A thread that the scheduler has not come to yet could still answer.
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		moves, err := threadsThatMove(pid)
		if err != nil || !moves {
			return err
		}
	}
	return errors.New("a stopped VMM does not stand still")
}

func threadsThatMove(pid int) (bool, error) {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false, err
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			return false, err
		}
		if !strings.Contains(string(b), ") T ") {
			return true, nil
		}
	}
	return false, nil
}

func (f *frozenVMMs) none() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.all) == 0
}

// goOn wakes those that live.
func (f *frozenVMMs) goOn() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range f.all {
		if now, err := vmm.Identify(id.PID); err != nil || now != id {
			continue
		}
		if err := syscall.Kill(id.PID, syscall.SIGCONT); err != nil {
			return err
		}
	}
	return nil
}
