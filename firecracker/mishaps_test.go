package firecracker

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
)

// as R4, by a killed program: the guest has run, recovery kills it and goes
// back to the old memory.
func TestAWakeThatIsKilledKeepsMemoryAndDiskTogether(t *testing.T) {
	if under.real {
		t.Skip("the tiny guest writes to no disk")
	}
	t.Parallel()
	c := testConfig(t)
	c.BootArgs += " fcemu.disk_writer=rootfs fcemu.tick=10ms"
	r := open(t, c)
	start(t, r, "a", microvm.Spec{StopMode: microvm.StopModeHibernate})
	countsFrom(t, r, "a", 20)
	must(t, r.StopVM(bg, "a"))
	disk := filepath.Join(r.store.Dir("a"), runName, "rootfs.ext4")
	old, err := os.ReadFile(disk)
	must(t, err)
	must(t, r.Close())
	killedAt(t, c, "start.resumed", step{Verb: "start", ID: "a"})
	time.Sleep(400 * time.Millisecond)
	r = open(t, c)
	ran := last(t, r, "a")
	v := mustGet(t, r, "a")
	t.Logf("view: %s %v pid %d", v.Status, v.StopReason, v.PID)
	ahead, err := os.ReadFile(disk)
	must(t, err)
	n := len(counts(t, r, "a"))
	if v.Status == microvm.StatusStopped {
		must(t, r.StartVM(bg, "a"))
	}
	if got := newCounts(t, r, "a", n, 3)[1]; got < ran && !bytes.Equal(old, ahead) {
		t.Errorf("memory went back from %d to %d, the disk did not", ran, got)
	}
}

// a query meanwhile tells no lie about a stop that is under way.
func TestAQueryDuringAHibernateDoesNotSayThatTheVMMDied(t *testing.T) {
	t.Parallel()
	c, h := testConfig(t), &holds{}
	c.failpoint = h.failpoint
	r := open(t, c)
	start(t, r, "a", microvm.Spec{StopMode: microvm.StopModeHibernate})
	entered, release := h.hold("stop.ended")
	done := make(chan error, 1)
	go func() { done <- r.StopVM(bg, "a") }()
	<-entered
	if v := mustGet(t, r, "a"); v.StopReason != nil && v.StopReason.Cause == microvm.StopVMMDied {
		t.Errorf("%s: %v", v.Status, v.StopReason)
	}
	release()
	must(t, <-done)
}

// a create that is killed leaves no socket outside the state directory.
func TestAKilledCreateLeavesNoSocketElsewhere(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	p := filepath.Join(t.TempDir(), "v.sock")
	killedAt(t, c, "create.configured", step{Verb: "create", ID: "a", Spec: microvm.Spec{Vsock: &microvm.Vsock{Path: p}}})
	open(t, c)
	if _, err := os.Lstat(p); err == nil {
		t.Errorf("%s is left", p)
	}
}

// the panic of an earlier run is not the reason of this one's end.
func TestAnOldPanicIsNotTheReasonOfALaterEnd(t *testing.T) {
	if under.real {
		t.Skip("needs a guest that panics")
	}
	t.Parallel()
	c := testConfig(t)
	c.BootArgs = DefaultBootArgs
	r := open(t, c)
	start(t, r, "a", microvm.Spec{})
	f, err := os.OpenFile(filepath.Join(r.store.Dir("a"), consoleFile), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString("\n[ 1.0] Kernel panic - not syncing: of the first run\n")
	must(t, err)
	must(t, f.Close())
	must(t, pressKeys(bg, r, "a"))
	eventually(t, "stopped", func() bool { return mustGet(t, r, "a").Status == microvm.StatusStopped })
	must(t, r.StartVM(bg, "a"))
	must(t, pressKeys(bg, r, "a")) // a clean reboot
	eventually(t, "stopped", func() bool { return mustGet(t, r, "a").Status == microvm.StatusStopped })
	if v := mustGet(t, r, "a"); v.StopReason.Detail != "" {
		t.Errorf("the second run ended by a reboot: %v", v.StopReason)
	}
}
