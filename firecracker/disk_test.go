package firecracker

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
)

// How little is left is varied more by hand:
//
//	go test -run 'FullDisk|WithoutDescriptors' ./firecracker -disk.all
var diskAll = flag.Bool("disk.all", false, "try each verb with more amounts of pages and descriptors")

// mountVariable says that this program is in a mount namespace of its own.
const mountVariable = "MICROVM_TEST_MOUNTS"

// inMountNamespace runs the test again in a program with mounts of its own, and
// returns true in that one.
func inMountNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(mountVariable) != "" {
		must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		return true
	}
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.timeout=5m", fmt.Sprintf("-disk.all=%t", *diskAll))
	cmd.Env = append(os.Environ(), mountVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM):
		t.Skip("needs CAP_SYS_ADMIN for a mount namespace of its own")
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// smallDisk is a file system of its own, which goes with the test.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=32m,mode=700"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// fill leaves so many pages free.
func fill(t *testing.T, disk string, pages int64) (free func()) {
	t.Helper()
	path := filepath.Join(disk, "filler")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for chunk := make([]byte, 1<<20); len(chunk) >= 4096; {
		if _, err := f.Write(chunk); errors.Is(err, unix.ENOSPC) {
			chunk = chunk[:len(chunk)/2]
		} else {
			must(t, err)
		}
	}
	st, err := f.Stat()
	must(t, err)
	must(t, f.Truncate(st.Size()-pages*4096))
	return func() { must(t, os.Remove(path)) }
}

// tellsTrouble sees that an error names the cause and what to do about it.
func tellsTrouble(t *testing.T, what string, err error, cause error) {
	t.Helper()
	// What the VMM could not write, it says in its own words.
	if !errors.Is(err, cause) && !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(cause.Error())) {
		t.Errorf("%s: the error does not tell the cause (%v): %v", what, cause, err)
	}
	var e *microvm.Error
	var field *microvm.FieldError // says itself what is needed
	if !errors.As(err, &field) && (!errors.As(err, &e) || e.Remedy == "") {
		t.Errorf("%s: no remedy: %v", what, err)
	}
}

// A disk that is full at any step: the error says so, the VM is as before or as
// after, and with room it can be used, and destroyed without a trace.
func TestAFullDiskHalvesNothing(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	failed := 0
	amounts := []int64{0, 2, 40}
	if *diskAll {
		amounts = []int64{0, 1, 2, 3, 5, 40, 1100}
	}
	for name, s := range scenarios() {
		before, after, _ := course(t, s)
		for _, pages := range amounts {
			done := t.Run(fmt.Sprintf("%s with %d pages", name, pages), func(t *testing.T) {
				if under.real && (name == "restore" || name == "start hibernated") {
					t.Skip("a real guest that was loaded dies of a full tmpfs: to read a hole of its memory file takes room there")
				}
				disk := smallDisk(t)
				c := testConfig(t)
				c.StateDir = filepath.Join(disk, "state")
				c.BootArgs = strings.TrimSuffix(c.BootArgs, " fcemu.console=lines:0:200 fcemu.echo")
				r := open(t, c)
				for _, st := range s.setup {
					must(t, st.run(bg, r))
				}
				free := fill(t, disk, pages)
				err := s.verb.run(bg, r)
				if err != nil {
					failed++
					tellsTrouble(t, s.verb.Verb, err, unix.ENOSPC)
				}
				free()
				asBeforeOrAfter(t, r, s, before, after, err)
				endAll(t, r)
			})
			if !done {
				break
			}
		}
	}
	if failed < 10 {
		t.Errorf("only %d verbs met a full disk", failed)
	}
}

// asBeforeOrAfter compares what queries say with what they may.
func asBeforeOrAfter(t *testing.T, r *Runtime, s scenario, before, after string, err error) {
	t.Helper()
	got := situation(t, r)
	if s.verb.Verb == "destroy" && err != nil && (strings.HasPrefix(got, "a stopped") || strings.Contains(got, "without its network")) {
		return // its VMM has ended, and there is no way back; another destroy goes on
	}
	if got != after && (err == nil || got != before) {
		t.Errorf("%v\nbefore: %s\nafter:  %s\nis:     %s", err, before, after, got)
	}
}

// endAll uses each VM and destroys it; nothing may be left.
func endAll(t *testing.T, r *Runtime) {
	t.Helper()
	views, err := r.ListVMs(bg)
	must(t, err)
	for _, v := range views {
		switch v.Status {
		case microvm.StatusCreated, microvm.StatusStopped:
			if v.Trouble == "" {
				must(t, r.StartVM(bg, v.ID))
			}
		case microvm.StatusRunning:
			must(t, r.SnapshotVM(bg, v.ID, "later"))
		}
		if v.Status != microvm.StatusDestroyed {
			must(t, r.DestroyVM(bg, v.ID))
		}
	}
	// What could not be removed lies beside the VMs until it is old enough.
	gone, err := filepath.Glob(filepath.Join(r.store.Root(), ".gone-*"))
	must(t, err)
	for _, path := range gone {
		must(t, os.Chtimes(path, time.Time{}, time.Now().Add(-time.Hour)))
	}
	_, err = r.Recover(bg, RecoverOptions{})
	must(t, err)
	if left := leftovers(r.cfg.StateDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// A state directory that can't be written to: what runs is adopted and shown,
// each verb says what is wrong and changes nothing, and later all of it works.
func TestAReadOnlyStateDirectoryCanBeLookedAt(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	for name, s := range scenarios() {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t)
			before, after, _ := course(t, s)
			first, err := Open(bg, c)
			must(t, err)
			for _, st := range s.setup {
				must(t, st.run(bg, first))
			}
			must(t, first.Close())
			must(t, unix.Mount(c.StateDir, c.StateDir, "", unix.MS_BIND|unix.MS_REC, ""))
			must(t, unix.Mount("", c.StateDir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
			r, err := Open(bg, c)
			if err != nil {
				must(t, unix.Unmount(c.StateDir, unix.MNT_DETACH))
				t.Fatal(err)
			}
			if got := situation(t, r); got != before {
				t.Errorf("it shows %s, not %s", got, before)
			}
			err = s.verb.run(bg, r)
			if err == nil {
				t.Error("the verb has succeeded")
			} else {
				tellsTrouble(t, s.verb.Verb, err, unix.EROFS)
			}
			asBeforeOrAfter(t, r, s, before, before, err)
			must(t, r.Close())
			must(t, unix.Unmount(c.StateDir, unix.MNT_DETACH))
			r = open(t, c)
			must(t, s.verb.run(bg, r))
			asBeforeOrAfter(t, r, s, before, after, nil)
			endAll(t, r)
		})
	}
}

// No descriptor can be had at any step.
func TestWithoutDescriptorsNothingIsHalved(t *testing.T) {
	if !inMountNamespace(t) { // for a limit of its own
		return
	}
	var was unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	failed := 0
	amounts := []uint64{0, 3}
	if *diskAll {
		amounts = []uint64{0, 2, 3, 4, 7}
	}
	for name, s := range scenarios() {
		before, after, _ := course(t, s)
		for _, spare := range amounts {
			t.Run(fmt.Sprintf("%s with %d descriptors", name, spare), func(t *testing.T) {
				r := open(t, testConfig(t))
				for _, st := range s.setup {
					must(t, st.run(bg, r))
				}
				must(t, setDescriptors(spare, was))
				err := s.verb.run(bg, r)
				must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was))
				if err != nil {
					failed++
					tellsTrouble(t, s.verb.Verb, err, unix.EMFILE)
				}
				asBeforeOrAfter(t, r, s, before, after, err)
				endAll(t, r)
			})
		}
	}
	if failed < 10 {
		t.Errorf("only %d verbs met the limit", failed)
	}
}

// setDescriptors limits this program to so many descriptors more than it has: a
// limit is on the number, so those below it that are free are counted.
func setDescriptors(spare uint64, was unix.Rlimit) error {
	var held []int
	defer func() {
		for _, fd := range held {
			unix.Close(fd)
		}
	}()
	for range spare {
		fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		held = append(held, fd)
	}
	next, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	held = append(held, next)
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next), Max: was.Max})
}
