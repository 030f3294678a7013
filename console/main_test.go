//go:build linux

package console

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tangle-network/microvm/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

const patience = 20 * time.Second // for what should take milliseconds

// lineLen is the length of the lines that the tests write: what belongs at an
// offset can be told from the offset.
const lineLen = 16

// numbered returns n bytes of numbered lines, from offset off on.
func numbered(off int64, n int) []byte {
	line := fmt.Appendf(nil, "%015d\n", off/lineLen)
	b := make([]byte, 0, n+2*lineLen)
	for len(b) < n+lineLen {
		b = append(b, line...)
		i := lineLen - 2
		for ; line[i] == '9'; i-- {
			line[i] = '0'
		}
		line[i]++
	}
	return b[off%lineLen:][:n]
}

// newConsole makes a console file and opens it as a VMM would have it.
func newConsole(t *testing.T) (path string, vmm *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "console.log")
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return path, f
}

func write(t *testing.T, f *os.File, b []byte) {
	t.Helper()
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
}

func newKeeper(t *testing.T) *Keeper {
	t.Helper()
	k, err := NewKeeper(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func keep(t *testing.T, k *Keeper, path string, maxBytes int64) *Kept {
	t.Helper()
	kept, err := k.Add(path, maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

// onDisk is what a file occupies, in bytes.
func onDisk(t *testing.T, f *os.File) int64 {
	t.Helper()
	st, err := stat(f)
	if err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// eventually waits for something that no event tells.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never in %v: %s", patience, what)
		}
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
