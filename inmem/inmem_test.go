package inmem_test

import (
	"context"
	"testing"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
	"github.com/tangle-network/microvm/microvmtest"
)

func TestRuntime(t *testing.T) {
	t.Parallel()
	microvmtest.TestRuntime(t, func(*testing.T) microvm.Runtime { return inmem.New() }, microvmtest.Options{
		Parallel: true,
		Hold: func(rt microvm.Runtime, verb string) (<-chan struct{}, func()) {
			return rt.(*inmem.Runtime).HoldNext(inmem.Verb(verb))
		},
		EndGuest: func(_ context.Context, rt microvm.Runtime, id string) error {
			return rt.(*inmem.Runtime).GuestExits(id, microvm.StopReason{})
		},
	})
}
