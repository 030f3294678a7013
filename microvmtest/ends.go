package microvmtest

import (
	"context"
	"slices"
	"time"

	"github.com/tangle-network/microvm"
)

// guestEnds lets a guest end by itself.
func guestEnds(b *bench) {
	if b.o.EndGuest == nil {
		b.t.Skip("Options.EndGuest is not set")
	}
	b.endOf("mortal", b.o.EndGuest, microvm.StopGuest, microvm.StopVMMDied)
}

// killed ends VMMs from outside.
func killed(b *bench) {
	if b.o.Kill == nil {
		b.t.Skip("Options.Kill is not set")
	}
	b.run("running", func(b *bench) { b.endOf("shot", b.o.Kill, microvm.StopVMMDied) })
	b.run("paused", func(b *bench) {
		if mode := b.o.Spec.StopMode; mode != "" && mode != microvm.StopModePause {
			b.t.Skipf("a VM that is stopped by %s has no VMM", mode)
		}
		const id = "asleep"
		b.make(id, microvm.StatusStopped)
		b.ok("Kill", b.call(func(ctx context.Context) error { return b.o.Kill(ctx, b.rt, id) }))
		v := b.until(id, "its paused VMM was killed", func(v microvm.View) bool {
			return v.StopReason != nil && v.StopReason.Cause == microvm.StopVMMDied
		})
		if v.Status != microvm.StatusStopped || v.PID != 0 {
			b.t.Errorf("a paused VM whose VMM died: %s", asJSON(v))
		}
		b.ok("StartVM", b.start(id))
		b.is(id, microvm.StatusRunning)
	})
	b.run("destroyed at once", func(b *bench) {
		const id = "finished"
		b.make(id, microvm.StatusRunning)
		b.ok("Kill", b.call(func(ctx context.Context) error { return b.o.Kill(ctx, b.rt, id) }))
		// Whether its end has been seen yet or not, it can be destroyed.
		b.ok("DestroyVM", b.destroy(id))
		b.is(id, microvm.StatusDestroyed)
	})
}

// until waits for a view.
func (b *bench) until(id, after string, fits func(microvm.View) bool) microvm.View {
	b.t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		v := b.get(id)
		if fits(v) {
			return v
		}
		if time.Since(began) > b.o.Timeout {
			b.t.Fatalf("%v after %s, VM %q is %s", b.o.Timeout, after, id, asJSON(v))
		}
	}
}

// endOf ends a running VM, and goes on with what is left: its disks and its
// snapshots.
func (b *bench) endOf(id string, end func(context.Context, microvm.Runtime, string) error, causes ...microvm.StopCause) {
	b.t.Helper()
	b.make(id, microvm.StatusRunning)
	b.ok("SnapshotVM", b.snapshot(id, "s"))
	before := b.get(id)
	b.ok("the end", b.call(func(ctx context.Context) error { return end(ctx, b.rt, id) }))
	b.until(id, "its end", func(v microvm.View) bool { return v.Status == microvm.StatusStopped })
	v := b.is(id, microvm.StatusStopped, "s")
	if v.StopReason == nil || !slices.Contains(causes, v.StopReason.Cause) {
		b.t.Errorf("StopReason is %s; want cause %q", asJSON(v.StopReason), causes)
	}
	if v.StoppedAt.Before(before.StartedAt) || v.PID != 0 {
		b.t.Errorf("StoppedAt or PID after the end: %s", asJSON(v))
	}
	b.refusedIn(verbStop, microvm.StatusStopped, b.stop(id), id)
	b.ok("SnapshotVM of a VM without memory", b.snapshot(id, "disks"))
	if !b.lacks(Restores) && !b.lacks(Specs) {
		b.ok("restore", b.restore(id+"-cold", microvm.RestoreFrom{VMID: id, SnapshotID: "disks", ResumeImmediately: true}))
		b.is(id+"-cold", microvm.StatusCreated)
		b.ok("restore", b.restore(id+"-warm", microvm.RestoreFrom{VMID: id, SnapshotID: "s", ResumeImmediately: true}))
		b.is(id+"-warm", microvm.StatusRunning)
	}
	b.ok("StartVM after the end", b.start(id))
	if v := b.is(id, microvm.StatusRunning, "s", "disks"); v.StopReason != nil || v.StartedAt.Before(before.StartedAt) {
		b.t.Errorf("started again: %s", asJSON(v))
	}
	b.ok("StopVM", b.stop(id))
}
