package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

const page = 4096

// sparse makes a file of n pages of which only those given hold data.
func sparse(t *testing.T, path string, n int, pages map[int]byte) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(n) * page); err != nil {
		t.Fatal(err)
	}
	for i, b := range pages {
		if _, err := f.WriteAt(bytes.Repeat([]byte{b}, page), int64(i)*page); err != nil {
			t.Fatal(err)
		}
	}
}

// A page that the guest has zeroed since the base must become zero, and a page
// that it has not touched must stay.
func TestOverlayTakesZeroPagesAndLeavesHoles(t *testing.T) {
	t.Parallel()
	base, diff := filepath.Join(t.TempDir(), "base"), filepath.Join(t.TempDir(), "diff")
	sparse(t, base, 64, map[int]byte{1: 'a', 2: 'b', 40: 'c', 63: 'd'})
	sparse(t, diff, 64, map[int]byte{2: 0, 3: 'e', 63: 'f'})
	if err := Overlay(t.Context(), diff, base); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	want := map[int]byte{1: 'a', 3: 'e', 40: 'c', 63: 'f'}
	for i := range 64 {
		if !bytes.Equal(got[i*page:(i+1)*page], bytes.Repeat([]byte{want[i]}, page)) {
			t.Errorf("page %d begins with %q", i, got[i*page])
		}
	}
}

func TestOverlayRefusesADiffOfAnotherLength(t *testing.T) {
	t.Parallel()
	base, diff := filepath.Join(t.TempDir(), "base"), filepath.Join(t.TempDir(), "diff")
	sparse(t, base, 4, nil)
	sparse(t, diff, 5, nil)
	if err := Overlay(t.Context(), diff, base); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
}

func TestOverlayStopsWhenItsContextEnds(t *testing.T) {
	t.Parallel()
	base, diff := filepath.Join(t.TempDir(), "base"), filepath.Join(t.TempDir(), "diff")
	sparse(t, base, 4, nil)
	sparse(t, diff, 4, map[int]byte{0: 'a'})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Overlay(ctx, diff, base); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestTheDigestOfASparseFileIsThatOfItsBytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const pages = 3*ChunkBytes/page + 5
	sparse(t, filepath.Join(dir, "sparse"), pages, map[int]byte{600: 'x', pages - 1: 'y'})
	b, err := os.ReadFile(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "full"), b)
	one, err := digest(t.Context(), filepath.Join(dir, "sparse"), true)
	if err != nil {
		t.Fatal(err)
	}
	two, err := digest(t.Context(), filepath.Join(dir, "full"), true)
	if err != nil {
		t.Fatal(err)
	}
	if one.SHA256 != two.SHA256 || len(one.Chunks) != 4 {
		t.Errorf("%+v and %+v", one, two)
	}
}

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "snapshots-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	store, err := Open(dir)
	if err != nil {
		panic(err)
	}
	draft, err := store.Begin("5f3a", "before-upgrade")
	if err != nil {
		panic(err)
	}
	m, err := draft.Publish(context.Background(), Manifest{VMID: "web", Cold: true, Spec: []byte(`{}`)})
	if err != nil {
		panic(err)
	}
	names, err := store.Names("5f3a")
	if err != nil {
		panic(err)
	}
	fmt.Println(m.Name, names)
	// Output: before-upgrade [before-upgrade]
}
