package firecracker

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/console"
)

var bg = context.Background()

// start makes a running VM.
func start(t testing.TB, r *Runtime, id string, spec microvm.Spec) {
	t.Helper()
	must(t, r.CreateVMWithSpec(bg, id, spec))
	must(t, r.StartVM(bg, id))
}

func clone(t testing.TB, r *Runtime, id, from, snapshot string) {
	t.Helper()
	must(t, r.CreateVMWithSpec(bg, id, microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: from, SnapshotID: snapshot, ResumeImmediately: true}}))
}

func TestClonesGoOnFromTheCountOfTheirSnapshot(t *testing.T) {
	t.Parallel()
	for name, track := range map[string]*bool{"untracked": nil, "tracked": yes()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t, testConfig(t))
			start(t, r, "a", microvm.Spec{TrackDirtyPages: track})
			first := snapshotBetween(t, r, "a", "first")
			second := snapshotBetween(t, r, "a", "second")
			var wg sync.WaitGroup
			for id, c := range map[string]struct {
				snapshot string
				taken    [2]uint64
			}{"b": {"first", first}, "c": {"first", first}, "d": {"second", second}} {
				wg.Go(func() {
					clone(t, r, id, "a", c.snapshot)
					goesOn(t, r, id, c.taken)
				})
			}
			wg.Wait()
			// A clone's own snapshot, and the clone of that.
			taken := snapshotBetween(t, r, "b", "s")
			clone(t, r, "e", "b", "s")
			goesOn(t, r, "e", taken)
		})
	}
}

// snapshotBetween takes a snapshot and returns the counts before and after it:
// the guest goes on while it is written out.
func snapshotBetween(t *testing.T, r *Runtime, id, name string) [2]uint64 {
	t.Helper()
	before := countsFrom(t, r, id, 3)
	must(t, r.SnapshotVM(bg, id, name))
	after := counts(t, r, id)
	return [2]uint64{before[len(before)-1], after[len(after)-1]}
}

// goesOn checks that the first counts of a clone belong to its snapshot. The
// first line may have been begun before it, and not every count is printed.
func goesOn(t *testing.T, r *Runtime, id string, taken [2]uint64) {
	t.Helper()
	const step = 8
	if got := countsFrom(t, r, id, 3)[1]; got < taken[0] || got > taken[1]+2*step {
		t.Errorf("%s goes on at %d, its snapshot was taken between %d and %d", id, got, taken[0], taken[1])
	}
}

// What was written as Diff must be the guest's memory, whole.
func TestTheFirstMemoryFileHoldsWhatAFullOneHolds(t *testing.T) {
	t.Parallel()
	for name, track := range map[string]*bool{"untracked": nil, "tracked": yes()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t, testConfig(t))
			start(t, r, "a", microvm.Spec{TrackDirtyPages: track})
			countsFrom(t, r, "a", 3)
			must(t, r.StopVM(bg, "a")) // paused: the memory stands still
			must(t, r.SnapshotVM(bg, "a", "diff"))
			rec, err := r.store.Load("a")
			must(t, err)
			o, err := r.begin(bg, "test", "a")
			must(t, err)
			o.Rec.Base, o.Rec.ColdBoot = nil, false // the next is Full
			must(t, o.Save())
			o.end()
			must(t, r.SnapshotVM(bg, "a", "full"))
			one, _, err := r.snaps.Manifest(rec.UID, "diff")
			must(t, err)
			two, _, err := r.snaps.Manifest(rec.UID, "full")
			must(t, err)
			if one.Memory.SHA256 != two.Memory.SHA256 {
				t.Errorf("the memory of the first snapshot differs from a full one")
			}
			var sizes [2]int64
			for i, n := range []string{"diff", "full"} {
				info, err := r.GetSnapshot(bg, "a", n)
				must(t, err)
				sizes[i] = info.DiskBytes
			}
			if sizes[0] >= sizes[1] {
				t.Errorf("the first snapshot occupies %d bytes, the full one %d", sizes[0], sizes[1])
			}
		})
	}
}

func TestADeathIsSeenAtOnceAndTheVMStartsAgain(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	start(t, r, "a", microvm.Spec{})
	for name, c := range map[string]struct {
		end   func() error
		cause microvm.StopCause
	}{
		"killed": {func() error { return syscall.Kill(mustGet(t, r, "a").PID, syscall.SIGKILL) }, microvm.StopVMMDied},
		"reset":  {func() error { return pressKeys(bg, r, "a") }, microvm.StopGuest},
	} {
		must(t, c.end())
		began := time.Now()
		ctx, cancel := context.WithTimeout(bg, 10*time.Second)
		v, err := r.WaitVM(ctx, "a", microvm.StatusStopped)
		cancel()
		must(t, err)
		t.Logf("%s: seen after %v: %v", name, time.Since(began), v.StopReason)
		if v.StopReason == nil || v.StopReason.Cause != c.cause {
			t.Errorf("%s: reason %v", name, v.StopReason)
		}
		if c.cause == microvm.StopVMMDied && v.StopReason.Signal != "SIGKILL" {
			t.Errorf("%s: reason %v", name, v.StopReason)
		}
		must(t, r.StartVM(bg, "a"))
	}
}

// VMMs leave their sockets behind, which the next one would refuse.
func TestAKilledVMStartsAgainAndAgainWithItsSockets(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	must(t, r.CreateVMWithSpec(bg, "a", microvm.Spec{Vsock: &microvm.Vsock{}}))
	for range 10 {
		must(t, r.StartVM(bg, "a"))
		must(t, syscall.Kill(mustGet(t, r, "a").PID, syscall.SIGKILL))
		ctx, cancel := context.WithTimeout(bg, 10*time.Second)
		_, err := r.WaitVM(ctx, "a", microvm.StatusStopped)
		cancel()
		must(t, err)
	}
	must(t, r.DestroyVM(bg, "a"))
	if left := leftovers(r.cfg.StateDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestASocketThatIsInUseIsNotTaken(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	start(t, r, "a", microvm.Spec{Vsock: &microvm.Vsock{}})
	dir, err := r.Dir("a")
	must(t, err)
	socket := filepath.Join(dir, runName, vsockSocket)
	err = r.CreateVMWithSpec(bg, "b", microvm.Spec{Vsock: &microvm.Vsock{Path: socket}})
	if err == nil || !strings.Contains(err.Error(), socket) {
		t.Errorf("a socket of another VM: %v", err)
	}
	if _, err := r.GetVM(bg, "b"); !errors.Is(err, microvm.ErrVMNotFound) {
		t.Errorf("b is left: %v", err)
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Errorf("a's socket: %v", err)
	}
}

// Every VMM has only files of its own open, whatever becomes of the VM that it
// was cloned from.
func TestClonesDependOnNobody(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	start(t, r, "a", microvm.Spec{Vsock: &microvm.Vsock{}})
	must(t, r.SnapshotVM(bg, "a", "s"))
	clone(t, r, "b", "a", "s")
	clone(t, r, "c", "a", "s")
	must(t, r.DestroyVM(bg, "a"))
	must(t, r.DeleteSnapshot(bg, "a", "s"))
	must(t, r.RenameVM(bg, "b", "b2"))
	must(t, r.SnapshotVM(bg, "b2", "t"))
	clone(t, r, "d", "b2", "t")
	inodes := map[uint64]string{}
	for _, id := range []string{"b2", "c", "d"} {
		countsFrom(t, r, id, 3)
		dir, err := r.Dir(id)
		must(t, err)
		fds, err := filepath.Glob("/proc/" + strconv.Itoa(mustGet(t, r, id).PID) + "/fd/*")
		must(t, err)
		for _, fd := range fds {
			target, err := os.Readlink(fd)
			if err != nil || !strings.HasPrefix(target, r.cfg.StateDir) {
				continue
			}
			if !strings.HasPrefix(target, dir+"/") {
				t.Errorf("%s has %s open", id, target)
			}
			var st unix.Stat_t
			if strings.HasSuffix(target, "rootfs.ext4") && unix.Stat(fd, &st) == nil {
				if other := inodes[st.Ino]; other != "" {
					t.Errorf("%s and %s share a disk", id, other)
				}
				inodes[st.Ino] = id
			}
		}
	}
	if len(inodes) != 3 {
		t.Errorf("disks of 3 VMs: %v", inodes)
	}
}

func TestAHibernatedVMHasNoProcessAndGoesOn(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	start(t, r, "a", microvm.Spec{StopMode: microvm.StopModeHibernate})
	before := countsFrom(t, r, "a", 3)
	must(t, r.StopVM(bg, "a"))
	if v := mustGet(t, r, "a"); v.PID != 0 || v.StopReason.Cause != microvm.StopHibernated {
		t.Errorf("%+v", v)
	}
	n := len(counts(t, r, "a"))
	must(t, r.Close())
	r = open(t, c) // another day
	must(t, r.StartVM(bg, "a"))
	eventually(t, "it counts", func() bool { return len(counts(t, r, "a")) > n+2 })
	after := counts(t, r, "a")
	if last := after[len(after)-1]; last <= before[len(before)-1] {
		t.Errorf("it went on at %d, before it was at %d", last, before[len(before)-1])
	}
	if _, err := os.Lstat(filepath.Join(r.store.Dir("a"), hibernateName)); !isMissing(err) {
		t.Errorf("its memory is still on disk: %v", err)
	}
}

// A hibernated VM whose memory file is gone stays stopped, and starts once it is
// back.
func TestAFailedWakeCanBeRepeated(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	start(t, r, "a", microvm.Spec{StopMode: microvm.StopModeHibernate})
	must(t, r.StopVM(bg, "a"))
	state := filepath.Join(r.store.Dir("a"), hibernateName, stateFile)
	good, err := os.ReadFile(state)
	must(t, err)
	must(t, os.WriteFile(state, []byte("garbage"), 0o600))
	err = r.StartVM(bg, "a")
	var e *microvm.Error
	if !errors.As(err, &e) || e.Stage != "PUT /snapshot/load" {
		t.Fatalf("start from garbage: %v", err)
	}
	t.Log(err)
	if v := mustGet(t, r, "a"); v.Status != microvm.StatusStopped || v.PID != 0 {
		t.Errorf("%+v", v)
	}
	must(t, os.WriteFile(state, good, 0o600))
	must(t, r.StartVM(bg, "a"))
}

func TestADamagedSnapshotIsRefusedAndLeavesNothing(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	start(t, r, "a", microvm.Spec{})
	must(t, r.SnapshotVM(bg, "a", "s"))
	files, err := filepath.Glob(filepath.Join(r.cfg.StateDir, "snapshots", "*", "s", "vmstate"))
	must(t, err)
	must(t, os.Truncate(files[0], 100))
	err = r.CreateVMWithSpec(bg, "b", microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s"}})
	if !errors.Is(err, microvm.ErrHost) || !strings.Contains(err.Error(), "vmstate") {
		t.Errorf("restore: %v", err)
	}
	if _, err := r.GetVM(bg, "b"); !errors.Is(err, microvm.ErrVMNotFound) {
		t.Errorf("b: %v", err)
	}
}

func TestAConsoleThatIsFloodedIsBoundedOnDisk(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.ConsoleBytes, c.SerialBytesPerSecond = console.MinBound, -1
	r := open(t, c)
	start(t, r, "a", microvm.Spec{BootArgs: "tiny=q reboot=k panic=1 fcemu.console=lines:0:0"})
	path := filepath.Join(r.store.Dir("a"), consoleFile)
	var st unix.Stat_t
	most := int64(0)
	eventually(t, "the guest has written four times the bound", func() bool {
		must(t, unix.Stat(path, &st))
		most = max(most, st.Blocks*512)
		return st.Size > 4*c.ConsoleBytes
	})
	must(t, r.StopVM(bg, "a"))
	eventually(t, "the file is within its bound", func() bool {
		must(t, unix.Stat(path, &st))
		return st.Blocks*512 <= c.ConsoleBytes+16<<10
	})
	t.Logf("%d bytes were written, at most %d were on disk, %d are now", st.Size, most, st.Blocks*512)
	b, err := r.ConsoleTail(bg, "a", 5)
	must(t, err)
	if len(b) == 0 || strings.Contains(string(b), "\x00") {
		t.Errorf("the last lines: %q", b)
	}
}

func TestAFollowerGetsTheLinesInOrderUntilTheEnd(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	start(t, r, "a", microvm.Spec{})
	f, err := r.FollowConsole(bg, "a", -1)
	must(t, err)
	defer f.Close()
	countsFrom(t, r, "a", 5)
	must(t, r.RenameVM(bg, "a", "b"))
	must(t, pressKeys(bg, r, "b"))
	got, err := io.ReadAll(f)
	must(t, err)
	want, err := r.ConsoleTail(bg, "b", -1)
	must(t, err)
	if string(got) != string(want) {
		t.Errorf("followed %d bytes, the file has %d", len(got), len(want))
	}
}

func TestWhatIsTypedReachesTheGuest(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	start(t, r, "deaf", microvm.Spec{})
	if _, err := r.ConsoleInput(bg, "deaf"); !errors.Is(err, microvm.ErrUnsupported) {
		t.Errorf("without console.input: %v", err)
	}
	start(t, r, "a", microvm.Spec{Console: &microvm.Console{Input: true}})
	must(t, r.Close())
	r = open(t, c) // it works after a restart of anything
	must(t, typeIn(r, "a", "x\n"))
	eventually(t, "the guest echoes it", func() bool {
		b, err := r.ConsoleTail(bg, "a", -1)
		must(t, err)
		return strings.Contains("\n"+strings.ReplaceAll(string(b), "\r", ""), "\nx\n")
	})
	st, err := os.Stat(filepath.Join(r.store.Dir("a"), inputFIFO))
	must(t, err)
	if st.Mode() != os.ModeNamedPipe|0o600 {
		t.Errorf("the input is %v", st.Mode())
	}
}

func TestADriveInPlaceIsTheFileItself(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	data := filepath.Join(t.TempDir(), "data")
	must(t, os.WriteFile(data, make([]byte, 1<<20), 0o600))
	spec := microvm.Spec{Drives: []microvm.Drive{{ID: "data", Path: data, InPlace: true}}}
	must(t, r.CreateVMWithSpec(bg, "a", spec))
	fds, err := filepath.Glob("/proc/" + strconv.Itoa(mustGet(t, r, "a").PID) + "/fd/*")
	must(t, err)
	found := false
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		found = found || err == nil && target == data
	}
	if !found {
		t.Error("the VMM has not opened the file itself")
	}
	// Two writers of one file would destroy it.
	err = r.CreateVMWithSpec(bg, "b", spec)
	if !errors.Is(err, microvm.ErrInvalidSpec) || !strings.Contains(err.Error(), `"a"`) || !strings.Contains(err.Error(), "drives[0].path") {
		t.Errorf("a second VM with the same file: %v", err)
	}
	must(t, r.SnapshotVM(bg, "a", "s"))
	must(t, r.DestroyVM(bg, "a"))
	must(t, r.CreateVMWithSpec(bg, "b", spec))
	must(t, r.CreateVMWithSpec(bg, "c", microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s"}}))
	if _, err := os.Stat(data); err != nil {
		t.Errorf("the file: %v", err)
	}
}

func TestAVMWithAnInitrdNeedsNoRootDisk(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	initrd := filepath.Join(t.TempDir(), "initrd")
	must(t, os.WriteFile(initrd, make([]byte, 4096), 0o600))
	r := open(t, c)
	start(t, r, "without", microvm.Spec{Initrd: initrd, NoRootfs: true})
	start(t, r, "with", microvm.Spec{Initrd: initrd})
	for id, disks := range map[string]int{"without": 0, "with": 1} {
		rec, err := r.store.Load(id)
		must(t, err)
		if len(rec.Disks) != disks {
			t.Errorf("%s has %d disks", id, len(rec.Disks))
		}
		countsFrom(t, r, id, 2)
	}
}

func TestTheLongestNameWorksInADeepDirectory(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.StateDir = filepath.Join(c.StateDir, strings.Repeat("deep/", 40), strings.Repeat("d", 100))
	r := open(t, c)
	id := strings.Repeat("a.-_", 16)
	start(t, r, id, microvm.Spec{Vsock: &microvm.Vsock{}})
	must(t, r.SnapshotVM(bg, id, strings.Repeat("s", 64)))
	clone(t, r, strings.Repeat("B", 64), id, strings.Repeat("s", 64))
	if under.real {
		return // the guest has no vsock driver
	}
	ctx, cancel := context.WithTimeout(bg, 10*time.Second)
	defer cancel()
	conn, err := r.DialVsock(ctx, id, 52)
	must(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("ping"))
	must(t, err)
	b := make([]byte, 4)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "ping" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestNobodyElseCanReadTheState(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	start(t, r, "a", microvm.Spec{})
	must(t, r.SnapshotVM(bg, "a", "s"))
	must(t, filepath.WalkDir(r.cfg.StateDir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		// Files that the VMM makes lie in directories that are closed.
		if d.IsDir() && info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	}))
}
