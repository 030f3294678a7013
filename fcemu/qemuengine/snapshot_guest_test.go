//go:build linux

package qemuengine

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm/fcemu"
)

// nextTick waits for a whole line of the guest's counter.
func (g *guest) nextTick() int {
	g.t.Helper()
	g.expect("\ntick ")
	ctx := testContext(g.t)
	for {
		if line, _, ok := strings.Cut(g.console.text(), "\n"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				g.t.Fatalf("counter: %v", err)
			}
			return n
		}
		select {
		case <-g.console.grown:
		case <-ctx.Done():
			g.t.Fatal("half a line of the counter")
		}
	}
}

func (g *guest) mustPause() {
	g.t.Helper()
	if err := g.Pause(testContext(g.t)); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) mustResume() {
	g.t.Helper()
	if err := g.Resume(testContext(g.t)); err != nil {
		g.t.Fatal(err)
	}
}

// snapshot writes a snapshot of a paused guest into dir.
func (g *guest) snapshot(kind, dir string) fcemu.SnapshotLoad {
	g.t.Helper()
	began := time.Now()
	p := fcemu.SnapshotCreate{SnapshotType: kind, SnapshotPath: filepath.Join(dir, "state"), MemFilePath: filepath.Join(dir, "memory")}
	if err := g.CreateSnapshot(testContext(g.t), g.cfg, p); err != nil {
		g.t.Fatal(err)
	}
	g.t.Logf("%s snapshot in %v", kind, time.Since(began))
	return fcemu.SnapshotLoad{SnapshotPath: p.SnapshotPath, MemBackend: fcemu.MemBackend{BackendType: "File", BackendPath: p.MemFilePath}}
}

// restore loads a snapshot into a new engine, with a root disk of its own.
func restore(t *testing.T, p fcemu.SnapshotLoad, root string) *guest {
	t.Helper()
	g := newGuest(t, t.TempDir())
	st, err := fcemu.OpenState(p.SnapshotPath)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	g.cfg = &st.Config
	if root != "" {
		own := filepath.Join(g.dir, "rootfs.ext4")
		b, err := os.ReadFile(root)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(own, b, 0o600); err != nil {
			t.Fatal(err)
		}
		g.cfg.Drives[0].PathOnHost = &own
	}
	began := time.Now()
	if err := g.LoadSnapshot(testContext(t), g.cfg, p, st.Blob); err != nil {
		t.Fatal(err)
	}
	t.Logf("loaded in %v", time.Since(began))
	return g
}

func fileSum(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func blocks(t *testing.T, path string) (size, allocated int64) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size(), st.Sys().(*syscall.Stat_t).Blocks * 512
}

// One boot serves many questions: it is what costs time here.
func TestSnapshotsAndClones(t *testing.T) {
	t.Parallel()
	files := guestFiles(t)
	g := newGuest(t, t.TempDir())
	g.boot(bootConfig(t, files, g.dir))
	g.typeLine("echo in-memory > /tmp/kept; echo kept'': yes")
	g.expect("kept: yes")
	before := g.nextTick()
	g.mustPause()
	full := g.snapshot("Full", t.TempDir())
	// A second one without a run in between.
	diff := g.snapshot("Diff", t.TempDir())

	size := g.vm.memSize
	if n, on := blocks(t, full.MemBackend.BackendPath); n != size || on < size {
		t.Errorf("Full memory file: %d bytes, %d on disk; want %d, fully allocated", n, on, size)
	}
	if n, on := blocks(t, diff.MemBackend.BackendPath); n != size || on >= size {
		t.Errorf("Diff memory file: %d bytes, %d on disk; want %d, sparse", n, on, size)
	}
	if fileSum(t, full.MemBackend.BackendPath) != fileSum(t, diff.MemBackend.BackendPath) {
		t.Error("the first Diff differs from the Full")
	}
	sums := func() [2]string {
		return [2]string{fileSum(t, full.SnapshotPath), fileSum(t, full.MemBackend.BackendPath)}
	}
	wantSums := sums()
	disk := filepath.Join(t.TempDir(), "disk")
	b, err := os.ReadFile(*g.cfg.Drives[0].PathOnHost)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(disk, b, 0o600); err != nil {
		t.Fatal(err)
	}

	// The guest goes on as if nothing had been.
	g.mustResume()
	after := g.nextTick()
	if after <= before || after > before+20 {
		t.Errorf("counter after the snapshot: %d, before: %d", after, before)
	}
	g.mustPause()

	// Two clones at once, each with the counter and the files of the moment.
	var clones [2]*guest
	var wg sync.WaitGroup
	for i := range clones {
		wg.Go(func() { clones[i] = restore(t, full, disk) })
	}
	wg.Wait()
	for _, c := range clones {
		if c == nil {
			t.FailNow()
		}
		c.mustResume()
	}
	for _, c := range clones {
		if n := c.nextTick(); n <= before || n > before+20 {
			t.Errorf("counter of a clone: %d, at the snapshot: %d", n, before)
		}
		c.typeLine("cat /tmp/kept; touch /new && sync && echo wrote''-it")
		c.expect("in-memory")
		c.expect("wrote-it")
	}
	if got := sums(); got != wantSums {
		t.Error("the clones changed the snapshot's files")
	}

	// A clone's own snapshot, a Diff onto a copy of its base, after the base is gone.
	c := clones[0]
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = clones[1]
	c.typeLine("echo second > /tmp/kept; echo changed'': yes")
	c.expect("changed: yes")
	second := c.nextTick()
	c.mustPause()
	dir := t.TempDir()
	if err := os.Rename(full.MemBackend.BackendPath, filepath.Join(dir, "memory")); err != nil {
		t.Fatal(err)
	}
	merged := c.snapshot("Diff", dir)
	whole := c.snapshot("Full", t.TempDir())
	if fileSum(t, merged.MemBackend.BackendPath) != fileSum(t, whole.MemBackend.BackendPath) {
		t.Error("a Diff written over its base is not the whole memory")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	d := restore(t, merged, *c.cfg.Drives[0].PathOnHost)
	d.mustResume()
	if n := d.nextTick(); n <= second || n > second+20 {
		t.Errorf("counter of the clone's clone: %d, at the snapshot: %d", n, second)
	}
	d.typeLine("cat /tmp/kept; reboot -f")
	d.expect("second")
	if end := d.end(); end.ExitCode != 0 {
		t.Errorf("end of a clone = %+v, want exit code 0", end)
	}
}
