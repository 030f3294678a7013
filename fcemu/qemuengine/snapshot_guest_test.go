//go:build linux

package qemuengine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm/fcemu"
)

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

// restore loads a snapshot into a new engine, in a network namespace of its
// own and with its own copy of the root disk, if one is named.
func restore(t *testing.T, p fcemu.SnapshotLoad, root string) *guest {
	t.Helper()
	g := newGuest(t)
	st, err := fcemu.OpenState(p.SnapshotPath)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	g.cfg = &st.Config
	if root != "" {
		own := copyFile(t, root, filepath.Join(g.dir, "rootfs.ext4"))
		g.cfg.Drives[0].PathOnHost = &own
	}
	if len(g.cfg.NetworkInterfaces) > 0 {
		if g.net, err = newNamespace(t); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	err = g.net.do(func() error { return g.LoadSnapshot(testContext(t), g.cfg, p, st.Blob) })
	if err != nil {
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
	return st.Size(), blocksOf(st)
}

func blocksOf(st os.FileInfo) int64 { return st.Sys().(*syscall.Stat_t).Blocks * 512 }

// golden is a snapshot of a guest at its shell, for clones.
type golden struct {
	load fcemu.SnapshotLoad
	disk string // the root disk of the moment
	tick int
	sums [2]string
}

// takeGolden compares Full and Diff on the way; the guest goes on and is closed.
func takeGolden(g *guest) *golden {
	t := g.t
	g.shell("echo in-memory > /tmp/kept; sync; echo kept'': yes", "kept: yes")
	s := &golden{tick: g.nextTick()}
	g.mustPause()
	s.load = g.snapshot("Full", t.TempDir())
	// A second one without a run in between.
	diff := g.snapshot("Diff", t.TempDir())
	full := s.load.MemBackend.BackendPath
	size := g.vm.memSize
	if n, on := blocks(t, full); n != size || on < size {
		t.Errorf("Full memory file: %d bytes, %d on disk; want %d, fully allocated", n, on, size)
	}
	if n, on := blocks(t, diff.MemBackend.BackendPath); n != size || on >= size {
		t.Errorf("Diff memory file: %d bytes, %d on disk; want %d, sparse", n, on, size)
	}
	if fileSum(t, full) != fileSum(t, diff.MemBackend.BackendPath) {
		t.Error("the first Diff differs from the Full")
	}
	s.disk = copyFile(t, *g.cfg.Drives[0].PathOnHost, filepath.Join(t.TempDir(), "disk"))
	s.sums = s.sum(t)

	// What fails leaves the guest as it was, and the state file behind.
	bad := fcemu.SnapshotCreate{SnapshotPath: filepath.Join(t.TempDir(), "state"), MemFilePath: "/nowhere/memory"}
	if err := g.CreateSnapshot(testContext(t), g.cfg, bad); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("memory into a missing directory: %v, want %v", err, os.ErrNotExist)
	}
	if _, err := os.Stat(bad.SnapshotPath); err != nil {
		t.Errorf("the state file is gone after that: %v", err)
	}
	g.mustResume()
	if err := g.CreateSnapshot(testContext(t), g.cfg, bad); err == nil {
		t.Error("a running guest was saved")
	}
	if n := g.nextTick(); n <= s.tick || n > s.tick+20 {
		t.Errorf("counter after the snapshot: %d, before: %d", n, s.tick)
	}
	g.close()
	return s
}

func (s *golden) sum(t *testing.T) [2]string {
	return [2]string{fileSum(t, s.load.SnapshotPath), fileSum(t, s.load.MemBackend.BackendPath)}
}

func (s *golden) checkUntouched(t *testing.T) {
	if s.sum(t) != s.sums {
		t.Error("the clones changed the snapshot's files")
	}
}

func (s *golden) clone(t *testing.T) *guest {
	t.Helper()
	return restore(t, s.load, s.disk)
}

// Two clones at once, each with the counter, the files and the network of the
// moment; then a clone of a clone.
func testClones(t *testing.T, s *golden) {
	var clones [2]*guest
	var wg sync.WaitGroup
	for i := range clones {
		wg.Go(func() { clones[i] = s.clone(t) })
	}
	wg.Wait()
	for _, c := range clones {
		if c == nil {
			t.FailNow()
		}
		c.mustResume()
	}
	for _, c := range clones {
		if n := c.nextTick(); n <= s.tick || n > s.tick+20 {
			t.Errorf("counter of a clone: %d, at the snapshot: %d", n, s.tick)
		}
		c.shell("cat /tmp/kept; touch /new && sync && echo wrote''-it", "in-memory")
		c.expect("wrote-it")
		if c.net != nil {
			testPing(c)
		}
	}

	// A clone's own snapshot: a Diff onto a copy of its base, whose name is gone.
	clones[0].close()
	c := clones[1]
	c.shell("echo second > /tmp/kept; echo changed'': yes", "changed: yes")
	tick := c.nextTick()
	c.mustPause()
	dir := t.TempDir()
	copyFile(t, s.load.MemBackend.BackendPath, filepath.Join(dir, "memory"))
	merged := c.snapshot("Diff", dir)
	whole := c.snapshot("Full", t.TempDir())
	if fileSum(t, merged.MemBackend.BackendPath) != fileSum(t, whole.MemBackend.BackendPath) {
		t.Error("a Diff written over its base is not the whole memory")
	}
	c.close()
	d := newGuest(t)
	st, err := fcemu.OpenState(merged.SnapshotPath)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	d.cfg, d.net = &st.Config, c.net
	d.cfg.Serial = &fcemu.Serial{SerialOutPath: ptr(filepath.Join(d.dir, "serial"))}
	err = d.net.do(func() error { return d.LoadSnapshot(testContext(t), d.cfg, merged, st.Blob) })
	if err != nil {
		t.Fatal(err)
	}
	d.mustResume()
	want := fmt.Sprintf("tick %d", tick+2)
	until(d, want+" in the file of the serial port", func() bool {
		b, err := os.ReadFile(*d.cfg.Serial.SerialOutPath)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(b), want)
	})
}

// A snapshot that can't be loaded is an error, and nothing is left of it.
func testBadSnapshots(t *testing.T, s *golden) {
	st, err := fcemu.OpenState(s.load.SnapshotPath)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	blob, err := io.ReadAll(st.Blob)
	if err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		blob string
		edit func(*fcemu.Config, *fcemu.SnapshotLoad)
		want string
	}{
		{"CutStream", t.Context(), string(blob[:len(blob)/2]), nil, "load the devices"},
		{"NoHeader", t.Context(), "", nil, "engine's state"},
		{"OtherAccelerator", t.Context(), `{"accelerator":"hvf"}` + "\n", nil, "hvf"},
		{"OtherQEMU", t.Context(), strings.Replace(string(blob), `"qemu":"`, `"qemu":"0.`, 1), nil, "QEMU 0."},
		{"ShortMemory", t.Context(), string(blob), func(_ *fcemu.Config, p *fcemu.SnapshotLoad) { p.MemBackend.BackendPath = short }, "5 bytes"},
		{"MissingMemory", t.Context(), string(blob), func(_ *fcemu.Config, p *fcemu.SnapshotLoad) { p.MemBackend.BackendPath += ".no" }, "no such file"},
		{"MissingDisk", t.Context(), string(blob), func(cfg *fcemu.Config, _ *fcemu.SnapshotLoad) { cfg.Drives[0].PathOnHost = ptr("/nowhere/disk") }, "/nowhere/disk"},
		{"OtherDevices", t.Context(), string(blob), func(cfg *fcemu.Config, _ *fcemu.SnapshotLoad) { cfg.Entropy = nil }, "load the devices"},
		{"Uffd", t.Context(), string(blob), func(_ *fcemu.Config, p *fcemu.SnapshotLoad) { p.MemBackend.BackendType = "Uffd" }, "Uffd"},
		{"ClockRealtime", t.Context(), string(blob), func(_ *fcemu.Config, p *fcemu.SnapshotLoad) { p.ClockRealtime = true }, "clock_realtime"},
		{"CancelledContext", cancelled, string(blob), nil, "canceled"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newGuest(t)
			cfg, p := st.Config, s.load
			cfg.Drives = append([]fcemu.Drive(nil), cfg.Drives...)
			if c.edit != nil {
				c.edit(&cfg, &p)
			}
			if len(cfg.NetworkInterfaces) > 0 {
				var err error
				if g.net, err = newNamespace(t); err != nil {
					t.Fatal(err)
				}
			}
			err := g.net.do(func() error { return g.LoadSnapshot(c.ctx, &cfg, p, strings.NewReader(c.blob)) })
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}
