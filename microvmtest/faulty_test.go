package microvmtest_test

import (
	"context"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
)

// call is one call of a verb. arg is the second name that it was given: a
// snapshot's, or the new id; spec is CreateVMWithSpec's.
type call struct {
	verb, id, arg string
	spec          microvm.Spec
	next          func(ctx context.Context) error // what inmem does
}

// faulty is inmem with a fault: a hook that is set stands between caller and
// provider.
type faulty struct {
	*inmem.Runtime
	verb           func(ctx context.Context, c call) error
	list           func(views []microvm.View) []microvm.View
	get            func(ctx context.Context, id string) (microvm.View, error)
	view           func(v microvm.View) microvm.View // of list and get
	names          func(ctx context.Context, id string) ([]string, error)
	prune          func(ctx context.Context, before time.Time) ([]string, error)
	deleteSnapshot func(ctx context.Context, id, name string) error
	wait           func(ctx context.Context, id string, states []microvm.Status) (microvm.View, error)
	watch          func(ctx context.Context) (<-chan microvm.Event, error)
	fork           func(ctx context.Context, id, newID string) error
	egress         func(ctx context.Context, id string, e microvm.Egress) error
	kill           func(id string) error
	another        func() microvm.Runtime
	reopen         func() microvm.Runtime
	leftovers      []string
	devices        devices
}

func (f *faulty) do(ctx context.Context, c call) error {
	if f.verb == nil {
		return c.next(ctx)
	}
	return f.verb(ctx, c)
}

func (f *faulty) UpdateEgress(ctx context.Context, id string, e microvm.Egress) error {
	if f.egress != nil {
		return f.egress(ctx, id, e)
	}
	return f.Runtime.UpdateEgress(ctx, id, e)
}

func (f *faulty) CreateVM(ctx context.Context, id string) error {
	return f.do(ctx, call{verb: "create", id: id, next: func(ctx context.Context) error { return f.Runtime.CreateVM(ctx, id) }})
}

func (f *faulty) CreateVMWithSpec(ctx context.Context, id string, spec microvm.Spec) error {
	c := call{verb: "create", id: id, spec: spec, next: func(ctx context.Context) error { return f.Runtime.CreateVMWithSpec(ctx, id, spec) }}
	if spec.RestoreFrom != nil {
		c.verb, c.arg = "restore", spec.RestoreFrom.SnapshotID
	}
	return f.do(ctx, c)
}

func (f *faulty) StartVM(ctx context.Context, id string) error {
	return f.do(ctx, call{verb: "start", id: id, next: func(ctx context.Context) error { return f.Runtime.StartVM(ctx, id) }})
}

func (f *faulty) StopVM(ctx context.Context, id string) error {
	return f.do(ctx, call{verb: "stop", id: id, next: func(ctx context.Context) error { return f.Runtime.StopVM(ctx, id) }})
}

func (f *faulty) SnapshotVM(ctx context.Context, id, name string) error {
	return f.do(ctx, call{verb: "snapshot", id: id, arg: name, next: func(ctx context.Context) error { return f.Runtime.SnapshotVM(ctx, id, name) }})
}

func (f *faulty) DestroyVM(ctx context.Context, id string) error {
	return f.do(ctx, call{verb: "destroy", id: id, next: func(ctx context.Context) error { return f.Runtime.DestroyVM(ctx, id) }})
}

func (f *faulty) RenameVM(ctx context.Context, id, newID string) error {
	return f.do(ctx, call{verb: "rename", id: id, arg: newID, next: func(ctx context.Context) error { return f.Runtime.RenameVM(ctx, id, newID) }})
}

func (f *faulty) ListVMs(ctx context.Context) ([]microvm.View, error) {
	views, err := f.Runtime.ListVMs(ctx)
	if err != nil {
		return nil, err
	}
	if f.list != nil {
		views = f.list(views)
	}
	if f.view != nil {
		for i := range views {
			views[i] = f.view(views[i])
		}
	}
	return views, nil
}

func (f *faulty) GetVM(ctx context.Context, id string) (microvm.View, error) {
	get := f.Runtime.GetVM
	if f.get != nil {
		get = f.get
	}
	view, err := get(ctx, id)
	if err == nil && f.view != nil {
		view = f.view(view)
	}
	return view, err
}

func (f *faulty) ListSnapshots(ctx context.Context, id string) ([]string, error) {
	if f.names != nil {
		return f.names(ctx, id)
	}
	return f.Runtime.ListSnapshots(ctx, id)
}

func (f *faulty) Prune(ctx context.Context, before time.Time) ([]string, error) {
	if f.prune != nil {
		return f.prune(ctx, before)
	}
	return f.Runtime.Prune(ctx, before)
}

func (f *faulty) DeleteSnapshot(ctx context.Context, id, name string) error {
	if f.deleteSnapshot != nil {
		return f.deleteSnapshot(ctx, id, name)
	}
	return f.Runtime.DeleteSnapshot(ctx, id, name)
}

func (f *faulty) WaitVM(ctx context.Context, id string, states ...microvm.Status) (microvm.View, error) {
	if f.wait != nil {
		return f.wait(ctx, id, states)
	}
	return f.Runtime.WaitVM(ctx, id, states...)
}

func (f *faulty) Watch(ctx context.Context) (<-chan microvm.Event, error) {
	if f.watch != nil {
		return f.watch(ctx)
	}
	return f.Runtime.Watch(ctx)
}

func (f *faulty) ForkVM(ctx context.Context, id, newID string) error {
	if f.fork != nil {
		return f.fork(ctx, id, newID)
	}
	return f.Runtime.ForkVM(ctx, id, newID)
}
