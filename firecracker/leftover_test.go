package firecracker

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
)

// the memory is on disk and whole; a VMM that does not answer keeps nobody
// from ending it.
func TestACutHibernateGoesForwardThoughTheVMMIsMute(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	killedAt(t, c, "stop.hibernated", step{Verb: "create", ID: "a", Spec: microvm.Spec{StopMode: microvm.StopModeHibernate}}, step{Verb: "start", ID: "a"}, step{Verb: "stop", ID: "a"})
	pid := readRecord(t, c, "a").Process.PID
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	c.APITimeout, c.TermGrace = 500*time.Millisecond, 100*time.Millisecond
	r := open(t, c)
	if v := mustGet(t, r, "a"); v.Status != microvm.StatusStopped {
		t.Errorf("it is %s", v.Status)
	}
}

// a dry run trims no console.
func TestADryRunTrimsNoConsole(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.BootArgs = DefaultBootArgs
	first, err := Open(bg, c)
	must(t, err)
	start(t, first, "a", microvm.Spec{})
	must(t, first.Close())
	p := filepath.Join(c.StateDir, "vms", "a", consoleFile)
	f, err := os.OpenFile(p, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.Write(make([]byte, 4<<20))
	must(t, err)
	must(t, f.Close())
	blocks := func() int64 {
		var st syscall.Stat_t
		must(t, syscall.Stat(p, &st))
		return st.Blocks
	}
	before := blocks()
	c.NoRecovery, c.ConsoleBytes = true, 256<<10
	r := open(t, c)
	rep, err := r.Recover(bg, RecoverOptions{DryRun: true})
	must(t, err)
	t.Logf("%+v", rep)
	time.Sleep(500 * time.Millisecond)
	if now := blocks(); now < before {
		t.Errorf("the console had %d blocks and has %d", before, now)
	}
}

// a copy of the state directory without the run directories does not end the
// VMMs of the original.
func TestACopyWithoutRunDirectoryDoesNotEndTheOriginalsVMM(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	start(t, r, "a", microvm.Spec{})
	pid := mustGet(t, r, "a").PID
	c2 := c
	c2.StateDir = c.StateDir + "-backup"
	must(t, os.MkdirAll(filepath.Join(c2.StateDir, "vms", "a"), 0o700))
	b, err := os.ReadFile(filepath.Join(c.StateDir, "vms", "a", "vm.json"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(c2.StateDir, "vms", "a", "vm.json"), b, 0o600))
	r2 := open(t, c2)
	t.Logf("destroy in the copy: %v", r2.DestroyVM(bg, "a"))
	time.Sleep(50 * time.Millisecond)
	if v := mustGet(t, r, "a"); v.Status != microvm.StatusRunning || v.PID != pid {
		t.Errorf("the original: %s %v", v.Status, v.StopReason)
	}
}
