package microvmtest

import (
	"context"

	"github.com/tangle-network/microvm"
)

// spec is the base spec with what change does to it.
func (b *bench) spec(change func(*microvm.Spec)) microvm.Spec {
	s := b.o.Spec.Clone()
	if change != nil {
		change(&s)
	}
	return s
}

func (b *bench) create(id string) error {
	return b.call(func(ctx context.Context) error { return b.createIn(ctx, id) })
}

func (b *bench) createIn(ctx context.Context, id string) error {
	if b.o.zeroSpec() || b.lacks(Specs) {
		return b.rt.CreateVM(ctx, id)
	}
	return b.rt.CreateVMWithSpec(ctx, id, b.spec(nil))
}

func (b *bench) createWith(id string, change func(*microvm.Spec)) error {
	return b.call(func(ctx context.Context) error { return b.rt.CreateVMWithSpec(ctx, id, b.spec(change)) })
}

func (b *bench) restore(id string, from microvm.RestoreFrom) error {
	return b.call(func(ctx context.Context) error { return b.restoreIn(ctx, id, from) })
}

func (b *bench) restoreIn(ctx context.Context, id string, from microvm.RestoreFrom) error {
	return b.rt.CreateVMWithSpec(ctx, id, b.spec(func(s *microvm.Spec) { s.RestoreFrom = &from }))
}

func (b *bench) start(id string) error {
	return b.call(func(ctx context.Context) error { return b.rt.StartVM(ctx, id) })
}

func (b *bench) stop(id string) error {
	return b.call(func(ctx context.Context) error { return b.rt.StopVM(ctx, id) })
}

func (b *bench) snapshot(id, name string) error {
	return b.call(func(ctx context.Context) error { return b.rt.SnapshotVM(ctx, id, name) })
}

func (b *bench) destroy(id string) error {
	return b.call(func(ctx context.Context) error { return b.rt.DestroyVM(ctx, id) })
}

func (b *bench) rename(id, newID string) error {
	return b.call(func(ctx context.Context) error { return b.rt.RenameVM(ctx, id, newID) })
}

// make makes a VM in the given state.
func (b *bench) make(id string, state microvm.Status) {
	b.t.Helper()
	b.ok("CreateVM", b.create(id))
	b.bring(id, state)
}

// bring brings a created VM into the given state.
func (b *bench) bring(id string, state microvm.Status) {
	b.t.Helper()
	switch state {
	case microvm.StatusRunning:
		b.ok("StartVM", b.start(id))
	case microvm.StatusStopped:
		b.ok("StartVM", b.start(id))
		b.ok("StopVM", b.stop(id))
	case microvm.StatusDestroyed:
		b.ok("DestroyVM", b.destroy(id))
	}
}

// verb is a verb of the contract on one VM.
type verb struct {
	name string // the method
	hold string // what Options.Hold calls it
	// to is the state that it leads to; empty when it keeps the state.
	to   microvm.Status
	from []microvm.Status // where it is legal
	// call uses name for what is new: the snapshot's name, the new id.
	call func(ctx context.Context, b *bench, id, name string) error
}

var (
	verbCreate = verb{"CreateVM", "create", microvm.StatusCreated, nil,
		func(ctx context.Context, b *bench, id, _ string) error { return b.createIn(ctx, id) }}
	verbStart = verb{"StartVM", "start", microvm.StatusRunning,
		[]microvm.Status{microvm.StatusCreated, microvm.StatusStopped},
		func(ctx context.Context, b *bench, id, _ string) error { return b.rt.StartVM(ctx, id) }}
	verbStop = verb{"StopVM", "stop", microvm.StatusStopped,
		[]microvm.Status{microvm.StatusRunning},
		func(ctx context.Context, b *bench, id, _ string) error { return b.rt.StopVM(ctx, id) }}
	verbSnapshot = verb{"SnapshotVM", "snapshot", "", alive,
		func(ctx context.Context, b *bench, id, name string) error { return b.rt.SnapshotVM(ctx, id, name) }}
	verbRename = verb{"RenameVM", "rename", "", alive,
		func(ctx context.Context, b *bench, id, name string) error { return b.rt.RenameVM(ctx, id, name) }}
	verbDestroy = verb{"DestroyVM", "destroy", microvm.StatusDestroyed, alive,
		func(ctx context.Context, b *bench, id, _ string) error { return b.rt.DestroyVM(ctx, id) }}

	// verbRestore makes a running VM from the snapshot "s" of VM "source".
	verbRestore = verb{"restore", "", microvm.StatusRunning, nil,
		func(ctx context.Context, b *bench, id, _ string) error {
			return b.restoreIn(ctx, id, microvm.RestoreFrom{VMID: "source", SnapshotID: "s", ResumeImmediately: true})
		}}

	alive  = []microvm.Status{microvm.StatusCreated, microvm.StatusRunning, microvm.StatusStopped}
	states = []microvm.Status{microvm.StatusCreated, microvm.StatusRunning, microvm.StatusStopped, microvm.StatusDestroyed}
)

// onVMs are the verbs that need a VM, in an order in which one VM can go
// through most of them.
func (b *bench) onVMs() []verb {
	verbs := []verb{verbSnapshot, verbRename, verbStart, verbStop, verbDestroy}
	if b.lacks(Renames) {
		verbs = append(verbs[:1:1], verbs[2:]...)
	}
	return verbs
}
