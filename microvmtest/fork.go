package microvmtest

import (
	"context"
	"slices"

	"github.com/tangle-network/microvm"
)

func fork(b *bench) {
	f, ok := b.rt.(microvm.Forker)
	if !ok {
		b.t.Skip("the runtime is no microvm.Forker")
	}
	fork := func(id, newID string) error {
		return b.call(func(ctx context.Context) error { return f.ForkVM(ctx, id, newID) })
	}
	const id = "parent"
	b.ok("CreateVM", b.create(id))
	b.ok("ForkVM of a created VM", fork(id, "unborn"))
	b.is("unborn", microvm.StatusCreated)
	b.ok("StartVM of the copy", b.start("unborn"))
	b.is(id, microvm.StatusCreated)

	b.ok("StartVM", b.start(id))
	b.ok("SnapshotVM", b.snapshot(id, "s"))
	b.ok("ForkVM of a running VM", fork(id, "child"))
	child := b.is("child", microvm.StatusRunning)
	if parent := b.is(id, microvm.StatusRunning, "s"); parent.UID != "" && parent.UID == child.UID {
		b.t.Errorf("the copy has its source's UID %q", child.UID)
	}
	if len(child.Snapshots) != 0 {
		b.t.Errorf("the copy has the snapshots %q", child.Snapshots)
	}
	b.ok("ForkVM of a copy", fork("child", "grandchild"))
	b.is("grandchild", microvm.StatusRunning)

	b.ok("StopVM", b.stop(id))
	b.ok("ForkVM of a stopped VM", fork(id, "late"))
	if s := b.get("late").Status; !slices.Contains(alive, s) {
		b.t.Errorf("the copy of a stopped VM is %s", s)
	}
	b.is(id, microvm.StatusStopped, "s")

	before := len(b.list())
	b.refused("ForkVM of a missing VM", fork("nobody", "new"), microvm.ErrVMNotFound, "nobody")
	b.refused("ForkVM onto a used id", fork(id, "child"), microvm.ErrVMExists, "child")
	b.refused("ForkVM to a bad id", fork(id, "a/b"), microvm.ErrInvalidSpec, "a/b")
	b.ok("DestroyVM", b.destroy("late"))
	b.refused("ForkVM of a destroyed VM", fork("late", "new"), microvm.ErrInvalidTransition, "late")
	b.absent("new")
	b.is(id, microvm.StatusStopped, "s")
	if after := len(b.list()); after != before {
		b.t.Errorf("refused calls left %d VMs; want %d", after, before)
	}

	b.ok("DestroyVM of the source", b.destroy(id))
	b.is("child", microvm.StatusRunning)
	b.ok("StopVM of a copy", b.stop("child"))
	b.ok("StartVM of a copy", b.start("child"))
}
