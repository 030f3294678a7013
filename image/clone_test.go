//go:build linux

package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sparseFile writes a file of 40 MiB with data at its start, middle and last byte.
func sparseFile(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{0, 20<<20 + 123, 40<<20 - 5} {
		if _, err := f.WriteAt([]byte("data!"), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func sum(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func TestCloneCopiesDataAndKeepsHoles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	sparseFile(t, src)
	var done, total int64
	res, err := Clone(t.Context(), src, dst, CloneOptions{Mode: CloneCopy, Progress: func(d, n int64) {
		if d < done {
			t.Errorf("progress went back from %d to %d", done, d)
		}
		done, total = d, n
	}})
	if err != nil {
		t.Fatal(err)
	}
	if res.Method != CloneCopy || res.Size != 40<<20 || res.Copied == 0 || res.Copied > 1<<20 {
		t.Errorf("result %+v", res)
	}
	if done != 40<<20 || total != 40<<20 {
		t.Errorf("progress ended at %d of %d", done, total)
	}
	if sum(t, src) != sum(t, dst) {
		t.Error("contents differ")
	}
	if b := blocks(t, dst); b > 1<<20 {
		t.Errorf("the clone takes %d bytes on disk", b)
	}
	st, err := os.Stat(dst)
	if err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

// A tmpfs or a fast disk can't show a missing fsync, so this shows the rest: the
// clone is whole, and cancellation still cleans up.
func TestCloneWithoutSyncIsWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	sparseFile(t, src)
	res, err := Clone(t.Context(), src, dst, CloneOptions{NoSync: true})
	if err != nil || res.Size != 40<<20 || sum(t, src) != sum(t, dst) {
		t.Errorf("result %+v, %v; same contents: %v", res, err, sum(t, src) == sum(t, dst))
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Clone(ctx, src, dst+"2", CloneOptions{Mode: CloneCopy, NoSync: true, Progress: func(_, _ int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := os.Lstat(dst + "2"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the cancelled clone left its file")
	}
}

func TestCloneAcrossFileSystemsFallsBackToReadAndWrite(t *testing.T) {
	t.Parallel()
	shm, err := os.MkdirTemp("/dev/shm", "microvm-clone-")
	if err != nil {
		t.Skipf("no second file system to test with: %v", err)
	}
	defer os.RemoveAll(shm)
	src, dst := filepath.Join(t.TempDir(), "src"), filepath.Join(shm, "dst")
	sparseFile(t, src)
	res, err := Clone(t.Context(), src, dst, CloneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if res.Method != CloneCopy || sum(t, src) != sum(t, dst) {
		t.Errorf("result %+v, same contents: %v", res, sum(t, src) == sum(t, dst))
	}
	if _, err := Clone(t.Context(), src, filepath.Join(shm, "b"), CloneOptions{Mode: CloneReflink}); !errors.Is(err, unix.EXDEV) {
		t.Errorf("a reflink across file systems gives %v, want EXDEV", err)
	}
	if _, err := os.Lstat(filepath.Join(shm, "b")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the failed reflink left its file")
	}
}

func TestCloneSharesBlocksWhereTheFileSystemCan(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	sparseFile(t, src)
	res, err := Clone(t.Context(), src, dst, CloneOptions{Mode: CloneReflink})
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("%s is on a file system without reflinks", dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	if res.Method != CloneReflink || res.Copied != 0 || sum(t, src) != sum(t, dst) {
		t.Errorf("result %+v", res)
	}
}

func TestCloneFollowsSourceSymlinksAndNeverOneAtItsTarget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(n string) string { return filepath.Join(dir, n) }
	if err := errors.Join(
		os.WriteFile(in("real"), []byte("contents"), 0o644),
		os.Symlink("real", in("a")), os.Symlink("a", in("b")),
		os.Symlink("outside", in("trap")),
		os.WriteFile(in("taken"), []byte("mine"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	if _, err := Clone(t.Context(), in("b"), in("copy"), CloneOptions{Perm: 0o400}); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(in("copy")); err != nil || st.Mode() != 0o400 {
		t.Errorf("the clone is %v, %v; want a plain file of mode 0400", st.Mode(), err)
	}
	for _, dst := range []string{"trap", "taken"} {
		if _, err := Clone(t.Context(), in("b"), in(dst), CloneOptions{}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("a clone onto %s gives %v, want fs.ErrExist", dst, err)
		}
	}
	if _, err := os.Lstat(in("outside")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the symlink at the target was followed")
	}
	if b, err := os.ReadFile(in("taken")); string(b) != "mine" {
		t.Errorf("a file that was there was touched: %q, %v", b, err)
	}
}

func TestCloneRefusesWhatIsNoPlainFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo, dst := filepath.Join(dir, "fifo"), filepath.Join(dir, "dst")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for src, want := range map[string]string{fifo: "a FIFO", dir: "a directory", "/dev/null": "a character device"} {
		if _, err := Clone(t.Context(), src, dst, CloneOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("clone of %s: %v", src, err)
		}
	}
	if _, err := Clone(t.Context(), filepath.Join(dir, "absent"), dst, CloneOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("clone of an absent file: %v", err)
	}
	if _, err := Clone(t.Context(), fifo, dst, CloneOptions{Mode: "fast"}); err == nil || !strings.Contains(err.Error(), `"fast"`) {
		t.Errorf("unknown mode: %v", err)
	}
	if _, err := os.Lstat(dst); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a refused clone left a file")
	}
}

func TestCloneAndDigestSayThatABlockDeviceIsUsedInPlace(t *testing.T) {
	t.Parallel()
	dev := filepath.Join(t.TempDir(), "disk")
	if err := unix.Mknod(dev, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0))); err != nil {
		t.Skipf("can't make a block device to test with: %v", err)
	}
	if f, err := os.Open(dev); err != nil {
		t.Skipf("can't open a block device here: %v", err)
	} else {
		f.Close()
	}
	if _, err := Clone(t.Context(), dev, dev+"2", CloneOptions{}); !errors.Is(err, ErrBlockDevice) {
		t.Errorf("clone: %v", err)
	}
	if _, err := Digest(t.Context(), dev); !errors.Is(err, ErrBlockDevice) {
		t.Errorf("digest: %v", err)
	}
}

func TestCloneThatIsCancelledLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	if err := os.WriteFile(src, bytes.Repeat([]byte("x"), 3*clonePiece), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	pieces := 0
	_, err := Clone(ctx, src, dst, CloneOptions{Mode: CloneCopy, Progress: func(_, _ int64) { pieces++; cancel() }})
	if !errors.Is(err, context.Canceled) || pieces != 1 {
		t.Errorf("%v after %d pieces, want context.Canceled after one", err, pieces)
	}
	if _, err := os.Lstat(dst); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the file is still there")
	}
}

func TestCloneNoticesASourceThatIsCutMeanwhile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	if err := os.WriteFile(src, bytes.Repeat([]byte("x"), 3*clonePiece), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Clone(t.Context(), src, dst, CloneOptions{Mode: CloneCopy, Progress: func(_, _ int64) {
		if err := os.Truncate(src, clonePiece+1000); err != nil {
			t.Error(err)
		}
	}})
	if err == nil {
		t.Error("a clone of half a file passed for a whole one")
	}
	if _, err := os.Lstat(dst); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the file is still there")
	}
}

func TestAFailedCloneLeavesAFileOfSomebodyElseAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	if err := os.WriteFile(src, bytes.Repeat([]byte("x"), 2*clonePiece), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Clone(ctx, src, dst, CloneOptions{Mode: CloneCopy, Progress: func(_, _ int64) {
		if err := errors.Join(os.Remove(dst), os.WriteFile(dst, []byte("theirs"), 0o600)); err != nil {
			t.Error(err)
		}
		cancel()
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(dst); string(b) != "theirs" {
		t.Errorf("the other's file has %q, %v", b, err)
	}
}

func TestDigestIsTheSHA256OfTheContents(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	sparseFile(t, path)
	got, err := Digest(t.Context(), path)
	if err != nil || got != sum(t, path) {
		t.Errorf("got %s, %v; want %s", got, err, sum(t, path))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Digest(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("with a dead context: %v", err)
	}
}
