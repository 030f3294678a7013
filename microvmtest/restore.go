package microvmtest

import (
	"fmt"
	"sync"

	"github.com/tangle-network/microvm"
)

func rename(b *bench) {
	b.skipIfLacking(Renames)
	const id, to = "old", "new"
	if b.lacks(Specs) {
		b.ok("CreateVM", b.create(id))
	} else {
		b.ok("CreateVMWithSpec", b.createWith(id, func(s *microvm.Spec) { s.Labels = map[string]string{"k": "v"} }))
	}
	b.ok("SnapshotVM", b.snapshot(id, "b"))
	b.ok("StartVM", b.start(id))
	b.ok("SnapshotVM", b.snapshot(id, "a"))
	b.ok("CreateVM", b.create("used"))
	b.make("dead", microvm.StatusDestroyed)
	for _, taken := range []string{"used", "dead", id} {
		b.unchanged("RenameVM onto "+taken, func() {
			b.refused("RenameVM", b.rename(id, taken), microvm.ErrVMExists, id)
		})
	}

	before := b.get(id)
	b.ok("RenameVM", b.rename(id, to))
	b.absent(id)
	after := b.is(to, microvm.StatusRunning, "b", "a")
	after.ID = id
	if asJSON(after) != asJSON(before) {
		b.t.Errorf("RenameVM changed more than the id:\nbefore %s\nafter  %s", asJSON(before), asJSON(after))
	}
	b.refused("StartVM by the old id", b.start(id), microvm.ErrVMNotFound, id)

	if !b.lacks(Restores) && !b.lacks(Specs) {
		b.unchanged("restore by the old id", func() {
			err := b.restore("clone", microvm.RestoreFrom{VMID: id, SnapshotID: "a"})
			b.refused("restore", err, microvm.ErrSnapshotNotFound, "clone")
		})
		b.ok("restore by the new id", b.restore("clone", microvm.RestoreFrom{VMID: to, SnapshotID: "a"}))
		b.is("clone", microvm.StatusStopped)
	}
	b.ok("CreateVM with the old id", b.create(id))
	if v := b.is(id, microvm.StatusCreated); len(v.Snapshots) != 0 {
		b.t.Errorf("a new VM has the snapshots %q", v.Snapshots)
	}
	b.ok("StopVM by the new id", b.stop(to))
	b.ok("StartVM by the new id", b.start(to))
	b.ok("SnapshotVM by the new id", b.snapshot(to, "c"))
	b.ok("RenameVM again", b.rename(to, "newer"))
	b.is("newer", microvm.StatusRunning, "b", "a", "c")
	b.ok("DestroyVM", b.destroy("newer"))
	b.is("newer", microvm.StatusDestroyed, "b", "a", "c")
	b.absent(to)
}

func restore(b *bench) {
	b.skipIfLacking(Specs, Restores)
	const src = "source"
	b.make(src, microvm.StatusRunning)
	b.ok("SnapshotVM", b.snapshot(src, "s"))
	from := microvm.RestoreFrom{VMID: src, SnapshotID: "s"}
	resumed := microvm.RestoreFrom{VMID: src, SnapshotID: "s", ResumeImmediately: true}

	b.unchanged("restore of what does not exist", func() {
		err := b.restore("x", microvm.RestoreFrom{VMID: src, SnapshotID: "none"})
		b.refused("restore of a missing snapshot", err, microvm.ErrSnapshotNotFound, "x")
		err = b.restore("x", microvm.RestoreFrom{VMID: "nobody", SnapshotID: "s"})
		b.refused("restore from a missing VM", err, microvm.ErrSnapshotNotFound, "x")
	})
	b.unchanged("restore onto a used id", func() {
		b.refused("restore", b.restore(src, from), microvm.ErrVMExists, src)
	})

	b.ok("restore", b.createWith("resumed", func(s *microvm.Spec) {
		s.RestoreFrom = &resumed
		s.Labels = map[string]string{"k": "clone"}
	}))
	v := b.is("resumed", microvm.StatusRunning)
	if len(v.Snapshots) != 0 || v.StartedAt.IsZero() || v.StopReason != nil || v.Labels["k"] != "clone" {
		b.t.Errorf("restored with ResumeImmediately: %s", asJSON(v))
	}
	b.ok("StopVM", b.stop("resumed"))

	b.ok("restore", b.restore("paused", from))
	v = b.is("paused", microvm.StatusStopped)
	if v.StopReason == nil || v.StopReason.Cause != microvm.StopRestored || len(v.Snapshots) != 0 || v.CreatedAt.IsZero() {
		b.t.Errorf("restored without ResumeImmediately: %s; want the cause %q", asJSON(v), microvm.StopRestored)
	}
	b.refusedIn(verbStop, microvm.StatusStopped, b.stop("paused"), "paused")
	b.ok("StartVM", b.start("paused"))
	if v = b.is("paused", microvm.StatusRunning); v.StartedAt.Before(v.CreatedAt) || v.StopReason != nil {
		b.t.Errorf("started after a restore: %s", asJSON(v))
	}
	b.is(src, microvm.StatusRunning, "s")
	if b.get(src).UID != "" && b.get(src).UID == v.UID {
		b.t.Errorf("the clone has its source's UID %q", v.UID)
	}

	// The second generation, from a clone that was never resumed.
	b.ok("restore", b.restore("still", from))
	b.ok("SnapshotVM of a VM that was never resumed", b.snapshot("still", "g2"))
	b.ok("restore", b.restore("grandchild", microvm.RestoreFrom{VMID: "still", SnapshotID: "g2", ResumeImmediately: true}))
	b.is("grandchild", microvm.StatusRunning)

	b.run("at once", func(b *bench) {
		var wg sync.WaitGroup
		n := max(2, b.o.VMs/2)
		errs := make([]error, n)
		for i := range n {
			wg.Go(func() { errs[i] = b.restore(fmt.Sprintf("twin%d", i), resumed) })
		}
		wg.Wait()
		for i, err := range errs {
			b.ok("restore", err)
			b.is(fmt.Sprintf("twin%d", i), microvm.StatusRunning)
		}
	})

	b.ok("DestroyVM of the source", b.destroy(src))
	b.is("paused", microvm.StatusRunning)
	b.ok("restore from the tombstone", b.restore("late", resumed))
	b.is("late", microvm.StatusRunning)
}

// coldRestore restores snapshots that hold no memory.
func coldRestore(b *bench) {
	b.skipIfLacking(Specs, Restores)
	b.ok("CreateVM", b.create("source"))
	b.ok("SnapshotVM", b.snapshot("source", "cold"))
	for _, resume := range []bool{false, true} {
		id := fmt.Sprintf("resume-%v", resume)
		b.ok("restore", b.restore(id, microvm.RestoreFrom{VMID: "source", SnapshotID: "cold", ResumeImmediately: resume}))
		if v := b.is(id, microvm.StatusCreated); !v.StartedAt.IsZero() || v.StopReason != nil {
			b.t.Errorf("restored from a cold snapshot: %s", asJSON(v))
		}
	}
	b.ok("StartVM", b.start("resume-true"))
	b.is("resume-true", microvm.StatusRunning)

	b.ok("StopVM", b.stop("resume-true"))
	b.ok("SnapshotVM of a stopped VM", b.snapshot("resume-true", "stopped"))
	b.ok("restore", b.restore("clone", microvm.RestoreFrom{VMID: "resume-true", SnapshotID: "stopped", ResumeImmediately: true}))
	want := microvm.StatusRunning
	if b.o.Spec.StopMode == microvm.StopModeShutdown {
		want = microvm.StatusCreated // a VM that was shut down has no memory
	}
	b.is("clone", want)
}
