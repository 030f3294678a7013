package microvmtest

import (
	"net/netip"
	"slices"
	"time"

	"github.com/tangle-network/microvm"
)

// clockSlack is what a stored time may be off by rounding.
const clockSlack = time.Second

// views follows what View says through a life.
func views(b *bench) {
	const id = "seen"
	before := time.Now()
	b.ok("CreateVM", b.create(id))
	made := b.is(id, microvm.StatusCreated)
	if made.CreatedAt.Before(before.Add(-clockSlack)) || made.CreatedAt.After(time.Now().Add(clockSlack)) {
		b.t.Errorf("CreatedAt is %v; want a time since %v", made.CreatedAt, before)
	}
	if !made.StartedAt.IsZero() || !made.StoppedAt.IsZero() || made.StopReason != nil {
		b.t.Errorf("a VM that never ran has a time of start or stop, or a stop reason: %s", asJSON(made))
	}
	if made.Snapshots == nil || len(made.Snapshots) != 0 {
		b.t.Errorf("Snapshots of a new VM is %#v; want an empty slice", made.Snapshots)
	}

	b.ok("StartVM", b.start(id))
	running := b.is(id, microvm.StatusRunning)
	if running.StartedAt.Before(made.CreatedAt) || !running.StoppedAt.IsZero() || running.StopReason != nil {
		b.t.Errorf("times or reason of a running VM: %s", asJSON(running))
	}
	b.ok("SnapshotVM", b.snapshot(id, "s"))

	b.ok("StopVM", b.stop(id))
	stopped := b.is(id, microvm.StatusStopped, "s")
	if stopped.StoppedAt.Before(running.StartedAt) || !stopped.StartedAt.Equal(running.StartedAt) {
		b.t.Errorf("times of a stopped VM: %s", asJSON(stopped))
	}
	if want := b.stopCause(b.o.Spec.StopMode); stopped.StopReason == nil || stopped.StopReason.Cause != want {
		b.t.Errorf("StopReason of a stopped VM: %s; want cause %q", asJSON(stopped.StopReason), want)
	}

	b.ok("StartVM", b.start(id))
	again := b.is(id, microvm.StatusRunning, "s")
	if again.StartedAt.Before(stopped.StoppedAt) || !again.StoppedAt.Equal(stopped.StoppedAt) || again.StopReason != nil {
		b.t.Errorf("times or reason of a VM that runs again: %s", asJSON(again))
	}

	b.ok("DestroyVM", b.destroy(id))
	gone := b.is(id, microvm.StatusDestroyed, "s")
	if gone.StoppedAt.Before(again.StartedAt) || gone.PID != 0 || gone.StopReason != nil {
		b.t.Errorf("StoppedAt, PID or StopReason of a VM that was destroyed while it ran: %s", asJSON(gone))
	}
	for _, v := range []microvm.View{running, stopped, again, gone} {
		if !v.CreatedAt.Equal(made.CreatedAt) || v.UID != made.UID || v.SpecDigest != made.SpecDigest {
			b.t.Errorf("CreatedAt, UID or SpecDigest changed:\nfirst %s\nlater %s", asJSON(made), asJSON(v))
		}
	}

	b.make("kept", microvm.StatusStopped)
	b.ok("DestroyVM", b.destroy("kept"))
	if v := b.is("kept", microvm.StatusDestroyed); v.StopReason == nil {
		b.t.Errorf("the tombstone of a stopped VM lost its StopReason: %s", asJSON(v))
	}
	list := b.list()
	if len(list) != 2 {
		b.t.Fatalf("ListVMs has %s; want two tombstones", asJSON(list))
	}
	if asJSON(list[0]) != asJSON(b.get("kept")) || asJSON(list[1]) != asJSON(b.get(id)) {
		b.t.Errorf("ListVMs and GetVM differ: %s", asJSON(list))
	}
	if list[0].UID != "" && list[0].UID == list[1].UID {
		b.t.Errorf("two VMs have the UID %q", list[0].UID)
	}
}

func (b *bench) stopCause(mode microvm.StopMode) microvm.StopCause {
	switch mode {
	case microvm.StopModeHibernate:
		return microvm.StopHibernated
	case microvm.StopModeShutdown:
		return microvm.StopShutdown
	default:
		return microvm.StopPaused
	}
}

// copies changes whatever a query returns and finds the runtime as it was.
func copies(b *bench) {
	const id = "copied"
	if b.lacks(Specs) {
		b.ok("CreateVM", b.create(id))
	} else {
		b.ok("CreateVMWithSpec", b.createWith(id, func(s *microvm.Spec) { s.Labels = map[string]string{"k": "v"} }))
	}
	b.ok("SnapshotVM", b.snapshot(id, "one"))
	b.ok("SnapshotVM", b.snapshot(id, "two"))
	b.bring(id, microvm.StatusStopped)
	if list := b.list(); len(list) != 1 {
		b.t.Fatalf("ListVMs has %s; want one VM", asJSON(list))
	}
	b.is(id, microvm.StatusStopped, "one", "two")
	b.unchanged("writing into what queries returned", func() {
		for _, v := range []microvm.View{b.get(id), b.list()[0]} {
			v.Snapshots[0] = "changed"
			_ = append(v.Snapshots[:1], "changed")
			if v.Labels != nil {
				v.Labels["k"] = "changed"
				v.Labels["new"] = "changed"
			}
			if v.StopReason != nil {
				v.StopReason.Cause = "changed"
			}
			for i := range v.Addresses {
				v.Addresses[i] = netip.Addr{}
			}
		}
		names := b.snapshotsOf(id)
		if len(names) != 2 {
			b.t.Fatalf("ListSnapshots is %q; want one, two", names)
		}
		names[0] = "changed"
		_ = append(names[:1], "changed")
	})
	if got := b.snapshotsOf(id); !slices.Equal(got, []string{"one", "two"}) {
		b.t.Errorf("ListSnapshots is %q; want one, two", got)
	}
}

func stopModes(b *bench) {
	b.skipIfLacking(Specs)
	for mode, feature := range map[microvm.StopMode]Feature{
		microvm.StopModePause:     "",
		microvm.StopModeHibernate: Hibernation,
		microvm.StopModeShutdown:  Shutdown,
	} {
		b.run(string(mode), func(b *bench) {
			id := "by-" + string(mode)
			err := b.createWith(id, func(s *microvm.Spec) { s.StopMode = mode })
			if b.lacks(feature) {
				b.refused("CreateVMWithSpec", err, microvm.ErrUnsupported, id)
				b.absent(id)
			}
			b.skipIfLacking(feature)
			b.ok("CreateVMWithSpec", err)
			b.ok("StartVM", b.start(id))
			for range b.o.some(3, 1) {
				b.ok("StopVM", b.stop(id))
				v := b.is(id, microvm.StatusStopped)
				if want := b.stopCause(mode); v.StopReason == nil || v.StopReason.Cause != want {
					b.t.Fatalf("StopReason is %s; want cause %q", asJSON(v.StopReason), want)
				}
				b.ok("StartVM", b.start(id))
				b.is(id, microvm.StatusRunning)
			}
		})
	}
}
