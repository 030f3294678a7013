//go:build linux

package console

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// reader reads a file ahead of its cuts, and notes what it has read.
type reader struct {
	mu   sync.Mutex
	got  []byte
	step int64 // at most this much at a time; 0: all
	err  error
}

func (r *reader) read(f *os.File, cut int64) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return 0, r.err
	}
	n := cut - int64(len(r.got))
	if r.step > 0 {
		n = min(n, r.step)
	}
	b := make([]byte, max(n, 0))
	if _, err := f.ReadAt(b, int64(len(r.got))); err != nil {
		return 0, err
	}
	r.got = append(r.got, b...)
	return int64(len(r.got)), nil
}

func (r *reader) have() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func (r *reader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func TestWhatIsCutWasReadBefore(t *testing.T) {
	t.Parallel()
	const bound, total = 64 << 10, 4 << 20
	for _, step := range []int64{0, 100_000} {
		path, vmm := newConsole(t)
		r := &reader{step: step}
		if _, err := newKeeper(t).AddRead(path, bound, r.read); err != nil {
			t.Fatal(err)
		}
		for off := 0; off < total; off += 1024 {
			write(t, vmm, numbered(int64(off), 1024))
		}
		eventually(t, "the file is within its bound", func() bool { return onDisk(t, vmm) <= bound })
		first, err := dataFrom(vmm, 0)
		got := r.have()
		if err != nil || int64(len(got)) < first || !bytes.Equal(got, numbered(0, len(got))) {
			t.Errorf("step %d: %d bytes were cut and %d read; %v", step, first, len(got), err)
		}
	}
}

// The first look is the goroutine's: whoever adds many files does not wait.
func TestAFileThatGrewWhileNobodyWasThereIsReadBeforeItIsCut(t *testing.T) {
	t.Parallel()
	const bound, total = 64 << 10, 1 << 20
	path, vmm := newConsole(t)
	write(t, vmm, numbered(0, total))
	r := &reader{step: 90_000}
	if _, err := newKeeper(t).AddRead(path, bound, r.read); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file is within its bound", func() bool { return onDisk(t, vmm) <= bound })
	if got := r.have(); !bytes.Equal(got, numbered(0, len(got))) || len(got) < total-bound {
		t.Errorf("%d bytes read of %d", len(got), total)
	}
}

func TestAFileWhoseReaderFailsIsCutLater(t *testing.T) {
	t.Parallel()
	const bound = 64 << 10
	var log bytes.Buffer
	k, err := NewKeeper(slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	path, vmm := newConsole(t)
	r := &reader{err: errors.New("not now")}
	kept, err := k.AddRead(path, bound, r.read)
	if err != nil {
		t.Fatal(err)
	}
	write(t, vmm, numbered(0, bound+bound/2))
	// A look at it, by hand: nothing is cut, nothing reported.
	if cut, err := kept.check(); cut || err != nil || onDisk(t, vmm) < bound {
		t.Errorf("cut: %v, %v, %d bytes on disk", cut, err, onDisk(t, vmm))
	}
	r.fail(nil)
	write(t, vmm, numbered(bound+bound/2, 16))
	eventually(t, "it is cut", func() bool { return onDisk(t, vmm) <= bound })
	// A reader that never works again bounds nothing away.
	r.fail(errors.New("never again"))
	write(t, vmm, numbered(0, 4*bound))
	eventually(t, "it is cut all the same", func() bool { return onDisk(t, vmm) <= bound })
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "never again"); n != 1 || strings.Contains(log.String(), "not now") {
		t.Errorf("the log says\n%s", log.String())
	}
}

// What was there at the beginning is read to its end, however long that takes.
func TestAFileThatGrowsFasterThanItIsReadIsCutInTheEnd(t *testing.T) {
	t.Parallel()
	const bound = 64 << 10
	for grown, want := range map[int]bool{63 * bound: false, 65 * bound: true} {
		path, vmm := newConsole(t)
		write(t, vmm, numbered(0, 80*bound))
		r := &reader{step: 4096, err: errors.New("not yet")}
		kept, err := newKeeper(t).AddRead(path, bound, r.read)
		if err != nil {
			t.Fatal(err)
		}
		kept.mu.Lock() // hold the goroutine back
		write(t, vmm, numbered(80*bound, grown))
		st, err := stat(vmm)
		if err != nil {
			t.Fatal(err)
		}
		r.fail(nil)
		cut := cutAt(st, bound/2)
		may, err := kept.readAhead(st, cut)
		kept.mu.Unlock()
		if all := may == cut; all != want || (err != nil) != want {
			t.Errorf("grown by %d: %d of %d may be cut, %v", grown, may, cut, err)
		}
	}
}
