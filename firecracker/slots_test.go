package firecracker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/vmm"
)

// Field case 46, for names: a name is had by one VM after the other, while the
// ends of the former owners are slow. What is still done for those must not touch
// the new owner, and a Close in the middle waits for it or leaves it to recovery.
func TestTheEndOfAFormerOwnerTouchesNoNewOne(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.failpoint = func(_ context.Context, name string) error {
		switch failpoint(name) {
		case fpDestroyKilled, fpDestroyCleaned, fpDestroySaved:
			time.Sleep(rand.N(5 * time.Millisecond))
		}
		return nil
	}
	r, err := Open(bg, c)
	must(t, err)
	var wg sync.WaitGroup
	var ended atomic.Int32
	for i := range 8 {
		wg.Go(func() {
			id := fmt.Sprint("name", i%2)
			for {
				switch err := r.CreateVM(bg, id); {
				case errors.Is(err, ErrClosed):
					return
				case errors.Is(err, microvm.ErrVMExists):
					time.Sleep(rand.N(2 * time.Millisecond)) // there are few cores
					continue
				case err != nil:
					t.Errorf("create: %v", err)
					return
				}
				// It is ours: nobody else destroys it.
				v, err := r.GetVM(bg, id)
				if err == nil && v.PID == 0 {
					t.Errorf("%s has no VMM", id)
				}
				if err := errors.Join(err, r.StartVM(bg, id)); err != nil && !errors.Is(err, ErrClosed) {
					t.Errorf("start: %v", err)
				}
				if now, err := r.GetVM(bg, id); err != nil || now.UID != v.UID || now.PID != v.PID || now.Status == microvm.StatusStopped {
					t.Errorf("%s was %s, pid %d, and is %s, pid %d, %s, %v, %v", id, v.UID, v.PID, now.UID, now.PID, now.Status, now.StopReason, err)
				}
				if err := r.DestroyVM(bg, id); err != nil && !errors.Is(err, ErrClosed) {
					t.Errorf("destroy: %v", err)
				}
				if _, err := vmm.Identify(v.PID); err == nil && !closing(r) {
					t.Errorf("VMM %d is still there", v.PID)
				}
				if _, err := r.Prune(bg, time.Now().Add(time.Hour)); err != nil && !errors.Is(err, ErrClosed) {
					t.Errorf("prune: %v", err)
				}
				ended.Add(1)
			}
		})
	}
	eventually(t, "20 owners have had a name", func() bool { return ended.Load() >= 20 || t.Failed() })
	must(t, r.Close())
	wg.Wait()
	if len(r.machines) > 0 {
		t.Errorf("%d VMMs are still known", len(r.machines))
	}
	c.failpoint = nil
	second := open(t, c)
	views, err := second.ListVMs(bg)
	must(t, err)
	for _, v := range views {
		if v.Status != microvm.StatusDestroyed {
			must(t, second.DestroyVM(bg, v.ID))
		}
	}
	if left := leftovers(c.StateDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func closing(r *Runtime) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}
