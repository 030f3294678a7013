package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const uid = "00ff"

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// publish makes a warm snapshot with one disk.
func publish(t *testing.T, s *Store, name string) Manifest {
	t.Helper()
	d, err := s.Begin(uid, name)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(d.Dir, StateFile), []byte("state"))
	write(t, filepath.Join(d.Dir, MemoryFile), bytes.Repeat([]byte("memory"), 1<<20))
	write(t, filepath.Join(d.Dir, DiskDir, "rootfs.ext4"), []byte("disk"))
	m, err := d.Publish(t.Context(), Manifest{
		VMID: "a", Spec: json.RawMessage(`{}`),
		Disks: []Disk{{ID: "rootfs", File: "rootfs.ext4"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func names(t *testing.T, s *Store) []string {
	t.Helper()
	n, err := s.Names(uid)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

func TestASnapshotIsSeenOnlyAfterPublish(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	d, err := s.Begin(uid, "one")
	if err != nil {
		t.Fatal(err)
	}
	if n := names(t, s); len(n) != 0 {
		t.Fatalf("a draft is listed: %v", n)
	}
	if _, _, err := s.Manifest(uid, filepath.Base(d.Dir)); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a draft has a manifest: %v", err)
	}
	if err := d.Abort(); err != nil {
		t.Fatal(err)
	}
	want := publish(t, s, "one")
	got, dir, err := s.Manifest(uid, "one")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what was published and what is read differ:\n%s", diff)
	}
	if dir != filepath.Join(s.dir, uid, "one") {
		t.Errorf("it lies in %s", dir)
	}
	if got.Memory.Size != 6<<20 || len(got.Memory.Chunks) != 3 {
		t.Errorf("memory of 6 MiB is %d bytes in %d chunks", got.Memory.Size, len(got.Memory.Chunks))
	}
}

func TestNamesComeInTheOrderOfCreation(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	for _, n := range []string{"z", "a", "m"} {
		publish(t, s, n)
	}
	if err := s.Delete(uid, "a"); err != nil {
		t.Fatal(err)
	}
	publish(t, s, "b")
	if diff := cmp.Diff([]string{"z", "m", "b"}, names(t, s)); diff != "" {
		t.Error(diff)
	}
}

func TestANameIsTakenOnce(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	d, err := s.Begin(uid, "one")
	if err != nil {
		t.Fatal(err)
	}
	publish(t, s, "one") // meanwhile, by another program
	if _, err := d.Publish(t.Context(), Manifest{Cold: true, Spec: json.RawMessage(`{}`)}); !errors.Is(err, ErrExists) {
		t.Fatalf("publish over a snapshot: %v", err)
	}
	if err := d.Abort(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(uid, "one"); !errors.Is(err, ErrExists) {
		t.Fatalf("begin with a used name: %v", err)
	}
}

func TestDeleteLeavesNothing(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	publish(t, s, "one")
	if err := s.Delete(uid, "one"); err != nil {
		t.Fatal(err)
	}
	if left := entries(t, s.dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if err := s.Delete(uid, "one"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a second delete: %v", err)
	}
}

func TestSweepRemovesWhatACrashHasLeftAndNothingElse(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	publish(t, s, "one")
	if _, err := s.Begin(uid, "two"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, uid, gonePrefix+"x", "old"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(uid); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"one"}, entries(t, filepath.Join(s.dir, uid))); diff != "" {
		t.Error(diff)
	}
	if err := s.Sweep("aa"); err != nil {
		t.Errorf("sweep of a VM without snapshots: %v", err)
	}
}

func TestCheckFindsWhatWasChanged(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string)
		quick  bool // found without reading everything
	}{
		"a bit of the state": {func(t *testing.T, d string) { write(t, filepath.Join(d, StateFile), []byte("stath")) }, true},
		"a cut memory": {func(t *testing.T, d string) {
			if err := os.Truncate(filepath.Join(d, MemoryFile), 1<<20); err != nil {
				t.Fatal(err)
			}
		}, true},
		"a missing disk": {func(t *testing.T, d string) {
			if err := os.Remove(filepath.Join(d, DiskDir, "rootfs.ext4")); err != nil {
				t.Fatal(err)
			}
		}, true},
		"a link in place of the disk": {func(t *testing.T, d string) {
			p := filepath.Join(d, DiskDir, "rootfs.ext4")
			if err := errors.Join(os.Remove(p), os.Symlink("/etc/hostname", p)); err != nil {
				t.Fatal(err)
			}
		}, true},
		"a bit of the disk": {func(t *testing.T, d string) { write(t, filepath.Join(d, DiskDir, "rootfs.ext4"), []byte("disc")) }, false},
		"a bit of the memory": {func(t *testing.T, d string) {
			f, err := os.OpenFile(filepath.Join(d, MemoryFile), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt([]byte("x"), 5<<20); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t)
			m := publish(t, s, "one")
			for _, all := range []bool{false, true} {
				if err := s.Check(t.Context(), m, all); err != nil {
					t.Fatalf("an undamaged one: %v", err)
				}
			}
			c.damage(t, filepath.Join(s.dir, uid, "one"))
			if err := s.Check(t.Context(), m, true); !errors.Is(err, ErrCorrupt) {
				t.Errorf("checksums: %v", err)
			}
			if err := s.Check(t.Context(), m, false); errors.Is(err, ErrCorrupt) != c.quick {
				t.Errorf("quick check: %v", err)
			}
		})
	}
}

func TestAManifestOfAnotherSnapshotIsRefused(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	publish(t, s, "one")
	if err := os.Rename(filepath.Join(s.dir, uid, "one"), filepath.Join(s.dir, uid, "two")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Manifest(uid, "two"); !errors.Is(err, ErrCorrupt) {
		t.Errorf("manifest: %v", err)
	}
	if n := names(t, s); len(n) != 0 {
		t.Errorf("it is listed: %v", n)
	}
}

func TestNamesThatLeadOutOfTheStoreAreNotFound(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	publish(t, s, "one")
	for _, n := range []string{"..", ".", "", "../00ff/one", ".new-1", "a/b", "one\x00"} {
		if _, _, err := s.Manifest(uid, n); !errors.Is(err, ErrNotFound) {
			t.Errorf("Manifest(%q): %v", n, err)
		}
		if err := s.Delete(uid, n); !errors.Is(err, ErrNotFound) {
			t.Errorf("Delete(%q): %v", n, err)
		}
	}
}

func TestACancelledPublishIsNotSeen(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	d, err := s.Begin(uid, "one")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := d.Publish(ctx, Manifest{Cold: true, Spec: json.RawMessage(`{}`)}); !errors.Is(err, context.Canceled) {
		t.Fatalf("publish: %v", err)
	}
	if n := names(t, s); len(n) != 0 {
		t.Errorf("it is listed: %v", n)
	}
}

func TestManifestsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"not JSON":                  `{`,
		"a newer format":            `{"format":2,"cold":true}`,
		"no format":                 `{"cold":true}`,
		"no memory":                 `{"format":1,"state":{}}`,
		"a disk outside":            `{"format":1,"cold":true,"disks":[{"id":"a","file":"../../etc/passwd"}]}`,
		"a disk with a hidden name": `{"format":1,"cold":true,"disks":[{"id":"a","file":".x"}]}`,
		"a disk without a name":     `{"format":1,"cold":true,"disks":[{"id":"a","file":""}]}`,
		"one file for two disks":    `{"format":1,"cold":true,"disks":[{"id":"a","file":"x"},{"id":"b","file":"x"}]}`,
	} {
		if _, err := parseManifest([]byte(text)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"cold":true,"disks":[{"id":"a","file":"x","content":{"size":1}}]}`))
	f.Add([]byte(`{"format":1,"state":{},"memory":{"chunks":["00"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		for _, d := range m.Disks {
			if strings.ContainsAny(d.File, "/\x00") || d.File == ".." || filepath.Clean(d.File) != d.File {
				t.Fatalf("disk file %q was accepted", d.File)
			}
		}
		if !m.Cold && (m.State == nil || m.Memory == nil) {
			t.Fatal("a warm snapshot without memory was accepted")
		}
	})
}
