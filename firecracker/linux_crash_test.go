package firecracker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/vmm"
)

// The null engine goes through every stage of every verb; here are some with a
// real guest, which must go on where it was, or be gone with all that it had. One
// guest is booted, and lives through it all.
func TestALinuxGuestSurvivesTheDeathsOfItsPrograms(t *testing.T) {
	c := linuxConfig(t) // skips
	t.Parallel()
	began := time.Now()
	reopen := func() *Runtime {
		r, err := Open(bg, c)
		must(t, err)
		return r
	}
	t.Cleanup(func() { closeAll(t, reopen()) })
	r := reopen()
	defer func() { must(t, r.Close()) }()
	must(t, r.CreateVMWithSpec(bg, "a", microvm.Spec{StopMode: microvm.StopModeHibernate}))
	restore := microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s", ResumeImmediately: true}}
	last := 0
	for _, k := range []struct {
		at   failpoint
		verb step
		is   []string // the situations that may follow
	}{
		{at: fpStartIntended, verb: step{Verb: "start", ID: "a"}, is: []string{"a created []; "}},
		{at: fpStartResumed, verb: step{Verb: "start", ID: "a"}, is: []string{"a created []; ", "a running []; "}},
		{at: fpSnapshotPaused, verb: step{Verb: "snapshot", ID: "a", Other: "s"}, is: []string{"a running []; "}},
		{at: fpSnapshotWritten, verb: step{Verb: "snapshot", ID: "a", Other: "s"}, is: []string{"a running []; "}},
		{at: fpSnapshotPublished, verb: step{Verb: "snapshot", ID: "a", Other: "s"}, is: []string{"a running [s]; "}},
		{at: fpCreateLoaded, verb: step{Verb: "create", ID: "b", Spec: restore}, is: []string{"a running [s]; "}},
		{at: fpRenameRenamed, verb: step{Verb: "rename", ID: "a", Other: "c"}, is: []string{"c running [s]; "}},
		{at: fpStopWritten, verb: step{Verb: "stop", ID: "c"}, is: []string{"c running [s]; "}},
		{at: fpStopHibernated, verb: step{Verb: "stop", ID: "c"}, is: []string{"c stopped [s]; "}},
		{at: fpStartLoaded, verb: step{Verb: "start", ID: "c"}, is: []string{"c stopped [s]; "}},
		{at: fpDestroyKilled, verb: step{Verb: "destroy", ID: "c"}, is: []string{"c destroyed [s]; "}},
	} {
		must(t, r.Close())
		killedAt(t, c, string(k.at), k.verb)
		r = reopen()
		got := situation(t, r)
		if !strings.Contains(strings.Join(k.is, "\n"), got) || got == "" {
			t.Fatalf("killed at %s: it is %q, not one of %q", k.at, got, k.is)
		}
		// It can be used: its guest goes on.
		v := mustGet(t, r, got[:1])
		switch {
		case v.Status == microvm.StatusDestroyed:
			continue
		case v.Status == microvm.StatusStopped && k.at != fpStopHibernated:
			must(t, r.StartVM(bg, v.ID))
		case v.Status != microvm.StatusRunning:
			continue // the next one starts it
		}
		seen := waitTicks(t, r, v.ID, max(1, len(ticks(t, r, v.ID))+1))
		if now := seen[len(seen)-1]; now <= last {
			t.Errorf("killed at %s: the guest is at tick %d, and was at %d", k.at, now, last)
		} else {
			last = now
		}
		if _, err := vmm.Identify(v.PID); v.PID != 0 && errors.Is(err, vmm.ErrGone) {
			t.Errorf("killed at %s: its VMM %d: %v", k.at, v.PID, err)
		}
		t.Logf("%5.1f s: killed at %s: %s tick %d", time.Since(began).Seconds(), k.at, got, last)
	}
	if left := leftovers(c.StateDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
