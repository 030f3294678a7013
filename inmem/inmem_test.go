package inmem_test

import (
	"context"
	"os"
	"testing"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
	"github.com/tangle-network/microvm/internal/leaktest"
	"github.com/tangle-network/microvm/microvmtest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

func TestRuntime(t *testing.T) {
	t.Parallel()
	microvmtest.TestRuntime(t, func(*testing.T) microvm.Runtime { return inmem.New() }, microvmtest.Options{
		Parallel: true,
		Hold: func(rt microvm.Runtime, verb string) (<-chan struct{}, func()) {
			return rt.(*inmem.Runtime).HoldNext(inmem.Verb(verb))
		},
		Fail: func(rt microvm.Runtime, verb string, err error) {
			rt.(*inmem.Runtime).FailNext(inmem.Verb(verb), err)
		},
		EndGuest: func(_ context.Context, rt microvm.Runtime, id string) error {
			return rt.(*inmem.Runtime).GuestExits(id, microvm.StopReason{})
		},
		Kill: func(_ context.Context, rt microvm.Runtime, id string) error {
			return rt.(*inmem.Runtime).KillVMM(id)
		},
	})
}

// The suite with each stop mode as the rule of every VM.
func TestRuntimeInOtherStopModes(t *testing.T) {
	t.Parallel()
	for _, mode := range []microvm.StopMode{microvm.StopModeHibernate, microvm.StopModeShutdown} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			microvmtest.TestRuntime(t, func(*testing.T) microvm.Runtime { return inmem.New() }, microvmtest.Options{
				Parallel: true,
				Checks:   20,
				Spec:     microvm.Spec{StopMode: mode},
				Kill: func(_ context.Context, rt microvm.Runtime, id string) error {
					return rt.(*inmem.Runtime).KillVMM(id)
				},
			})
		})
	}
}
