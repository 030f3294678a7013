package firecracker

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/tinyguest"
)

// realConfig is for what only a real Firecracker with the tiny guest can show.
func realConfig(t *testing.T) Config {
	t.Helper()
	if !under.real {
		t.Skip("it needs a real Firecracker (make test-real FIRECRACKER=path)")
	}
	return testConfig(t)
}

// waitFor waits for a state that a guest brings about.
func waitFor(t *testing.T, r *Runtime, id string, s microvm.Status) microvm.View {
	t.Helper()
	ctx, cancel := context.WithTimeout(bg, patience)
	defer cancel()
	v, err := r.WaitVM(ctx, id, s)
	must(t, err)
	return v
}

func TestHowARealGuestEnds(t *testing.T) {
	t.Parallel()
	r := open(t, realConfig(t))
	for name, mode := range map[string]string{"reset": "r", "triple fault": "f"} {
		// As its first act, and in the middle of its work.
		atBoot, later := "boot-"+mode, "later-"+mode
		must(t, r.CreateVMWithSpec(bg, atBoot, microvm.Spec{BootArgs: "reboot=k panic=1 tiny=" + mode}))
		// It may be over before the start's own last look.
		if err := r.StartVM(bg, atBoot); err != nil {
			t.Logf("%s at boot: start: %v", name, err)
		}
		start(t, r, later, microvm.Spec{Console: &microvm.Console{Input: true}})
		countsFrom(t, r, later, 2)
		must(t, typeIn(r, later, mode))
		for _, id := range []string{atBoot, later} {
			v := waitFor(t, r, id, microvm.StatusStopped)
			t.Logf("%s: %s: %v", name, id, v.StopReason)
			// Exit codes of a triple fault differ: 0 and 1 were seen.
			if v.PID != 0 || v.StopReason == nil || v.StopReason.Signal != "" ||
				v.StopReason.Cause != microvm.StopGuest && v.StopReason.Cause != microvm.StopVMMDied {
				t.Errorf("%s: %s has pid %d and is stopped because %v", name, id, v.PID, v.StopReason)
			}
			if mode == "r" && v.StopReason.Cause != microvm.StopGuest {
				t.Errorf("%s: %s is stopped because %v", name, id, v.StopReason)
			}
		}
		must(t, r.StartVM(bg, later))
		countsFrom(t, r, later, 2)
	}
}

// Firecracker does not notice a guest that halts: the VM stays running, and every
// verb still works on it.
func TestARealGuestThatHaltsIsStillThere(t *testing.T) {
	t.Parallel()
	r := open(t, realConfig(t))
	start(t, r, "a", microvm.Spec{Console: &microvm.Console{Input: true}})
	countsFrom(t, r, "a", 2)
	must(t, typeIn(r, "a", "h"))
	n := -1
	eventually(t, "the console stands still", func() bool {
		was := n
		n = len(counts(t, r, "a"))
		time.Sleep(300 * time.Millisecond)
		return n == was
	})
	pid := mustGet(t, r, "a").PID
	must(t, r.StopVM(bg, "a"))
	must(t, r.SnapshotVM(bg, "a", "halted"))
	must(t, r.StartVM(bg, "a"))
	clone(t, r, "b", "a", "halted")
	if v := mustGet(t, r, "a"); v.Status != microvm.StatusRunning || v.PID != pid {
		t.Errorf("a is %s, pid %d, was %d", v.Status, v.PID, pid)
	}
	if got := counts(t, r, "b"); len(got) > 0 {
		t.Errorf("the clone of a halted guest counts: %v", got)
	}
}

// What becomes of memory and process in the three ways to stop.
func TestARealGuestThroughTheThreeStopModes(t *testing.T) {
	t.Parallel()
	for _, mode := range []microvm.StopMode{microvm.StopModePause, microvm.StopModeHibernate, microvm.StopModeShutdown} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			r := open(t, realConfig(t))
			start(t, r, "a", microvm.Spec{StopMode: mode})
			countsFrom(t, r, "a", 5)
			for range 3 {
				pid := mustGet(t, r, "a").PID
				began := time.Now()
				must(t, r.StopVM(bg, "a"))
				stopped := time.Since(began)
				before := counts(t, r, "a")
				v := mustGet(t, r, "a")
				if keeps := mode == microvm.StopModePause; keeps && v.PID != pid || !keeps && v.PID != 0 {
					t.Errorf("stopped, the process is %d; it was %d", v.PID, pid)
				}
				if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); mode != microvm.StopModePause && err == nil {
					t.Errorf("process %d is still there", pid)
				}
				began = time.Now()
				must(t, r.StartVM(bg, "a"))
				t.Logf("stop %v, start %v", stopped, time.Since(began))
				after := counts(t, r, "a")
				eventually(t, "it counts", func() bool {
					after = counts(t, r, "a")
					return len(after) > len(before)+2
				})
				// The console goes on in one file: a boot begins at the beginning.
				if mode == microvm.StopModeShutdown {
					if !slices.Contains(after[len(before)-1:], 8) {
						t.Errorf("it did not boot anew: %v, then %v", before, after[len(before):])
					}
				} else if !slices.IsSorted(after) {
					t.Errorf("it lost its memory: %v", after)
				}
			}
		})
	}
}

// The memory of a snapshot is that of one moment: the counter, and the page that
// was written for each count before it.
func TestTheMemoryOfARealSnapshotIsOfOneMoment(t *testing.T) {
	t.Parallel()
	for name, track := range map[string]*bool{"untracked": nil, "tracked": yes()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t, realConfig(t))
			start(t, r, "a", microvm.Spec{TrackDirtyPages: track})
			var last uint64
			for i := range 4 {
				snapshot := fmt.Sprintf("s%d", i)
				n := len(counts(t, r, "a"))
				eventually(t, "it counts", func() bool { return len(counts(t, r, "a")) > n+2 })
				must(t, r.SnapshotVM(bg, "a", snapshot))
				count := checkMemory(t, r, "a", snapshot)
				if count <= last {
					t.Errorf("%s is of count %d, the one before was of %d", snapshot, count, last)
				}
				last = count
				info, err := r.GetSnapshot(bg, "a", snapshot)
				must(t, err)
				t.Logf("%s: count %d, %d bytes on disk, pause %v", snapshot, count, info.DiskBytes, info.Pause)
			}
			clone(t, r, "b", "a", "s3")
			countsFrom(t, r, "b", 3)
			must(t, r.SnapshotVM(bg, "b", "own"))
			if count := checkMemory(t, r, "b", "own"); count <= last {
				t.Errorf("the clone's own snapshot is of count %d, the one that it came from was of %d", count, last)
			}
		})
	}
}

// checkMemory returns the count that a snapshot's memory is of.
func checkMemory(t *testing.T, r *Runtime, id, snapshot string) uint64 {
	t.Helper()
	rec, err := r.store.Load(id)
	must(t, err)
	_, dir, err := r.snaps.Manifest(rec.UID, snapshot)
	must(t, err)
	f, err := os.Open(filepath.Join(dir, memoryFile))
	must(t, err)
	defer f.Close()
	at := func(address int64) uint64 {
		var b [8]byte
		_, err := f.ReadAt(b[:], address)
		must(t, err)
		return binary.LittleEndian.Uint64(b[:])
	}
	const page = 4096
	count := at(tinyguest.CounterAddr)
	for i := range uint64(tinyguest.Pages) {
		// The newest count whose low byte is the page's number.
		want := count - (count-i)%tinyguest.Pages
		if i > count {
			want = 0
		}
		got := at(tinyguest.PagesAddr + int64(i)*page)
		// It may have been stopped between counting and writing.
		if between := i == count%tinyguest.Pages && got+tinyguest.Pages == want; got != want && !between {
			t.Errorf("snapshot %s: at count %d, page %d has %d, want %d", snapshot, count, i, got, want)
		}
	}
	return count
}

// Clones share a memory file and must not share anything else.
func TestManyRealClonesAtOnce(t *testing.T) {
	t.Parallel()
	const clones = 50
	r := open(t, realConfig(t))
	start(t, r, "a", microvm.Spec{Vsock: &microvm.Vsock{}})
	taken := snapshotBetween(t, r, "a", "s")
	began := time.Now()
	var wg sync.WaitGroup
	errs := make(chan error, clones)
	id := func(i int) string { return fmt.Sprintf("clone-%d", i) }
	for i := range clones {
		wg.Go(func() {
			errs <- r.CreateVMWithSpec(bg, id(i), microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s", ResumeImmediately: true}})
		})
	}
	wg.Wait()
	t.Logf("%d clones in %v", clones, time.Since(began))
	for range clones {
		must(t, <-errs)
	}
	pids := map[int]bool{}
	for i := range clones {
		pids[mustGet(t, r, id(i)).PID] = true
		goesOn(t, r, id(i), taken)
	}
	if len(pids) != clones {
		t.Errorf("%d clones are %d processes", clones, len(pids))
	}
	// The file that all of them are mapped from is as it was.
	if n := checkMemory(t, r, "a", "s"); n < taken[0] {
		t.Errorf("the snapshot is of count %d, it was taken after %d", n, taken[0])
	}
	began = time.Now()
	for i := range clones {
		wg.Go(func() { errs <- r.DestroyVM(bg, id(i)) })
	}
	wg.Wait()
	t.Logf("destroyed in %v", time.Since(began))
	for range clones {
		must(t, <-errs)
	}
	must(t, r.DestroyVM(bg, "a"))
	if left := leftovers(r.cfg.StateDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
