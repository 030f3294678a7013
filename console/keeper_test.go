//go:build linux

package console

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A guest that prints without end must not fill the disk, and its last lines
// must be there.
func TestAFloodStaysWithinItsBoundOnDisk(t *testing.T) {
	const bound, total = 256 << 10, 16 << 20
	path, vmm := newConsole(t)
	keep(t, newKeeper(t), path, bound)
	stop := make(chan struct{})
	var watch sync.WaitGroup
	peak := int64(0)
	watch.Go(func() {
		for {
			st, err := stat(vmm)
			if err != nil {
				t.Error(err)
				return
			}
			peak = max(peak, st.Blocks*512)
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Microsecond):
			}
		}
	})
	piece := numbered(0, total)
	begin := time.Now()
	for off := 0; off < total; off += 16 * lineLen {
		write(t, vmm, piece[off:off+16*lineLen])
	}
	rate := float64(total) / (1 << 20) / time.Since(begin).Seconds()
	eventually(t, "the file is within its bound", func() bool { return onDisk(t, vmm) <= bound })
	close(stop)
	watch.Wait()
	t.Logf("%.0f MiB/s, at most %d KiB on disk", rate, peak>>10)
	if peak > total/4 {
		t.Errorf("%d bytes on disk with a bound of %d", peak, bound)
	}
	tail, err := Tail(path, -1, total)
	if err != nil || len(tail) < bound/2-lineLen || !bytes.HasSuffix(piece, tail) {
		t.Errorf("%d bytes are kept, the last lines are wrong or too few: %v", len(tail), err)
	}
}

func TestAddCutsAFileThatGrewWhileNobodyWasThere(t *testing.T) {
	t.Parallel()
	path, vmm := newConsole(t)
	write(t, vmm, numbered(0, 8<<20))
	keep(t, newKeeper(t), path, MinBound)
	if n := onDisk(t, vmm); n > MinBound {
		t.Errorf("%d bytes on disk", n)
	}
}

func TestAFileBelowItsBoundIsLeftAlone(t *testing.T) {
	t.Parallel()
	path, vmm := newConsole(t)
	keep(t, newKeeper(t), path, 1<<20)
	all := numbered(0, 700<<10)
	for off := 0; off < len(all); off += 10 << 10 {
		write(t, vmm, all[off:off+10<<10])
	}
	time.Sleep(3 * coalesce)
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, all) {
		t.Errorf("the file has changed: %v", err)
	}
}

// A VM that is renamed takes its console along.
func TestAFileIsKeptUnderWhateverName(t *testing.T) {
	t.Parallel()
	path, vmm := newConsole(t)
	keep(t, newKeeper(t), path, MinBound)
	renamed := path + ".renamed"
	if err := os.Rename(path, renamed); err != nil {
		t.Fatal(err)
	}
	// Another file in its place is not in care.
	other, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	write(t, vmm, numbered(0, 1<<20))
	write(t, other, numbered(0, 1<<20))
	eventually(t, "the renamed file is cut", func() bool { return onDisk(t, vmm) <= MinBound })
	if n := onDisk(t, other); n < 1<<20 {
		t.Errorf("the new file of the old name was cut to %d bytes", n)
	}
	if err := os.Remove(renamed); err != nil {
		t.Fatal(err)
	}
	write(t, vmm, numbered(0, 1<<20))
	eventually(t, "the removed file is cut", func() bool { return onDisk(t, vmm) <= MinBound })
}

func TestManyFilesAreKeptAtOnce(t *testing.T) {
	k := newKeeper(t)
	var wg sync.WaitGroup
	for range 8 {
		path, vmm := newConsole(t)
		keep(t, k, path, MinBound)
		wg.Go(func() {
			for off := int64(0); off < 256<<10; off += 4 << 10 {
				if _, err := vmm.Write(numbered(off, 4<<10)); err != nil {
					t.Error(err)
					return
				}
			}
			for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
				st, err := stat(vmm)
				if err != nil {
					t.Error(err)
					return
				}
				if st.Blocks*512 <= MinBound {
					return
				}
				if time.Now().After(end) {
					t.Errorf("%d bytes on disk", st.Blocks*512)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestKeptCloseEndsTheCare(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	path, vmm := newConsole(t)
	kept := keep(t, k, path, MinBound)
	kept.Close()
	kept.Close()
	write(t, vmm, numbered(0, 1<<20))
	time.Sleep(3 * coalesce)
	if n := onDisk(t, vmm); n < 1<<20 {
		t.Errorf("cut to %d bytes", n)
	}
	again := keep(t, k, path, MinBound)
	if n := onDisk(t, vmm); n > MinBound {
		t.Errorf("taken into care again: %d bytes on disk", n)
	}
	again.Close()
}

func TestAddRefusesWhatItCannotKeep(t *testing.T) {
	t.Parallel()
	k := newKeeper(t)
	path, _ := newConsole(t)
	if _, err := k.Add(path, MinBound-1); err == nil || !strings.Contains(err.Error(), "65535") || !strings.Contains(err.Error(), "65536") {
		t.Errorf("a bound that is too small: %v", err)
	}
	keep(t, k, path, MinBound)
	link := path + ".link"
	if err := os.Link(path, link); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, link} {
		if _, err := k.Add(p, MinBound); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("%s twice: %v", p, err)
		}
	}
}

func TestAClosedKeeperLeavesNothingOpen(t *testing.T) {
	before := openDescriptors(t)
	k, err := NewKeeper(nil)
	if err != nil {
		t.Fatal(err)
	}
	path, vmm := newConsole(t)
	kept := keep(t, k, path, MinBound)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := k.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	kept.Close()
	if _, err := k.Add(path, MinBound); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Add after Close: %v", err)
	}
	vmm.Close()
	eventually(t, "as many descriptors as before", func() bool { return openDescriptors(t) <= before })
}

func TestAddAndCloseOfManyAtOnce(t *testing.T) {
	k, err := NewKeeper(nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 16 {
		path, vmm := newConsole(t)
		wg.Go(func() {
			for off := int64(0); ; off += 1 << 10 {
				kept, err := k.Add(path, MinBound)
				if errors.Is(err, os.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := vmm.Write(numbered(off, 1<<10)); err != nil {
					t.Error(err)
				}
				kept.Close()
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	if err := k.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func TestAFailureIsReportedOnceForEachFile(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var logged bytes.Buffer
	k, err := NewKeeper(slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return logged.Write(p)
	}), nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	path, vmm := newConsole(t)
	kept := keep(t, k, path, MinBound)
	kept.file.Close() // as if the file could not be read any more
	text := func() string {
		mu.Lock()
		defer mu.Unlock()
		return logged.String()
	}
	for range 5 {
		write(t, vmm, []byte("line\n"))
		time.Sleep(2 * coalesce)
	}
	eventually(t, "the failure is reported", func() bool { return strings.Contains(text(), path) })
	if n := strings.Count(text(), "\n"); n != 1 {
		t.Errorf("reported %d times:\n%s", n, text())
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestFilesInADirectoryNeedNoDescriptorOfTheirOwn(t *testing.T) {
	path, vmm := newConsole(t)
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	k := newKeeper(t)
	before := openDescriptors(t)
	kept, err := k.AddIn(dir, filepath.Base(path), MinBound, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	if n := openDescriptors(t) - before; n != 0 {
		t.Errorf("%d descriptors", n)
	}
	write(t, vmm, numbered(0, 1<<20))
	eventually(t, "the file is cut", func() bool { return onDisk(t, vmm) <= MinBound })
	// A VM is renamed by its directory.
	moved := filepath.Dir(path) + ".moved"
	if err := os.Rename(filepath.Dir(path), moved); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(moved) })
	write(t, vmm, numbered(0, 1<<20))
	eventually(t, "the file is cut in its renamed directory", func() bool { return onDisk(t, vmm) <= MinBound })
	// What takes its place is another file, and not in care.
	moved = filepath.Join(moved, filepath.Base(path))
	if err := os.Remove(moved); err != nil {
		t.Fatal(err)
	}
	other, err := Create(moved)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	write(t, other, numbered(0, 1<<20))
	write(t, vmm, []byte("an event\n"))
	time.Sleep(3 * coalesce)
	if n := onDisk(t, other); n < 1<<20 {
		t.Errorf("the new file of the old name was cut to %d bytes", n)
	}
	if n := openDescriptors(t) - before; n != 1 { // that of the other file
		t.Errorf("%d descriptors in the end", n)
	}
}

func TestAddInRefusesWhatItCannotKeep(t *testing.T) {
	t.Parallel()
	path, _ := newConsole(t)
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := os.Symlink(path, filepath.Join(dir.Name(), "link")); err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t)
	for _, name := range []string{"", ".", "..", "../x", "link", "missing", filepath.Base(dir.Name()) + "/x"} {
		if kept, err := k.AddIn(dir, name, MinBound, nil); err == nil {
			kept.Close()
			t.Errorf("%q is kept", name)
		}
	}
	if _, err := k.AddIn(dir, "missing", MinBound, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := k.AddIn(dir, filepath.Base(path), 1, nil); err == nil {
		t.Error("a bound of 1 byte is taken")
	}
}
