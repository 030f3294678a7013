package microvmtest

import (
	"context"
	"slices"
	"time"

	"github.com/tangle-network/microvm"
)

func snapshots(b *bench) {
	const id, other = "a", "b"
	b.ok("CreateVM", b.create(id))
	want := []string{"zeta", "alpha", "mid"}
	for _, name := range want {
		b.ok("SnapshotVM", b.snapshot(id, name))
	}
	b.ok("StartVM", b.start(id))
	b.ok("SnapshotVM", b.snapshot(id, "first-warm"))
	want = append(want, "first-warm")
	b.is(id, microvm.StatusRunning, want...)
	if got := b.snapshotsOf(id); !slices.Equal(got, want) {
		b.t.Errorf("ListSnapshots is %q; want %q", got, want)
	}
	for _, name := range []string{"zeta", "first-warm"} {
		b.unchanged("SnapshotVM with a used name", func() {
			b.refused("SnapshotVM", b.snapshot(id, name), microvm.ErrSnapshotExists, id)
		})
	}
	b.ok("CreateVM", b.create(other))
	if got := b.snapshotsOf(other); got == nil || len(got) != 0 {
		b.t.Errorf("ListSnapshots of a new VM is %#v; want an empty slice", got)
	}
	b.ok("SnapshotVM with a name that another VM uses", b.snapshot(other, "alpha"))
	b.is(other, microvm.StatusCreated, "alpha")
	b.is(id, microvm.StatusRunning, want...)
}

func tombstones(b *bench) {
	const id = "dead"
	b.make(id, microvm.StatusRunning)
	b.ok("SnapshotVM", b.snapshot(id, "z"))
	b.ok("SnapshotVM", b.snapshot(id, "a"))
	b.ok("DestroyVM", b.destroy(id))
	b.is(id, microvm.StatusDestroyed, "z", "a")
	if list := b.list(); len(list) != 1 || list[0].ID != id {
		b.t.Errorf("ListVMs leaves out the tombstone: %s", asJSON(list))
	}
	if got := b.snapshotsOf(id); !slices.Equal(got, []string{"z", "a"}) {
		b.t.Errorf("ListSnapshots of the tombstone is %q; want z, a", got)
	}
	b.unchanged("CreateVM on a tombstone", func() {
		b.refused("CreateVM", b.create(id), microvm.ErrVMExists, id)
	})
	if !b.lacks(Renames) {
		b.ok("CreateVM", b.create("other"))
		b.unchanged("RenameVM onto a tombstone", func() {
			b.refused("RenameVM", b.rename("other", id), microvm.ErrVMExists, "other")
		})
	}
	b.skipIfLacking(Specs, Restores)
	b.unchanged("restore onto a tombstone", func() {
		b.refused("restore", b.restore(id, microvm.RestoreFrom{VMID: id, SnapshotID: "z"}), microvm.ErrVMExists, id)
	})
	b.ok("restore from a tombstone", b.restore("heir", microvm.RestoreFrom{VMID: id, SnapshotID: "a", ResumeImmediately: true}))
	b.is("heir", microvm.StatusRunning)
	b.is(id, microvm.StatusDestroyed, "z", "a")
}

// prunes is what Prune answers for a time far in the past or in the future, so
// that clocks do not matter.
func (b *bench) prunes(p microvm.Pruner, before time.Duration, want ...string) {
	b.t.Helper()
	var got []string
	b.ok("Prune", b.call(func(ctx context.Context) (err error) {
		got, err = p.Prune(ctx, time.Now().Add(before))
		return err
	}))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		b.t.Fatalf("Prune returned %q; want %q", got, want)
	}
	for _, id := range want {
		b.absent(id)
	}
}

func prune(b *bench) {
	p, ok := b.rt.(microvm.Pruner)
	if !ok {
		b.t.Skip("the runtime is no microvm.Pruner")
	}
	b.prunes(p, time.Hour)
	b.make("dead", microvm.StatusDestroyed)
	b.make("live", microvm.StatusStopped)
	b.ok("CreateVM", b.create("rich"))
	b.ok("SnapshotVM", b.snapshot("rich", "s"))
	b.ok("DestroyVM", b.destroy("rich"))
	b.unchanged("Prune of older tombstones", func() { b.prunes(p, -time.Hour) })
	b.prunes(p, time.Hour, "dead")
	b.is("live", microvm.StatusStopped)
	b.is("rich", microvm.StatusDestroyed, "s")
	b.ok("CreateVM with the id of a pruned VM", b.create("dead"))
	if v := b.is("dead", microvm.StatusCreated); len(v.Snapshots) != 0 {
		b.t.Errorf("a new VM has the snapshots %q", v.Snapshots)
	}
	if m, ok := b.rt.(microvm.SnapshotManager); ok {
		b.ok("DeleteSnapshot of a tombstone", b.call(func(ctx context.Context) error {
			return m.DeleteSnapshot(ctx, "rich", "s")
		}))
		b.prunes(p, time.Hour, "rich")
	}
}

func deleteSnapshot(b *bench) {
	m, ok := b.rt.(microvm.SnapshotManager)
	if !ok {
		b.t.Skip("the runtime is no microvm.SnapshotManager")
	}
	del := func(id, name string) error {
		return b.call(func(ctx context.Context) error { return m.DeleteSnapshot(ctx, id, name) })
	}
	get := func(id, name string) (info microvm.SnapshotInfo, err error) {
		err = b.call(func(ctx context.Context) error {
			info, err = m.GetSnapshot(ctx, id, name)
			return err
		})
		return info, err
	}
	const id = "a"
	b.ok("CreateVM", b.create(id))
	b.ok("SnapshotVM", b.snapshot(id, "cold"))
	b.ok("StartVM", b.start(id))
	b.ok("SnapshotVM", b.snapshot(id, "two"))
	b.ok("SnapshotVM", b.snapshot(id, "three"))
	for _, name := range []string{"cold", "two"} {
		info, err := get(id, name)
		b.ok("GetSnapshot", err)
		if info.VMID != id || info.Name != name || info.Cold != (name == "cold") || info.CreatedAt.IsZero() {
			b.t.Errorf("GetSnapshot(%q, %q) is %s", id, name, asJSON(info))
		}
	}
	b.unchanged("refused calls", func() {
		_, err := get("nobody", "two")
		b.refused("GetSnapshot", err, microvm.ErrVMNotFound, "nobody")
		_, err = get(id, "none")
		b.refused("GetSnapshot", err, microvm.ErrSnapshotNotFound, id)
		b.refused("DeleteSnapshot", del("nobody", "two"), microvm.ErrVMNotFound, "nobody")
		b.refused("DeleteSnapshot", del(id, "none"), microvm.ErrSnapshotNotFound, id)
	})
	restores := !b.lacks(Restores) && !b.lacks(Specs)
	if restores {
		b.ok("restore", b.restore("clone", microvm.RestoreFrom{VMID: id, SnapshotID: "two"}))
	}
	b.ok("DeleteSnapshot", del(id, "two"))
	b.is(id, microvm.StatusRunning, "cold", "three")
	b.refused("DeleteSnapshot again", del(id, "two"), microvm.ErrSnapshotNotFound, id)
	if restores {
		err := b.restore("late", microvm.RestoreFrom{VMID: id, SnapshotID: "two"})
		b.refused("restore of a deleted snapshot", err, microvm.ErrSnapshotNotFound, "late")
		b.absent("late")
		b.ok("StartVM of a VM whose snapshot is gone", b.start("clone"))
		b.is("clone", microvm.StatusRunning)
		b.ok("StopVM of a VM whose snapshot is gone", b.stop("clone"))
	}
	b.ok("SnapshotVM with a name that is free again", b.snapshot(id, "two"))
	b.is(id, microvm.StatusRunning, "cold", "three", "two")
	b.ok("DestroyVM", b.destroy(id))
	b.ok("DeleteSnapshot of a tombstone", del(id, "cold"))
	b.is(id, microvm.StatusDestroyed, "three", "two")
}
