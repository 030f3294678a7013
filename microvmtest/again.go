package microvmtest

import (
	"errors"
	"slices"

	"github.com/tangle-network/microvm"
)

// failures orders each verb to fail half-way.
func failures(b *bench) {
	if b.o.Fail == nil {
		b.t.Skip("Options.Fail is not set")
	}
	ordered := errors.New("a failure that was ordered")
	id := "unlucky"
	for _, v := range append([]verb{verbCreate}, b.onVMs()...) {
		b.run(v.name, func(b *bench) {
			try := trial{verb: v, id: id, name: "by-" + v.hold}
			if v.name != verbCreate.name {
				try.from = b.get(id).Status
			}
			b.o.Fail(b.rt, v.hold, ordered)
			err := b.do(v, id, try.name)
			if err == nil {
				b.t.Fatalf("%s was ordered to fail and returned nil", v.name)
			}
			b.tried(try, err, ordered)
			if v.name == verbRename.name {
				id = try.name
			}
		})
	}
	b.is(id, microvm.StatusDestroyed)
}

// another works on one state through two runtimes.
func another(b *bench) {
	if b.o.Another == nil {
		b.t.Skip("Options.Another is not set")
	}
	second := *b
	second.rt = b.o.Another(b.t, b.rt)
	// both sees a VM through both.
	both := func(id string, state microvm.Status, snapshots ...string) {
		b.t.Helper()
		b.is(id, state, snapshots...)
		second.is(id, state, snapshots...)
		if one, two := asJSON(b.list()), asJSON(second.list()); one != two {
			b.t.Fatalf("two runtimes differ:\none %s\ntwo %s", one, two)
		}
	}
	const id = "shared"
	b.ok("CreateVM", b.create(id))
	both(id, microvm.StatusCreated)
	b.refused("CreateVM by the second runtime", second.create(id), microvm.ErrVMExists, id)
	b.ok("StartVM by the second runtime", second.start(id))
	both(id, microvm.StatusRunning)
	b.ok("SnapshotVM", b.snapshot(id, "z"))
	b.ok("SnapshotVM by the second runtime", second.snapshot(id, "a"))
	both(id, microvm.StatusRunning, "z", "a")
	b.ok("StopVM", b.stop(id))
	both(id, microvm.StatusStopped, "z", "a")
	b.ok("StartVM by the second runtime", second.start(id))
	b.ok("StopVM by the second runtime", second.stop(id))
	b.ok("StartVM", b.start(id))
	both(id, microvm.StatusRunning, "z", "a")

	of := func(i int) *bench { return []*bench{b, &second}[i%2] }
	n := b.o.some(8, 2)
	b.oneWins("CreateVM by two runtimes", atOnce(n, func(i int) error { return of(i).create("contended") }), microvm.ErrVMExists)
	both("contended", microvm.StatusCreated)
	b.oneWins("StartVM by two runtimes", atOnce(n, func(i int) error { return of(i).start("contended") }), microvm.ErrInvalidTransition)
	both("contended", microvm.StatusRunning)
	b.oneWins("DestroyVM by two runtimes", atOnce(n, func(i int) error { return of(i).destroy("contended") }), microvm.ErrInvalidTransition)
	both("contended", microvm.StatusDestroyed)

	now := id
	if !b.lacks(Renames) {
		now = "renamed"
		b.ok("RenameVM by the second runtime", second.rename(id, now))
		b.absent(id)
		both(now, microvm.StatusRunning, "z", "a")
	}
	b.ok("DestroyVM by the second runtime", second.destroy(now))
	both(now, microvm.StatusDestroyed, "z", "a")
	if !b.lacks(Restores) && !b.lacks(Specs) {
		b.ok("restore", b.restore("heir", microvm.RestoreFrom{VMID: now, SnapshotID: "a", ResumeImmediately: true}))
		both("heir", microvm.StatusRunning)
	}
}

// reopen closes the runtime over VMs in every state and goes on with them.
func reopen(b *bench) {
	if b.o.Reopen == nil {
		b.t.Skip("Options.Reopen is not set")
	}
	for _, state := range states {
		id := "was-" + string(state)
		b.ok("CreateVM", b.create(id))
		b.ok("SnapshotVM", b.snapshot(id, "cold"))
		b.bring(id, state)
		if slices.Contains(alive, state) {
			b.ok("SnapshotVM", b.snapshot(id, "as-it-was"))
		}
	}
	b.unchanged("closing the runtime and opening it again", func() { b.rt = b.o.Reopen(b.t, b.rt) })
	b.ok("StartVM", b.start("was-created"))
	b.ok("StopVM", b.stop("was-running"))
	b.ok("StartVM", b.start("was-running"))
	b.ok("StartVM", b.start("was-stopped"))
	for _, id := range []string{"was-created", "was-running", "was-stopped"} {
		b.is(id, microvm.StatusRunning, "cold", "as-it-was")
	}
	b.refused("CreateVM on a tombstone", b.create("was-destroyed"), microvm.ErrVMExists, "was-destroyed")
	if !b.lacks(Restores) && !b.lacks(Specs) {
		b.ok("restore", b.restore("clone", microvm.RestoreFrom{VMID: "was-running", SnapshotID: "as-it-was", ResumeImmediately: true}))
		b.is("clone", microvm.StatusRunning)
		b.ok("restore", b.restore("heir", microvm.RestoreFrom{VMID: "was-destroyed", SnapshotID: "cold"}))
		b.is("heir", microvm.StatusCreated)
	}
}
