package nullengine_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tangle-network/microvm/fcemu"
	"github.com/tangle-network/microvm/fcemu/nullengine"
	"github.com/tangle-network/microvm/internal/leaktest"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

const patience = 20 * time.Second

// rig is an engine with the files that its guest needs.
type rig struct {
	*nullengine.Engine
	t   *testing.T
	dir string
	cfg *fcemu.Config
	out string
}

func ptr[T any](v T) *T { return &v }

func newRig(t *testing.T, bootArgs string, opt nullengine.Options) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "null-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: dir, out: filepath.Join(dir, "out")}
	out, err := os.Create(r.out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	opt.Stdin, opt.Stdout = -1, int(out.Fd())
	r.cfg = &fcemu.Config{
		BootSource: fcemu.BootSource{KernelImagePath: exe, BootArgs: &bootArgs},
		Machine:    fcemu.MachineConfig{VCPUCount: 1, MemSizeMiB: 4, HugePages: "None"},
	}
	r.open(opt)
	return r
}

func (r *rig) open(opt nullengine.Options) {
	r.t.Helper()
	e := nullengine.New(opt)
	r.t.Cleanup(func() {
		if err := e.Close(); err != nil {
			r.t.Errorf("close: %v", err)
		}
	})
	r.Engine = e
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) attach(section, id string) {
	r.t.Helper()
	r.ok(r.Attach(r.t.Context(), r.cfg, section, id))
}

func (r *rig) start() {
	r.t.Helper()
	r.attach("boot-source", "")
	r.ok(r.Start(r.t.Context(), r.cfg))
}

func (r *rig) snapshot(kind, name string) {
	r.t.Helper()
	r.ok(r.CreateSnapshot(r.t.Context(), r.cfg, fcemu.SnapshotCreate{SnapshotType: kind, SnapshotPath: r.path(name + ".state"), MemFilePath: r.path(name + ".mem")}))
}

// clone loads a snapshot into a new engine.
func (r *rig) clone(name string, backend fcemu.MemBackend) (*rig, error) {
	r.t.Helper()
	st, err := fcemu.OpenState(r.path(name + ".state"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer st.Close()
	c := &rig{t: r.t, dir: r.dir, cfg: &st.Config}
	c.open(nullengine.Options{EngineOptions: fcemu.EngineOptions{Stdin: -1, Stdout: -1}})
	if backend.BackendType == "" {
		backend = fcemu.MemBackend{BackendType: "File", BackendPath: r.path(name + ".mem")}
	}
	return c, c.LoadSnapshot(r.t.Context(), c.cfg, fcemu.SnapshotLoad{MemBackend: backend}, st.Blob)
}

func (r *rig) verify(name string) nullengine.Guest {
	r.t.Helper()
	f, err := os.Open(r.path(name + ".mem"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	g, err := nullengine.VerifyMemory(f)
	if err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
	return g
}

func (r *rig) blocks(name string) int64 {
	r.t.Helper()
	var st unix.Stat_t
	r.ok(unix.Stat(r.path(name+".mem"), &st))
	return st.Blocks * 512
}

// ticks waits until the guest has printed that many ticks.
func (r *rig) ticks(n int) {
	r.t.Helper()
	wait(r.t, func() bool { b, _ := os.ReadFile(r.out); return bytes.Count(b, []byte("null guest: tick ")) >= n })
}

func (r *rig) ended() fcemu.End {
	r.t.Helper()
	select {
	case e := <-r.Ended():
		return e
	case <-time.After(patience):
		r.t.Fatal("the guest does not end")
		return fcemu.End{}
	}
}

func TestASnapshotHasThePatternsOfTheGuestAndCanBeLoadedManyTimes(t *testing.T) {
	t.Parallel()
	r := newRig(t, "fcemu.seed=7 fcemu.pages=50 fcemu.console=lines:0:1000 fcemu.rewrite=3", nullengine.Options{})
	r.start()
	r.ticks(20)
	r.ok(r.Pause(t.Context()))
	r.snapshot("Full", "full")
	g := r.verify("full")
	if g.Seed != 7 || g.Pages != 50 || g.Ticks == 0 || g.Rewrites != 3*g.Ticks {
		t.Errorf("guest %+v", g)
	}
	before, err := os.ReadFile(r.path("full.mem"))
	r.ok(err)
	for i := range 3 {
		c, err := r.clone("full", fcemu.MemBackend{})
		r.ok(err)
		r.ok(c.Resume(t.Context()))
		time.Sleep(time.Duration(5*i) * time.Millisecond)
		r.ok(c.Pause(t.Context()))
		c.snapshot("Full", "again")
		if got := c.verify("again"); got.Ticks < g.Ticks || got.Uptime <= g.Uptime || got.Seed != 7 {
			t.Errorf("clone %+v of %+v", got, g)
		}
	}
	after, err := os.ReadFile(r.path("full.mem"))
	r.ok(err)
	if !bytes.Equal(before, after) {
		t.Error("a clone has changed the memory file")
	}
}

func TestAFirstDiffHoldsWhatIsResidentAndEqualsAFull(t *testing.T) {
	t.Parallel()
	r := newRig(t, "fcemu.pages=40", nullengine.Options{})
	r.start()
	r.ok(r.Pause(t.Context()))
	r.snapshot("Diff", "diff")
	if n := r.blocks("diff"); n < 41*nullengine.PageSize || n > 1<<20 {
		t.Errorf("a Diff of 41 pages takes %d bytes", n)
	}
	r.snapshot("Full", "full")
	if n := r.blocks("full"); n < 4<<20 {
		t.Errorf("a Full of 4 MiB takes %d bytes", n)
	}
	a, err := os.ReadFile(r.path("diff.mem"))
	r.ok(err)
	b, err := os.ReadFile(r.path("full.mem"))
	r.ok(err)
	if !bytes.Equal(a, b) {
		t.Error("Diff and Full differ")
	}
}

func TestATrackedDiffHoldsWhatChangedSinceTheSnapshotBefore(t *testing.T) {
	t.Parallel()
	r := newRig(t, "fcemu.pages=100 fcemu.console=lines:0:1000 fcemu.rewrite=1", nullengine.Options{})
	r.cfg.Machine.TrackDirtyPages = true
	r.start()
	r.ok(r.Pause(t.Context()))
	r.snapshot("Full", "base")
	r.snapshot("Diff", "none")
	if n := r.blocks("none"); n != 0 {
		t.Errorf("a Diff of nothing takes %d bytes", n)
	}
	r.ok(r.Resume(t.Context()))
	r.ticks(150)
	r.ok(r.Pause(t.Context()))
	// Over a copy of its base a Diff completes it.
	r.snapshot("Diff", "base")
	if g := r.verify("base"); g.Ticks == 0 {
		t.Errorf("guest %+v", g)
	}
}

func TestAGarbledMemoryIsLoadedAndItsGuestDies(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", nullengine.Options{})
	r.start()
	r.ok(r.Pause(t.Context()))
	r.snapshot("Full", "s")
	r.ok(os.WriteFile(r.path("s.mem"), make([]byte, 4<<20), 0o644))
	c, err := r.clone("s", fcemu.MemBackend{})
	r.ok(err)
	r.ok(c.Resume(t.Context()))
	if e := c.ended(); e.ExitCode != 1 {
		t.Errorf("end %+v", e)
	}
	r.ok(os.Truncate(r.path("s.mem"), 1<<20))
	if _, err := r.clone("s", fcemu.MemBackend{}); err == nil {
		t.Error("a short memory file was loaded")
	}
}

func TestAMemoryPathThatFailsLeavesTheStateFileAndTheGuest(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", nullengine.Options{})
	r.start()
	r.ok(r.Pause(t.Context()))
	err := r.CreateSnapshot(t.Context(), r.cfg, fcemu.SnapshotCreate{SnapshotType: "Full", SnapshotPath: r.path("s.state"), MemFilePath: r.path("no/mem")})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(r.path("s.state")); err != nil {
		t.Errorf("the state file: %v", err)
	}
	r.snapshot("Full", "s")
	r.verify("s")
}

func TestEachCommandHasItsRangeAndUnknownOnesAreRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"fcemu.nope", "fcemu.pages=-1", "fcemu.tick=0s", "fcemu.tick=x", "fcemu.console=5", "fcemu.console=lines:x:1", "fcemu.reboot_after=-1s", "fcemu.vsock_dial=4294967296", "panic=x"} {
		if _, err := nullengine.ParseCommands("quiet " + bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	c, err := nullengine.ParseCommands("reboot=t fcemu.dirty=2 fcemu.console=lines:10:1000 -- fcemu.nope")
	if err != nil || c.Pages != 512 || c.Lines != 10 || c.Tick != time.Millisecond || c.RebootCode != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	r := newRig(t, "fcemu.pages=100000", nullengine.Options{})
	r.attach("boot-source", "")
	if err := r.Start(t.Context(), r.cfg); err == nil {
		t.Error("100000 pages fit into 4 MiB")
	}
	r.cfg.BootSource.BootArgs = ptr("")
	r.ok(r.Start(t.Context(), r.cfg))
}

func TestAFloodOfTheConsoleIsCountedAndWhatNobodyTakesIsDropped(t *testing.T) {
	t.Parallel()
	r := newRig(t, "fcemu.console=lines:300:0", nullengine.Options{})
	r.start()
	r.ticks(300)

	// A pipe that nobody reads.
	f := newRig(t, "fcemu.console=lines:0:0", nullengine.Options{})
	var fds [2]int
	f.ok(unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	f.open(nullengine.Options{EngineOptions: fcemu.EngineOptions{Stdin: -1, Stdout: fds[1]}})
	f.start()
	wait(t, func() bool { return f.Counters()["uart.missed_write_count"] > 0 })
	f.ok(f.Pause(t.Context()))
}

func wait(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestTheGuestEchoesItsConsoleWhileItRuns(t *testing.T) {
	t.Parallel()
	r := newRig(t, "fcemu.echo", nullengine.Options{})
	in, w, err := os.Pipe()
	r.ok(err)
	defer in.Close()
	defer w.Close()
	out, err := os.Create(r.path("out2"))
	r.ok(err)
	defer out.Close()
	r.open(nullengine.Options{EngineOptions: fcemu.EngineOptions{Stdin: int(in.Fd()), Stdout: int(out.Fd())}})
	r.start()
	_, err = io.WriteString(w, "hello guest\n")
	r.ok(err)
	wait(t, func() bool { b, _ := os.ReadFile(r.path("out2")); return strings.Contains(string(b), "hello guest\n") })
}

func TestADiskWriterWritesToTheDriveThatIsPatchedIn(t *testing.T) {
	t.Parallel()
	r := newRig(t, "fcemu.disk_writer=d fcemu.tick=1ms", nullengine.Options{})
	for _, name := range []string{"a", "b"} {
		r.ok(os.WriteFile(r.path(name), make([]byte, 4096), 0o644))
	}
	r.cfg.Drives = []fcemu.Drive{{DriveID: "d", PathOnHost: ptr(r.path("a"))}}
	r.start()
	written := func(name string) func() bool {
		return func() bool { b, _ := os.ReadFile(r.path(name)); return bytes.Contains(b, []byte("FCEMUPG1")) }
	}
	wait(t, written("a"))
	r.cfg.Drives[0].PathOnHost = ptr(r.path("b"))
	r.ok(r.Update(t.Context(), r.cfg, "drives", "d"))
	wait(t, written("b"))
}

func TestTheBalloonTakesNoPageThatTheGuestUses(t *testing.T) {
	t.Parallel()
	r := newRig(t, "fcemu.pages=600", nullengine.Options{})
	r.cfg.Balloon = &fcemu.Balloon{AmountMiB: 4, StatsPollingIntervalS: 1}
	r.attach("balloon", "")
	r.start()
	st, err := r.BalloonStats(t.Context())
	r.ok(err)
	if st.TargetPages != 1024 || st.ActualPages != 1024-nullengine.FirstPage-600 {
		t.Errorf("%+v", st)
	}
	r.cfg.Balloon.AmountMiB = 0
	r.ok(r.Update(t.Context(), r.cfg, "balloon", ""))
	r.ok(r.Pause(t.Context()))
	r.snapshot("Full", "s")
	r.verify("s")
}

func TestClosingIsCleanAtEveryStage(t *testing.T) {
	t.Parallel()
	r := newRig(t, "fcemu.tick=1ms fcemu.rewrite=1 fcemu.console=lines:0:0", nullengine.Options{})
	r.open(nullengine.Options{}) // never started
	r.open(nullengine.Options{EngineOptions: fcemu.EngineOptions{Stdin: -1, Stdout: -1}})
	r.cfg.Vsock = &fcemu.Vsock{GuestCID: 3, UDSPath: r.path("v.sock")}
	r.attach("vsock", "")
	r.start()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			c, err := net.Dial("unix", r.path("v.sock"))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if _, err := io.WriteString(c, "CONNECT 5\n"); err != nil {
				t.Error(err)
			}
			// Whatever the guest still says before it is closed.
			_, _ = io.Copy(io.Discard, c)
		})
	}
	wait(t, func() bool { return r.Counters()["vsock.conns_added"] == 20 })
	r.ok(r.Engine.Close())
	wg.Wait()
	r.Engine = nil
}
