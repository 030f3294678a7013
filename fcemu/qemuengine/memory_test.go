//go:build linux

package qemuengine

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// memoryWith is a memory of size bytes with a few pages filled.
func memoryWith(t *testing.T, size int64, pages ...int64) *os.File {
	t.Helper()
	m, err := newMemory(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	for _, p := range pages {
		if _, err := m.WriteAt(bytes.Repeat([]byte{byte(p) + 1}, pageSize), p*pageSize); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func contents(t *testing.T, f *os.File, size int64) []byte {
	t.Helper()
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMemorySurvivesTheFile(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	mem := memoryWith(t, size, 0, 1, 300, 1023)
	for _, full := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "memory")
		// An old, longer file is cut; what a Full does not write is zero.
		old := make([]byte, size+5)
		if full {
			rand.NewChaCha8([32]byte{}).Read(old)
		}
		if err := os.WriteFile(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := saveMemory(t.Context(), mem, size, path, full); err != nil {
			t.Fatal(err)
		}
		saved, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(saved, contents(t, mem, size)) {
			t.Errorf("full %v: the file is not the memory", full)
		}
		back := memoryWith(t, size)
		if err := loadMemory(t.Context(), back, size, path); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(contents(t, back, size), saved) {
			t.Errorf("full %v: the memory is not the file", full)
		}
		st, err := os.Stat(handPath(back))
		if err != nil {
			t.Fatal(err)
		}
		if used := blocksOf(st); used > 4*pageSize {
			t.Errorf("full %v: 4 pages became %d bytes of memory", full, used)
		}
	}
}

func TestMemoryCopyHonoursItsContext(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	mem := memoryWith(t, size, 0, 5)
	path := filepath.Join(t.TempDir(), "memory")
	if err := saveMemory(t.Context(), mem, size, path, true); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := saveMemory(ctx, mem, size, path, true); !errors.Is(err, context.Canceled) {
		t.Errorf("save: %v", err)
	}
	if err := loadMemory(ctx, memoryWith(t, size), size, path); !errors.Is(err, context.Canceled) {
		t.Errorf("load: %v", err)
	}
}

func TestMemoryFileThatCannotBeOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	short := filepath.Join(dir, "short")
	if err := os.WriteFile(short, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{short, dir, "/dev/zero", filepath.Join(dir, "missing")} {
		if err := loadMemory(t.Context(), memoryWith(t, pageSize), pageSize, path); err == nil {
			t.Errorf("%s was taken", path)
		}
	}
}
