//go:build linux

package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func needTools(t testing.TB) tools {
	t.Helper()
	found, err := findTools()
	if err != nil {
		t.Skip(err)
	}
	return found
}

// debugfs runs one read-only command on the disk.
func debugfs(t *testing.T, disk, command string) string {
	t.Helper()
	out, err := exec.Command(needTools(t).debugfs, "-R", command, disk).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func checkClean(t *testing.T, disk string) {
	t.Helper()
	if out, err := exec.Command(needTools(t).e2fsck, "-fn", disk).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v: %s", err, out)
	}
}

// tarFile writes an archive; each header's contents are as long as its Size.
func tarFile(t testing.TB, headers ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "in.tar")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestATarBecomesADiskWithOwnersDevicesAndLinksWithoutRootRights(t *testing.T) {
	t.Parallel()
	needTools(t)
	when := time.Unix(1_700_000_000, 0)
	src := tarFile(t,
		tar.Header{Typeflag: tar.TypeDir, Name: "./dev/", Mode: 0o755, ModTime: when},
		tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3},
		tar.Header{Typeflag: tar.TypeBlock, Name: "dev/vda", Mode: 0o660, Devmajor: 254, Devminor: 7},
		tar.Header{Typeflag: tar.TypeFifo, Name: "dev/fifo", Mode: 0o600},
		tar.Header{Typeflag: tar.TypeReg, Name: "/usr/bin/su", Mode: 0o4755, Uid: 0, Gid: 1234, Size: 5000, ModTime: when,
			PAXRecords: map[string]string{"SCHILY.xattr.user.note": "hello"}},
		tar.Header{Typeflag: tar.TypeLink, Name: "usr/bin/also", Linkname: "usr/bin/su"},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "etc/shadow", Linkname: "/etc/passwd"},
		tar.Header{Typeflag: tar.TypeReg, Name: `odd "name" with blank`, Mode: 0o600, Uid: 70000, Size: 3},
	)
	disk := filepath.Join(t.TempDir(), "d.ext4")
	res, err := Build(t.Context(), src, disk, Options{Label: "test"})
	if err != nil {
		t.Fatal(err)
	}
	checkClean(t, disk)
	for command, want := range map[string][]string{
		"stat /usr/bin/su":                {"Mode:  04755", "Group:  1234", "Size: 5000", "Links: 2", "user.note"},
		"stat /usr/bin/also":              {"Mode:  04755", "Links: 2"},
		"stat /dev/null":                  {"Type: character special", "01:03"},
		"stat /dev/vda":                   {"Type: block special"},
		"stat /dev/fifo":                  {"Type: FIFO"},
		"stat /etc/shadow":                {"Type: symlink", `Fast link dest: "/etc/passwd"`},
		`stat "/odd ""name"" with blank"`: {"User: 70000", "Size: 3"},
		"stats":                           {"Filesystem volume name:   test", res.UUID},
	} {
		got := debugfs(t, disk, command)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: no %q in\n%s", command, w, got)
			}
		}
	}
	again := filepath.Join(t.TempDir(), "again.ext4")
	if _, err := Build(t.Context(), src, again, Options{Label: "test"}); err != nil {
		t.Fatal(err)
	}
	a, errA := os.ReadFile(disk)
	b, errB := os.ReadFile(again)
	if errors.Join(errA, errB) != nil || !bytes.Equal(a, b) {
		t.Errorf("the same archive gave another disk: %v", errors.Join(errA, errB))
	}
}

func TestHostileTarsAreRefusedAndLeaveNothing(t *testing.T) {
	t.Parallel()
	needTools(t)
	reg := func(name string) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: 1}
	}
	for name, headers := range map[string][]tar.Header{
		"..":                      {reg("../../etc/x")},
		".. inside":               {reg("a/../../x")},
		"through a symlink":       {{Typeflag: tar.TypeSymlink, Name: "d", Linkname: "/etc"}, reg("d/x")},
		"through a file":          {reg("d"), reg("d/x")},
		"hard link out":           {{Typeflag: tar.TypeLink, Name: "x", Linkname: "../../etc/passwd"}},
		"hard link to the host":   {{Typeflag: tar.TypeLink, Name: "x", Linkname: "/etc/passwd"}},
		"hard link to a folder":   {{Typeflag: tar.TypeDir, Name: "d"}, {Typeflag: tar.TypeLink, Name: "x", Linkname: "d"}},
		"line break":              {reg("x\nrm y")},
		"line break in target":    {{Typeflag: tar.TypeSymlink, Name: "x", Linkname: "a\nb"}},
		"long name":               {reg(strings.Repeat("n", 256))},
		"long path":               {reg(strings.Repeat("dir/", 1000) + "x")},
		"file over a full folder": {reg("d/x"), reg("d")},
		"the root itself":         {reg(".")},
	} {
		out := t.TempDir()
		if _, err := Build(t.Context(), tarFile(t, headers...), filepath.Join(out, "d.ext4"), Options{}); err == nil {
			t.Errorf("%s: taken", name)
		}
		if left, err := os.ReadDir(out); err != nil || len(left) != 0 {
			t.Errorf("%s: left %v, %v", name, left, err)
		}
	}
}

func TestAFolderBecomesADisk(t *testing.T) {
	t.Parallel()
	needTools(t)
	src := t.TempDir()
	in := func(n string) string { return filepath.Join(src, n) }
	if err := errors.Join(
		os.WriteFile(in("a"), []byte("contents"), 0o640), os.Link(in("a"), in("b")),
		os.Symlink("/etc/shadow", in("link")), os.MkdirAll(in("sub/deep"), 0o700), unix.Mkfifo(in("fifo"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: in("sock")}); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(t.TempDir(), "d.ext4")
	res, err := Build(t.Context(), src, disk, Options{})
	if err != nil {
		t.Fatal(err)
	}
	checkClean(t, disk)
	if len(res.Skipped) != 1 || !strings.Contains(res.Skipped[0], "sock") {
		t.Errorf("skipped %v", res.Skipped)
	}
	if got := debugfs(t, disk, "cat /b"); got != "contents" {
		t.Errorf("b has %q", got)
	}
	if got := debugfs(t, disk, "stat /link"); !strings.Contains(got, "/etc/shadow") || !strings.Contains(got, "symlink") {
		t.Errorf("the symlink was followed: %s", got)
	}
}

func TestADiskThatFailsLeavesTheFormerOne(t *testing.T) {
	t.Parallel()
	needTools(t)
	dir := t.TempDir()
	disk := filepath.Join(dir, "d.ext4")
	if err := os.WriteFile(disk, []byte("former"), 0o600); err != nil {
		t.Fatal(err)
	}
	big := tarFile(t, tar.Header{Typeflag: tar.TypeReg, Name: "big", Mode: 0o644, Size: 8 << 20})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tt := range map[string]struct {
		ctx  context.Context
		src  string
		opts Options
		want string
	}{
		"too small": {t.Context(), big, Options{SizeMiB: 4}, "large enough"},
		"size":      {t.Context(), big, Options{SizeMiB: 3}, "4 to"},
		"label":     {t.Context(), big, Options{Label: "more than sixteen"}, "16 bytes"},
		"uuid":      {t.Context(), big, Options{UUID: "x"}, "UUID"},
		"cancelled": {cancelled, big, Options{}, context.Canceled.Error()},
		"absent":    {t.Context(), filepath.Join(dir, "no"), Options{}, "no such file"},
		"device":    {t.Context(), "/dev/null", Options{}, "neither a folder nor a file"},
	} {
		_, err := Build(tt.ctx, tt.src, disk, tt.opts)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
		left, err := os.ReadDir(dir)
		if b, _ := os.ReadFile(disk); err != nil || len(left) != 1 || string(b) != "former" {
			t.Errorf("%s: left %v, the disk has %d bytes", name, left, len(b))
		}
	}
}

func TestContentsAreBounded(t *testing.T) {
	t.Parallel()
	tree, err := NewTree()
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	tree.bytes, tree.entries = maxBytes-10, maxEntries-1
	if err := tree.AddFile("a", Meta{}, bytes.NewReader(make([]byte, 11))); err == nil {
		t.Error("more bytes than allowed were taken")
	}
	if err := tree.AddSymlink("b", "x", Meta{}); err != nil {
		t.Error(err)
	}
	if err := tree.AddSymlink("c", "x", Meta{}); err == nil {
		t.Error("more files than allowed were taken")
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestAHugeFileOfZeroesTakesNoRoom(t *testing.T) {
	t.Parallel()
	tree, err := NewTree()
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	const size = 256<<20 + 5
	if err := tree.AddFile("a", Meta{}, io.MultiReader(strings.NewReader("x"), io.LimitReader(zeroes{}, size-2), strings.NewReader("y"))); err != nil {
		t.Fatal(err)
	}
	n := tree.root.children["a"]
	var st unix.Stat_t
	if err := unix.Stat(n.hostPath, &st); err != nil || st.Size != size || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes in %d blocks, %v; want %d in few", st.Size, st.Blocks, err, size)
	}
}

func TestTheDemoWantsStaticPrograms(t *testing.T) {
	t.Parallel()
	needTools(t)
	out := filepath.Join(t.TempDir(), "d.ext4")
	if _, err := Demo(t.Context(), "/bin/sh", "/bin/sh", out, Options{}); err == nil || !strings.Contains(err.Error(), "not static") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a disk was left")
	}
}

func FuzzAddTar(f *testing.F) {
	for _, h := range []tar.Header{{Typeflag: tar.TypeReg, Name: "../x"}, {Typeflag: tar.TypeLink, Name: "a", Linkname: "/b"}, {Typeflag: tar.TypeSymlink, Name: "s", Linkname: "t"}} {
		b, err := os.ReadFile(tarFile(f, h))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := NewTree()
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		if err := tree.AddTar(t.Context(), bytes.NewReader(b)); err != nil {
			return
		}
		var script1 bytes.Buffer
		if err := (&script{tree: tree}).write(&script1); err != nil {
			t.Fatal(err)
		}
		names := 0
		if err := tree.walk(func(_, name string, _ *inode) error {
			names++
			if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\n\x00") {
				t.Errorf("name %q", name)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
}
