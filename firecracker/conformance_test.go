package firecracker

import (
	"context"
	"sync"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/microvmtest"
)

func TestTheProviderKeepsTheLaw(t *testing.T) {
	var mu sync.Mutex
	held := map[microvm.Runtime]*holds{}
	openHeld := func(t *testing.T, c Config) microvm.Runtime {
		h := &holds{}
		c.failpoint = h.failpoint
		r := open(t, c)
		mu.Lock()
		defer mu.Unlock()
		held[r] = h
		return r
	}
	of := func(rt microvm.Runtime) *holds {
		mu.Lock()
		defer mu.Unlock()
		return held[rt]
	}
	points := map[string]failpoint{
		"create": fpCreateStaged, "start": fpStartIntended, "stop": fpStopIntended,
		"snapshot": fpSnapshotIntended, "destroy": fpDestroyIntended, "rename": fpRenameIntended,
	}
	microvmtest.TestRuntime(t, func(t *testing.T) microvm.Runtime { return openHeld(t, testConfig(t)) }, microvmtest.Options{
		Steps: 20,
		Hold: func(rt microvm.Runtime, verb string) (<-chan struct{}, func()) {
			return of(rt).hold(string(points[verb]))
		},
		Fail: func(rt microvm.Runtime, verb string, err error) { of(rt).failNext(string(points[verb]), err) },
		EndGuest: func(ctx context.Context, rt microvm.Runtime, id string) error {
			return pressKeys(ctx, rt.(*Runtime), id)
		},
		Kill: func(ctx context.Context, rt microvm.Runtime, id string) error {
			v, err := rt.GetVM(ctx, id)
			if err != nil {
				return err
			}
			return syscall.Kill(v.PID, syscall.SIGKILL)
		},
		Another: func(t *testing.T, rt microvm.Runtime) microvm.Runtime {
			return openHeld(t, rt.(*Runtime).cfg)
		},
		Reopen: func(t *testing.T, rt microvm.Runtime) microvm.Runtime {
			must(t, rt.(*Runtime).Close())
			return openHeld(t, rt.(*Runtime).cfg)
		},
		Leftovers: func(rt microvm.Runtime) []string { return leftovers(rt.(*Runtime).cfg.StateDir) },
	})
}
