package firecracker

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/vmm"
)

// A1: a snapshot was cut off, and its VMM does not answer within APITimeout (it
// still writes): Recover gives up, and nobody lets the guest go on.
func TestAGuestWhoseRecoveryTimedOutGoesOnLater(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	killedAt(t, c, "snapshot.paused", step{Verb: "create", ID: "a"}, step{Verb: "start", ID: "a"}, step{Verb: "snapshot", ID: "a", Other: "s"})
	pid := readRecord(t, c, "a").Process.PID
	must(t, syscall.Kill(pid, syscall.SIGSTOP)) // stands for the long write
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	c.APITimeout = 300 * time.Millisecond
	r := open(t, c)
	must(t, syscall.Kill(pid, syscall.SIGCONT))
	n := len(counts(t, r, "a"))
	end := time.Now().Add(4 * time.Second)
	for len(counts(t, r, "a")) <= n+2 && time.Now().Before(end) {
		time.Sleep(20 * time.Millisecond)
	}
	if len(counts(t, r, "a")) <= n+2 {
		t.Errorf("the VM is %s, and its guest stands still", mustGet(t, r, "a").Status)
	}
}

// B1: a hibernate was cut off behind the end of the VMM; a destroy that is
// cancelled before it did anything loses the memory.
func TestACancelledDestroyKeepsTheMemoryOfACutHibernate(t *testing.T) {
	t.Parallel()
	c, h := testConfig(t), &holds{}
	killedAt(t, c, "stop.ended", step{Verb: "create", ID: "a", Spec: microvm.Spec{StopMode: microvm.StopModeHibernate}}, step{Verb: "start", ID: "a"}, step{Verb: "stop", ID: "a"})
	c.failpoint = h.failpoint
	c.NoRecovery = true
	r := open(t, c)
	h.failNext("destroy.intended", errors.New("ordered"))
	t.Logf("DestroyVM: %v", r.DestroyVM(bg, "a"))
	_, err := r.Recover(bg, RecoverOptions{})
	must(t, err)
	v := mustGet(t, r, "a")
	if v.StopReason == nil || v.StopReason.Cause != microvm.StopHibernated {
		t.Errorf("the VM is %s, %v", v.Status, v.StopReason)
	}
	if !isRegular(filepath.Join(r.store.Dir("a"), hibernateName, memoryFile)) {
		t.Errorf("its memory is gone")
	}
}

// B2: the same for a snapshot that was cut off: the guest stands still for ever.
func TestACancelledDestroyLetsTheGuestOfACutSnapshotGoOn(t *testing.T) {
	t.Parallel()
	c, h := testConfig(t), &holds{}
	killedAt(t, c, "snapshot.paused", step{Verb: "create", ID: "a"}, step{Verb: "start", ID: "a"}, step{Verb: "snapshot", ID: "a", Other: "s"})
	c.failpoint = h.failpoint
	c.NoRecovery = true
	r := open(t, c)
	h.failNext("destroy.intended", errors.New("ordered"))
	t.Logf("DestroyVM: %v", r.DestroyVM(bg, "a"))
	_, err := r.Recover(bg, RecoverOptions{})
	must(t, err)
	n := len(counts(t, r, "a"))
	end := time.Now().Add(3 * time.Second)
	for len(counts(t, r, "a")) <= n+2 && time.Now().Before(end) {
		time.Sleep(20 * time.Millisecond)
	}
	if len(counts(t, r, "a")) <= n+2 {
		t.Errorf("the VM is %s, and its guest stands still though it was recovered", mustGet(t, r, "a").Status)
	}
}

// a verb that Close waits for and that adopts the VMM only then.
func TestAVerbThatCloseWaitsForCanEndTheVMM(t *testing.T) {
	t.Parallel()
	c, h := testConfig(t), &holds{}
	other := c
	other.failpoint = h.failpoint
	one := open(t, other)
	start(t, one, "a", microvm.Spec{StopMode: microvm.StopModeShutdown})
	entered, release := h.hold("snapshot.intended")
	snap := make(chan error, 1)
	go func() { snap <- one.SnapshotVM(bg, "a", "s") }()
	<-entered
	c.NoRecovery = true
	c.ShutdownGrace = -1
	two, err := Open(bg, c)
	must(t, err)
	done, closed := make(chan error, 1), make(chan error, 1)
	go func() { done <- two.StopVM(bg, "a") }()
	time.Sleep(100 * time.Millisecond) // it waits for the lock
	go func() { closed <- two.Close() }()
	time.Sleep(50 * time.Millisecond)
	release()
	must(t, <-snap)
	if err := <-done; err != nil {
		t.Errorf("StopVM: %v", err)
	}
	must(t, <-closed)
	if v := mustGet(t, one, "a"); v.Status != microvm.StatusStopped {
		t.Errorf("it is %s", v.Status)
	}
}

// a creation of a program that has died holds a file in place; a program that
// lives on can never use it: there is no VM to destroy.
func TestAFileInPlaceOfADeadCreationIsFree(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	disk := filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(disk, make([]byte, 1<<16), 0o600))
	spec := microvm.Spec{Drives: []microvm.Drive{{ID: "data", Path: disk, InPlace: true}}}
	killedAt(t, c, "create.reserved", step{Verb: "create", ID: "a", Spec: spec})
	t.Logf("DestroyVM: %v", r.DestroyVM(bg, "a"))
	if err := r.CreateVMWithSpec(bg, "b", spec); err != nil {
		t.Errorf("create: %v", err)
	}
}

// an unreadable intent and no record: a stranger in the run directory lives.
func TestNoStrangerIsKilledForAnEmptyIntent(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	run := filepath.Join(c.StateDir, "vms", "a", "run")
	must(t, os.MkdirAll(run, 0o700))
	must(t, os.WriteFile(filepath.Join(c.StateDir, "vms", "a", "intent.json"), nil, 0o600))
	shell := exec.Command("sleep", "100")
	shell.Dir = run
	must(t, shell.Start())
	ended := make(chan error, 1)
	go func() { ended <- shell.Wait() }()
	open(t, c)
	select {
	case err := <-ended:
		t.Errorf("the stranger has ended: %v", err)
	case <-time.After(500 * time.Millisecond):
		_ = shell.Process.Kill()
		<-ended
	}
}

// a query that has read the record before a stop, and looks at the process
// behind it.
func TestAQueryThatAStopOvertakesTellsNoLie(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	start(t, r, "a", microvm.Spec{StopMode: microvm.StopModeShutdown})
	rec, err := r.store.Load("a")
	must(t, err)
	must(t, r.StopVM(bg, "a"))
	v, err := r.view(rec)
	must(t, err)
	if v.StopReason == nil || v.StopReason.Cause != microvm.StopShutdown {
		t.Errorf("%s, %v", v.Status, v.StopReason)
	}
}

// somebody else's file is at the path of a stopped VM's socket.
func TestAStoppedVMCanBeDestroyedWhileAFileHasItsSocketPath(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	p := filepath.Join(t.TempDir(), "v.sock")
	start(t, r, "a", microvm.Spec{StopMode: microvm.StopModeShutdown, Vsock: &microvm.Vsock{Path: p}})
	must(t, r.StopVM(bg, "a"))
	must(t, os.WriteFile(p, []byte("mine"), 0o600))
	if err := r.DestroyVM(bg, "a"); err != nil {
		t.Errorf("DestroyVM: %v", err)
	}
	must(t, os.Remove(p))
}

// a listener at the VM's own path hides what else could not be removed.
func TestAnOwnSocketThatStaysIsTold(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	p := filepath.Join(t.TempDir(), "v.sock")
	start(t, r, "a", microvm.Spec{StopMode: microvm.StopModeShutdown, Vsock: &microvm.Vsock{Path: p}})
	must(t, r.StopVM(bg, "a"))
	l, err := net.Listen("unix", p)
	must(t, err)
	defer l.Close()
	o, err := r.begin(bg, "test", "a")
	must(t, err)
	defer o.end()
	must(t, os.WriteFile(o.run(apiSocket), nil, 0o600))
	if err := o.removeSocketsAfter(context.Background()); err == nil {
		t.Errorf("no error")
	}
	must(t, os.Remove(o.run(apiSocket)))
}

// an ordinary user cannot look at a VMM with a file capability; that its API
// socket is gone does not make it dead.
func TestACapableVMMWithoutSocketIsNotTakenForDead(t *testing.T) {
	t.Parallel()
	c, do := ordinaryUser(t)
	giveCapability(t, c)
	must(t, do(step{Verb: "create", ID: "a", Spec: microvm.Spec{StopMode: microvm.StopModeShutdown}}, step{Verb: "start", ID: "a"}))
	pid := readRecord(t, c, "a").Process.PID
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	must(t, os.Remove(filepath.Join(c.StateDir, "vms", "a", runName, apiSocket)))
	t.Logf("start of a running VM: %v", do(step{Verb: "start", ID: "a"}))
	rec := readRecord(t, c, "a")
	if _, ierr := vmm.Identify(pid); ierr == nil && (rec.Process == nil || rec.Process.PID != pid) {
		t.Errorf("VMM %d lives and works on the disks, and the record says %s, process %+v", pid, rec.Status, rec.Process)
	}
	if rec.Process != nil {
		_ = syscall.Kill(rec.Process.PID, syscall.SIGKILL)
	}
}

// a query that a destroy and a prune overtake shows no VM that was stopped.
func TestAQueryThatADestroyAndAPruneOvertakeFindsNothing(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	start(t, r, "a", microvm.Spec{})
	rec, err := r.store.Load("a")
	must(t, err)
	must(t, r.DestroyVM(bg, "a"))
	_, err = r.Prune(bg, time.Now().Add(time.Hour))
	must(t, err)
	if v, err := r.view(rec); !errors.Is(err, microvm.ErrVMNotFound) {
		t.Errorf("%s, %v", v.Status, err)
	}
	must(t, r.CreateVM(bg, "a"))
	if v, err := r.view(rec); err != nil || v.Status != microvm.StatusCreated {
		t.Errorf("%s, %v", v.Status, err)
	}
}
