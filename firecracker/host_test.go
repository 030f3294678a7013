package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/record"
)

func killedAt(t testing.TB, c Config, at string, steps ...step) {
	t.Helper()
	cmd := child{Config: c, Steps: steps, KillAt: at}.command(t)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("not killed at %s: %v %s", at, err, out)
	}
}

// a copy of the state directory (a backup) must not end the VMMs of the original.
func TestACopyOfTheStateDoesNotEndTheOriginalsVMM(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	start(t, r, "a", microvm.Spec{})
	pid := mustGet(t, r, "a").PID
	c2 := c
	c2.StateDir = c.StateDir + "-backup"
	must(t, os.MkdirAll(filepath.Join(c2.StateDir, "vms", "a", "run"), 0o700))
	b, err := os.ReadFile(filepath.Join(c.StateDir, "vms", "a", "vm.json"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(c2.StateDir, "vms", "a", "vm.json"), b, 0o600))
	r2 := open(t, c2)
	t.Logf("the copy says: %s, pid %d", mustGet(t, r2, "a").Status, mustGet(t, r2, "a").PID)
	t.Logf("destroy in the copy: %v", r2.DestroyVM(bg, "a"))
	time.Sleep(50 * time.Millisecond)
	if v := mustGet(t, r, "a"); v.Status != microvm.StatusRunning || v.PID != pid {
		t.Errorf("the original: %s %v", v.Status, v.StopReason)
	}
}

func readRecord(t testing.TB, c Config, id string) record.Record {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.StateDir, "vms", id, "vm.json"))
	must(t, err)
	var rec record.Record
	must(t, json.Unmarshal(b, &rec))
	return rec
}

// a stopped VM whose vsock path another VM has taken by now can be destroyed.
func TestAStoppedVMCanBeDestroyedWhileAnotherHasItsSocketPath(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	spec := microvm.Spec{StopMode: microvm.StopModeShutdown, Vsock: &microvm.Vsock{Path: filepath.Join(t.TempDir(), "v.sock")}}
	start(t, r, "a", spec)
	must(t, r.StopVM(bg, "a"))
	must(t, r.CreateVMWithSpec(bg, "b", spec))
	if err := r.DestroyVM(bg, "a"); err != nil {
		t.Errorf("destroy: %v", err)
	}
	must(t, r.DestroyVM(bg, "b")) // or the clean-up fails too
}

// a VMM that another program has ended must not be kept in this one.
func TestNothingIsKeptOfAVMThatAnotherProgramHasDestroyed(t *testing.T) {
	c := testConfig(t)
	one := open(t, c)
	two := open(t, c)
	before := descriptors(t)
	for i := range 5 {
		id := fmt.Sprintf("a%d", i)
		start(t, one, id, microvm.Spec{})
		must(t, two.DestroyVM(bg, id))
	}
	time.Sleep(500 * time.Millisecond)
	one.mu.Lock()
	n := len(one.machines)
	one.mu.Unlock()
	after := descriptors(t)
	deleted := 0
	for _, d := range after {
		if strings.Contains(d, "(deleted)") && strings.Contains(d, c.StateDir) {
			deleted++
		}
	}
	if n > 0 || deleted > 0 {
		t.Errorf("%d machines are kept for 0 VMs; descriptors %d -> %d, %d of deleted files", n, len(before), len(after), deleted)
	}
}

func descriptors(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	var out []string
	for _, e := range entries {
		if s, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			out = append(out, s)
		}
	}
	return out
}

// somebody's shell in the run directory is not a VMM.
func TestRecoveryKillsNoStrangerInTheRunDirectory(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	killedAt(t, c, "stop.intended", step{Verb: "create", ID: "a"}, step{Verb: "start", ID: "a"}, step{Verb: "stop", ID: "a"})
	shell := exec.Command("sleep", "100")
	shell.Dir = filepath.Join(c.StateDir, "vms", "a", "run")
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

// a lost record is reported; the VM behind it is not destroyed, though a verb was cut off.
func TestALostRecordWithACutVerbIsSetAside(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	killedAt(t, c, "stop.intended", step{Verb: "create", ID: "a"}, step{Verb: "start", ID: "a"}, step{Verb: "stop", ID: "a"})
	pid := readRecord(t, c, "a").Process.PID
	dir := filepath.Join(c.StateDir, "vms", "a")
	must(t, os.Rename(filepath.Join(dir, "vm.json"), filepath.Join(dir, "lost")))
	r := open(t, c)
	if _, err := os.Stat(filepath.Join(dir, runName, "rootfs.ext4")); err != nil {
		t.Errorf("the VM's disk: %v", err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the running VMM: %v", err)
	}
	// Put right, it is the VM that it was.
	must(t, os.Rename(filepath.Join(dir, "lost"), filepath.Join(dir, "vm.json")))
	_, err := r.Recover(bg, RecoverOptions{})
	must(t, err)
	if v := mustGet(t, r, "a"); v.PID != pid || v.Status != microvm.StatusRunning {
		t.Errorf("after the record is back: %+v", v)
	}
}

// an ordinary user and a VMM with a file capability (CAP_NET_ADMIN for TAPs).
func TestAnOrdinaryUserRestoresWithACapableVMM(t *testing.T) {
	t.Parallel()
	c, do := ordinaryUser(t)
	giveCapability(t, c)
	asOrdinaryUser(t, c, do,
		step{Verb: "create", ID: "a", Spec: microvm.Spec{StopMode: microvm.StopModeHibernate}},
		step{Verb: "start", ID: "a"}, step{Verb: "stop", ID: "a"}, step{Verb: "start", ID: "a"},
		step{Verb: "destroy", ID: "a"})
}

// makeTAP makes a TAP that stays until its network namespace goes.
func makeTAP(name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return err
	}
	return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
}

// A snapshot does not hold the metadata.
func TestMetadataSurviveAHibernateAndARestore(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace of the test's own needs root")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("no TAPs here: %v", err)
	}
	c := testConfig(t)
	const data = `{"who":"a"}`
	spec := microvm.Spec{
		StopMode:          microvm.StopModeHibernate,
		NetworkInterfaces: []microvm.NetworkInterface{{ID: "eth0", HostDevName: "tap0"}},
		MMDS:              &microvm.MMDS{Version: "V2", Interfaces: []string{"eth0"}, Contents: json.RawMessage(data)},
	}
	from := microvm.Spec{RestoreFrom: &microvm.RestoreFrom{
		VMID: "a", SnapshotID: "s", ResumeImmediately: true,
		NetworkOverrides: []microvm.NetworkOverride{{InterfaceID: "eth0", HostDevName: "tap1"}},
	}}
	cmd := child{Config: c, Steps: []step{
		{Verb: "tap", ID: "tap0"}, {Verb: "tap", ID: "tap1"},
		{Verb: "create", ID: "a", Spec: spec}, {Verb: "start", ID: "a"}, {Verb: "metadata", ID: "a", Other: data},
		{Verb: "snapshot", ID: "a", Other: "s"}, {Verb: "create", ID: "b", Spec: from}, {Verb: "metadata", ID: "b", Other: data},
		{Verb: "stop", ID: "a"}, {Verb: "start", ID: "a"}, {Verb: "metadata", ID: "a", Other: data},
	}}.command(t)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	open(t, c) // destroys them
}

// a socket path that Validate allows.
func TestALongSocketNameWorks(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	p := filepath.Join("/tmp", "rvw-"+strings.Repeat("s", 70)+".sock")
	t.Cleanup(func() { os.Remove(p) })
	spec := microvm.Spec{Vsock: &microvm.Vsock{Path: p}}
	must(t, spec.Validate())
	if err := r.CreateVMWithSpec(bg, "a", spec); err != nil {
		t.Errorf("create: %v", err)
	}
}

// a tombstone with a snapshot whose manifest can't be read is not forgotten.
func TestATombstoneWithADamagedSnapshotStays(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	start(t, r, "a", microvm.Spec{})
	must(t, r.SnapshotVM(bg, "a", "s"))
	uid := mustGet(t, r, "a").UID
	must(t, os.Truncate(filepath.Join(r.cfg.StateDir, "snapshots", uid, "s", "manifest.json"), 10))
	must(t, r.DestroyVM(bg, "a"))
	gone, err := r.Prune(bg, time.Now().Add(time.Hour))
	left, _ := filepath.Glob(filepath.Join(r.cfg.StateDir, "snapshots", uid, "*", "*"))
	if len(gone) > 0 && len(left) > 0 {
		t.Errorf("%v is forgotten (%v), these files stay and belong to nobody: %v", gone, err, left)
	}
}

// a VMM that can't be ended keeps its VM.
func TestACreateWhoseVMMCantBeEndedKeepsTheReservation(t *testing.T) {
	const freezer = "/sys/fs/cgroup/freezer"
	cg := filepath.Join(freezer, "rvw"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(cg, 0o755); err != nil {
		t.Skipf("no freezer: %v", err)
	}
	c := testConfig(t)
	pid := 0
	c.failpoint = func(_ context.Context, name string) error {
		if name != "create.spawned" {
			return nil
		}
		procs, _ := filepath.Glob("/proc/[0-9]*/cwd")
		for _, p := range procs {
			if cwd, err := os.Readlink(p); err == nil && strings.HasPrefix(cwd, c.StateDir) {
				pid, _ = strconv.Atoi(strings.Split(p, "/")[2])
			}
		}
		must(t, os.WriteFile(filepath.Join(cg, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0))
		must(t, os.WriteFile(filepath.Join(cg, "freezer.state"), []byte("FROZEN"), 0))
		return errors.New("ordered")
	}
	r := open(t, c)
	began := time.Now()
	err := r.CreateVM(bg, "a")
	t.Logf("after %v: %v", time.Since(began), err)
	if e := syscall.Kill(pid, 0); e == nil {
		if _, err := os.Stat(filepath.Join(c.StateDir, "vms", "a")); err != nil {
			t.Errorf("VMM %d is there, its directory is not: %v", pid, err)
		}
	}
	must(t, os.WriteFile(filepath.Join(cg, "freezer.state"), []byte("THAWED"), 0))
	eventually(t, "it is dead", func() bool { b, _ := os.ReadFile(filepath.Join(cg, "cgroup.procs")); return len(b) == 0 })
	eventually(t, "cgroup", func() bool { return os.Remove(cg) == nil })
}

// one bad snapshot directory hides no VM.
func TestOneBadSnapshotDirectoryHidesNobody(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	must(t, r.CreateVM(bg, "a"))
	must(t, r.CreateVM(bg, "b"))
	p := filepath.Join(r.cfg.StateDir, "snapshots", mustGet(t, r, "b").UID)
	must(t, os.WriteFile(p, nil, 0o600))
	views, err := r.ListVMs(bg)
	if len(views) == 0 || err != nil {
		t.Errorf("%d VMs, %v", len(views), err)
	}
	must(t, os.Remove(p))
}

// Close while a verb is in flight leaves no connection behind.
func TestCloseLeavesNoConnection(t *testing.T) {
	c, h := testConfig(t), &holds{}
	c.failpoint = h.failpoint
	before := descriptors(t)
	r, err := Open(bg, c)
	must(t, err)
	entered, release := h.hold("create.configured")
	done := make(chan error, 1)
	go func() { done <- r.CreateVM(bg, "a") }()
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- r.Close() }()
	time.Sleep(20 * time.Millisecond)
	release()
	t.Logf("create: %v, close: %v", <-done, <-closed)
	known := map[string]bool{}
	for _, d := range before {
		known[d] = true
	}
	for _, d := range descriptors(t) {
		if strings.HasPrefix(d, "socket:") && !known[d] {
			t.Errorf("%s is open after Close", d)
		}
	}
	open(t, c)
}

// DeleteSnapshot is a change that Watch tells.
func TestWatchTellsOfADeletedSnapshot(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	start(t, r, "a", microvm.Spec{})
	must(t, r.SnapshotVM(bg, "a", "s"))
	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	ch, err := r.Watch(ctx)
	must(t, err)
	must(t, r.DeleteSnapshot(bg, "a", "s"))
	select {
	case e := <-ch:
		t.Logf("%+v", e)
	case <-time.After(2 * time.Second):
		t.Errorf("no event")
	}
	cancel()
	for range ch {
	}
}

// a path in a record leads nowhere else.
func TestARecordsDiskPathStaysInside(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	must(t, r.CreateVM(bg, "a"))
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	o, err := r.begin(bg, "test", "a")
	must(t, err)
	rel, err := filepath.Rel(o.runDir(), secret)
	must(t, err)
	o.Rec.Disks[0].File = rel
	must(t, o.Save())
	o.end()
	if err := r.SnapshotVM(bg, "a", "s"); err == nil {
		t.Errorf("the snapshot took %s", rel)
	} else {
		t.Log(err)
	}
	if _, err := os.Stat(secret); err != nil {
		t.Error(err)
	}
}

// a stale query must not take a living VMM from a verb.
func TestAStaleQueryDoesNotTakeTheVMMFromAVerb(t *testing.T) {
	t.Parallel()
	c, h := testConfig(t), &holds{}
	c.failpoint = h.failpoint
	r := open(t, c)
	start(t, r, "a", microvm.Spec{StopMode: microvm.StopModeShutdown})
	rec, err := r.store.Load("a")
	must(t, err)
	// what machine() does in a query that was preempted between Open and register
	r.mu.Lock()
	delete(r.machines, "none")
	r.mu.Unlock()
	proc, err := r.watcher.Open(identity(rec.Process))
	must(t, err)
	m := newMachine(proc, rec.ID, *rec.Process)
	must(t, r.StopVM(bg, "a"))
	must(t, r.StartVM(bg, "a"))
	entered, release := h.hold("stop.intended")
	_ = entered
	live := func() *machine { r.mu.Lock(); defer r.mu.Unlock(); return r.machines[rec.UID] }()
	// the verb has its machine in hand
	r.register(rec.UID, m, true)
	release()
	if live.isReleased() && !live.dead() {
		t.Errorf("the living VMM's machine was released under its verb: Signal says %v", live.proc.Signal(0))
	}
	_ = net.IPv4len
}
