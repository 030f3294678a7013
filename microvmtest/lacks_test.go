package microvmtest_test

import (
	"context"
	"testing"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
	"github.com/tangle-network/microvm/microvmtest"
)

// poor has the verbs that nobody may leave out, and the defaults for the rest.
type poor struct {
	microvm.UnimplementedProvider
	microvm.Query
	rt *inmem.Runtime
}

func (p poor) CreateVM(ctx context.Context, id string) error  { return p.rt.CreateVM(ctx, id) }
func (p poor) StartVM(ctx context.Context, id string) error   { return p.rt.StartVM(ctx, id) }
func (p poor) StopVM(ctx context.Context, id string) error    { return p.rt.StopVM(ctx, id) }
func (p poor) DestroyVM(ctx context.Context, id string) error { return p.rt.DestroyVM(ctx, id) }
func (p poor) SnapshotVM(ctx context.Context, id, name string) error {
	return p.rt.SnapshotVM(ctx, id, name)
}

func TestSuitePassesAProviderThatSaysWhatItLacks(t *testing.T) {
	t.Parallel()
	microvmtest.TestRuntime(t, func(*testing.T) microvm.Runtime {
		rt := inmem.New()
		return poor{UnimplementedProvider: microvm.UnimplementedProvider{Create: rt}, Query: rt, rt: rt}
	}, microvmtest.Options{
		Parallel: true,
		Slow:     true, // its own profile is tried here too
		Lacks: map[microvmtest.Feature]string{
			microvmtest.Specs:    "CreateVMWithSpec is the default",
			microvmtest.Renames:  "RenameVM is the default",
			microvmtest.Restores: "CreateVMWithSpec is the default",
		},
	})
}
