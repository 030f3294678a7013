//go:build linux

package console

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCreateMakesAPrivateFileAndTakesNoOther(t *testing.T) {
	t.Parallel()
	path, f := newConsole(t)
	info, err := f.Stat()
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	link := filepath.Join(filepath.Dir(path), "link")
	if err := os.Symlink(filepath.Join(filepath.Dir(path), "nowhere"), link); err != nil {
		t.Fatal(err)
	}
	for _, taken := range []string{path, link} {
		if f, err := Create(taken); !errors.Is(err, os.ErrExist) {
			f.Close()
			t.Errorf("%s: %v", taken, err)
		}
	}
}

// Two writers on one file, as one VMM after the other, leave no hole and
// overwrite nothing.
func TestAppendGoesOnWhereTheLastWriterEnded(t *testing.T) {
	t.Parallel()
	path, first := newConsole(t)
	write(t, first, []byte("one\n"))
	second, err := Append(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	write(t, second, []byte("two\n"))
	write(t, first, []byte("three\n"))
	if b, err := os.ReadFile(path); err != nil || string(b) != "one\ntwo\nthree\n" {
		t.Errorf("%q, %v", b, err)
	}
	conn, err := second.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	conn.Control(func(fd uintptr) {
		if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 || flags&unix.O_APPEND == 0 {
			t.Errorf("flags %#o, %v", flags, err)
		}
	})
}

// A FIFO without a reader would block whoever opens it.
func TestWhatIsNotARegularFileIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t)
	before := openDescriptors(t)
	for name, mk := range map[string]func(path string) error{
		"fifo":    func(p string) error { return unix.Mkfifo(p, 0o600) },
		"link":    func(p string) error { return os.Symlink("target", p) },
		"dir":     func(p string) error { return os.Mkdir(p, 0o700) },
		"missing": func(string) error { return nil },
	} {
		path := filepath.Join(dir, name)
		if err := mk(path); err != nil {
			t.Fatal(err)
		}
		for call, try := range map[string]func() error{
			"Append": func() error { _, err := Append(path); return err },
			"Trim":   func() error { _, err := Trim(path, 0); return err },
			"Tail":   func() error { _, err := Tail(path, 1, 1); return err },
			"Follow": func() error { _, err := Follow(path, FollowOptions{}); return err },
			"Add":    func() error { _, err := k.Add(path, MinBound); return err },
		} {
			if err := try(); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s of a %s: %v", call, name, err)
			}
		}
	}
	if b, err := os.ReadFile(target); err != nil || string(b) != "x\n" {
		t.Errorf("the target of the link: %q, %v", b, err)
	}
	eventually(t, "as many descriptors as before", func() bool { return openDescriptors(t) <= before })
}

func TestTrimFreesTheHeadAndMovesNothing(t *testing.T) {
	t.Parallel()
	const size, keepBytes = 1 << 20, 100_000
	path, f := newConsole(t)
	all := numbered(0, size)
	write(t, f, all)
	freed, err := Trim(path, keepBytes)
	if err != nil || freed < size-keepBytes-64<<10 || freed > size-keepBytes {
		t.Errorf("freed %d, %v", freed, err)
	}
	got, err := os.ReadFile(path)
	if err != nil || len(got) != size {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if !bytes.Equal(got[size-keepBytes:], all[size-keepBytes:]) {
		t.Error("what was to be kept has changed")
	}
	if got[0] != 0 || onDisk(t, f) > keepBytes+64<<10 {
		t.Errorf("%d bytes on disk, the first is %#x", onDisk(t, f), got[0])
	}
	for range 2 {
		if freed, err := Trim(path, keepBytes); freed != 0 || err != nil {
			t.Errorf("again: freed %d, %v", freed, err)
		}
	}
	if _, err := Trim(path, -1); err == nil || !strings.Contains(err.Error(), "-1") {
		t.Errorf("negative: %v", err)
	}
	if _, err := Trim(path, 0); err != nil || onDisk(t, f) > 0 {
		t.Errorf("keep 0: %d bytes on disk, %v", onDisk(t, f), err)
	}
}

// ramfs has files that can't have holes.
func TestAFileSystemWithoutHolesIsReportedAtOnce(t *testing.T) {
	k := newKeeper(t)
	dir := t.TempDir()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The mount belongs to this thread, which ends with the goroutine.
		runtime.LockOSThread()
		err := errors.Join(unix.Unshare(unix.CLONE_NEWNS|unix.CLONE_FS),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("none", dir, "ramfs", 0, ""))
		if errors.Is(err, unix.EPERM) {
			t.Log("skipped: no right to mount a file system (CAP_SYS_ADMIN)")
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		path := filepath.Join(dir, "console.log")
		f, err := Create(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if _, err := f.Write(numbered(0, 1<<20)); err != nil {
			t.Error(err)
		}
		if _, err := k.Add(path, MinBound); !errors.Is(err, ErrNoHoles) {
			t.Errorf("Add: %v", err)
		}
		if _, err := Trim(path, 0); !errors.Is(err, ErrNoHoles) {
			t.Errorf("Trim: %v", err)
		}
		if b, err := Tail(path, 1, 1<<20); err != nil || string(b) != "000000000065535\n" {
			t.Errorf("Tail: %q, %v", b, err)
		}
		fl, err := Follow(path, FollowOptions{Lines: 1})
		if err != nil {
			t.Error(err)
			return
		}
		defer fl.Close()
		if c, err := fl.Next(t.Context()); err != nil || string(c.Data) != "000000000065535\n" || c.Missed != 0 {
			t.Errorf("Follow: %+v, %v", c, err)
		}
	}()
	<-done
}

// procfs refuses offsets from 2 GiB on, as vfat does from 4 GiB on, before it
// looks whether it can punch.
func TestAFileSystemWithSmallFilesAndNoHolesIsReportedAtOnce(t *testing.T) {
	t.Parallel()
	if _, err := newKeeper(t).Add("/proc/self/comm", MinBound); !errors.Is(err, ErrNoHoles) {
		t.Errorf("%v", err)
	}
}
