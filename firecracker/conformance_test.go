package firecracker

import (
	"context"
	"sync"
	"testing"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/microvmtest"
)

func TestTheProviderKeepsTheLaw(t *testing.T) {
	var mu sync.Mutex
	held := map[microvm.Runtime]*holds{}
	factory := func(t *testing.T) microvm.Runtime {
		c := testConfig(t)
		h := &holds{}
		c.failpoint = h.failpoint
		r := open(t, c)
		mu.Lock()
		defer mu.Unlock()
		held[r] = h
		return r
	}
	points := map[string]failpoint{
		"create": fpCreateStaged, "start": fpStartIntended, "stop": fpStopIntended,
		"snapshot": fpSnapshotIntended, "destroy": fpDestroyIntended, "rename": fpRenameIntended,
	}
	microvmtest.TestRuntime(t, factory, microvmtest.Options{
		Spec:   microvm.Spec{Console: &microvm.Console{Input: true}},
		Checks: 10, Steps: 20,
		Hold: func(rt microvm.Runtime, verb string) (<-chan struct{}, func()) {
			mu.Lock()
			defer mu.Unlock()
			return held[rt].hold(string(points[verb]))
		},
		EndGuest: func(ctx context.Context, rt microvm.Runtime, id string) error {
			return typeIn(rt.(*Runtime), id, "r")
		},
	})
}
