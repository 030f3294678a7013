package firecracker

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcemu/nullengine"
)

func last(t testing.TB, r *Runtime, id string) uint64 {
	t.Helper()
	c := counts(t, r, id)
	if len(c) == 0 {
		return 0
	}
	return c[len(c)-1]
}

// newCounts waits for n counts behind the first skip and returns them.
func newCounts(t testing.TB, r *Runtime, id string, skip, n int) []uint64 {
	t.Helper()
	eventually(t, "counts", func() bool { return len(counts(t, r, id)) >= skip+n })
	return counts(t, r, id)[skip:]
}

// R1: the record can't be saved (disk full, here: a directory in the way of its
// temporary file) after a hibernate has ended the VMM.
func TestHibernateKeepsTheMemoryWhenTheRecordCantBeSaved(t *testing.T) {
	t.Parallel()
	c, h := testConfig(t), &holds{}
	c.failpoint = h.failpoint
	r := open(t, c)
	start(t, r, "a", microvm.Spec{StopMode: microvm.StopModeHibernate})
	before := countsFrom(t, r, "a", 20)
	block := filepath.Join(r.store.Dir("a"), ".vm.json.tmp")
	entered, release := h.hold("stop.hibernated")
	done := make(chan error, 1)
	go func() { done <- r.StopVM(bg, "a") }()
	<-entered
	must(t, os.Mkdir(block, 0o700))
	release()
	t.Logf("StopVM: %v", <-done)
	must(t, os.Remove(block))
	v := mustGet(t, r, "a")
	t.Logf("view: %s %v", v.Status, v.StopReason)
	n := len(counts(t, r, "a"))
	must(t, r.StartVM(bg, "a"))
	if got := newCounts(t, r, "a", n, 3); got[1] < before[19] {
		t.Errorf("the guest had counted to %d and goes on at %d: its memory is lost", before[19], got[1])
	}
}

// R1b: the same, by an error of the step behind the end of the VMM.
func TestHibernateKeepsTheMemoryWhenStopEndedFails(t *testing.T) {
	t.Parallel()
	c, h := testConfig(t), &holds{}
	c.failpoint = h.failpoint
	r := open(t, c)
	start(t, r, "a", microvm.Spec{StopMode: microvm.StopModeHibernate})
	before := countsFrom(t, r, "a", 20)
	h.failNext("stop.ended", errors.New("ordered"))
	t.Logf("StopVM: %v", r.StopVM(bg, "a"))
	v := mustGet(t, r, "a")
	t.Logf("view: %s %v", v.Status, v.StopReason)
	n := len(counts(t, r, "a"))
	must(t, r.StartVM(bg, "a"))
	if got := newCounts(t, r, "a", n, 3); got[1] < before[19] {
		t.Errorf("the guest had counted to %d and goes on at %d: its memory is lost", before[19], got[1])
	}
}

// R2: the VMM is ended, but its socket can't be removed: somebody else listens
// on the path by now.
func TestHibernateKeepsTheMemoryWhenASocketCantBeRemoved(t *testing.T) {
	t.Parallel()
	c, h := testConfig(t), &holds{}
	c.failpoint = h.failpoint
	r := open(t, c)
	socket := filepath.Join(t.TempDir(), "v.sock")
	start(t, r, "a", microvm.Spec{StopMode: microvm.StopModeHibernate, Vsock: &microvm.Vsock{Path: socket}})
	before := countsFrom(t, r, "a", 20)
	entered, release := h.hold("stop.hibernated")
	done := make(chan error, 1)
	go func() { done <- r.StopVM(bg, "a") }()
	<-entered
	must(t, os.Remove(socket))
	l, err := net.Listen("unix", socket)
	must(t, err)
	release()
	t.Logf("StopVM: %v", <-done)
	must(t, l.Close())
	v := mustGet(t, r, "a")
	t.Logf("view: %s %v", v.Status, v.StopReason)
	if _, err := os.Lstat(filepath.Join(r.store.Dir("a"), hibernateName)); err != nil {
		t.Errorf("the memory on disk: %v", err)
	}
	n := len(counts(t, r, "a"))
	must(t, r.StartVM(bg, "a"))
	if got := newCounts(t, r, "a", n, 3); got[1] < before[19] {
		t.Errorf("the guest had counted to %d and goes on at %d: its memory is lost", before[19], got[1])
	}
}

// R3: a start of a hibernated VM that is killed when all is saved leaves the old
// memory; a later stop that is killed before it did anything takes it for its own.
func TestOldHibernatedMemoryIsNotTakenForNew(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	hib := microvm.Spec{StopMode: microvm.StopModeHibernate}
	kill := func(at string, steps ...step) {
		t.Helper()
		cmd := child{Config: c, Steps: steps, KillAt: at}.command(t)
		err := cmd.Run()
		if cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("not killed at %s: %v", at, err)
		}
	}
	kill("start.saved", step{Verb: "create", ID: "a", Spec: hib}, step{Verb: "start", ID: "a"}, step{Verb: "stop", ID: "a"}, step{Verb: "start", ID: "a"})
	// start.saved is passed by the first start too: see that it ran to the second.
	r := open(t, c)
	if _, err := os.Lstat(filepath.Join(r.store.Dir("a"), hibernateName)); err != nil {
		must(t, r.StopVM(bg, "a"))
		must(t, r.Close())
		kill("start.saved", step{Verb: "start", ID: "a"})
		r = open(t, c)
	}
	v := mustGet(t, r, "a")
	t.Logf("after the killed start: %s, pid %d", v.Status, v.PID)
	pid := v.PID
	n := len(counts(t, r, "a"))
	newCounts(t, r, "a", n, 60) // it runs on, for long
	ran := last(t, r, "a")
	must(t, r.Close())
	kill("stop.intended", step{Verb: "stop", ID: "a"})
	r = open(t, c)
	v = mustGet(t, r, "a")
	t.Logf("after the killed stop: %s, pid %d, %v", v.Status, v.PID, v.StopReason)
	if v.Status == microvm.StatusRunning {
		return
	}
	if syscall.Kill(pid, 0) != nil {
		t.Errorf("the running VMM was killed by recovery")
	}
	n = len(counts(t, r, "a"))
	must(t, r.StartVM(bg, "a"))
	if got := newCounts(t, r, "a", n, 3); got[1] < ran {
		t.Errorf("the guest had counted to %d and goes on at %d, from the memory of the stop before", ran, got[1])
	}
}

// R4: a start of a hibernated VM that fails after the guest has run takes it back
// to its old memory, while its disk has gone on.
func TestAWakeThatIsTakenBackKeepsMemoryAndDiskTogether(t *testing.T) {
	if under.real {
		t.Skip("the tiny guest writes to no disk")
	}
	t.Parallel()
	c, h := testConfig(t), &holds{}
	c.failpoint = h.failpoint
	c.BootArgs += " fcemu.disk_writer=rootfs fcemu.tick=10ms"
	r := open(t, c)
	start(t, r, "a", microvm.Spec{StopMode: microvm.StopModeHibernate})
	countsFrom(t, r, "a", 20)
	must(t, r.StopVM(bg, "a"))
	disk := filepath.Join(r.store.Dir("a"), runName, "rootfs.ext4")
	old, err := os.ReadFile(disk)
	must(t, err)
	before := last(t, r, "a")
	n := len(counts(t, r, "a"))
	ctx, cancel := context.WithCancel(bg)
	entered, _ := h.hold("start.resumed")
	done := make(chan error, 1)
	go func() { done <- r.StartVM(ctx, "a") }()
	<-entered
	newCounts(t, r, "a", n, 40) // the guest runs
	ran := last(t, r, "a")
	cancel()
	t.Logf("StartVM: %v", <-done)
	v := mustGet(t, r, "a")
	t.Logf("view: %s %v pid %d", v.Status, v.StopReason, v.PID)
	ahead, err := os.ReadFile(disk)
	must(t, err)
	n = len(counts(t, r, "a"))
	must(t, r.StartVM(bg, "a"))
	got := newCounts(t, r, "a", n, 3)[1]
	if got < ran && !bytes.Equal(old, ahead) {
		t.Errorf("memory went back from %d to %d (hibernated at %d), the disk did not go back: it was written to meanwhile", ran, got, before)
	}
}

// R5: a snapshot is published, and then the record can't be saved: what was
// tracked is used up, but the record still promises it.
func TestASnapshotAfterAFailedSaveIsWhole(t *testing.T) {
	t.Parallel()
	c, h := testConfig(t), &holds{}
	c.failpoint = h.failpoint
	r := open(t, c)
	start(t, r, "a", microvm.Spec{TrackDirtyPages: yes()})
	countsFrom(t, r, "a", 5)
	block := filepath.Join(r.store.Dir("a"), ".vm.json.tmp")
	entered, release := h.hold("snapshot.published")
	done := make(chan error, 1)
	go func() { done <- r.SnapshotVM(bg, "a", "one") }()
	<-entered
	must(t, os.Mkdir(block, 0o700))
	release()
	t.Logf("SnapshotVM one: %v", <-done)
	must(t, os.Remove(block))
	must(t, r.SnapshotVM(bg, "a", "two"))
	rec, err := r.store.Load("a")
	must(t, err)
	if !under.real {
		f, err := os.Open(filepath.Join(r.cfg.StateDir, "snapshots", rec.UID, "two", memoryFile))
		must(t, err)
		defer f.Close()
		if g, err := nullengine.VerifyMemory(f); err != nil {
			t.Errorf("the memory of snapshot two: %+v, %v", g, err)
		}
	}
	err = r.CreateVMWithSpec(bg, "b", microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "two", ResumeImmediately: true}})
	t.Logf("restore: %v", err)
	if err == nil {
		end := time.Now().Add(3 * time.Second)
		for len(counts(t, r, "b")) < 3 && time.Now().Before(end) {
			time.Sleep(5 * time.Millisecond)
		}
		v := mustGet(t, r, "b")
		if len(counts(t, r, "b")) < 3 {
			t.Errorf("the clone does not count: %s %v", v.Status, v.StopReason)
		}
	}
}

// R6: a guest with huge pages is hibernated and can never be loaded again.
func TestAHibernatedGuestWithHugePagesWakes(t *testing.T) {
	if under.real {
		t.Skip("no huge pages here")
	}
	t.Parallel()
	r := open(t, testConfig(t))
	must(t, r.CreateVMWithSpec(bg, "a", microvm.Spec{StopMode: microvm.StopModeHibernate, HugePages: "2M"}))
	if err := r.StartVM(bg, "a"); err != nil {
		t.Skipf("needs vm.nr_hugepages > 4: %v", err)
	}
	countsFrom(t, r, "a", 3)
	if err := r.StopVM(bg, "a"); err != nil {
		t.Logf("refused: %v", err)
		return
	}
	if err := r.StartVM(bg, "a"); err != nil {
		t.Errorf("hibernated without a word, and now: %v", err)
	}
}
