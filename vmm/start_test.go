package vmm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestStartGivesTheProcessItsOwnSessionAndNoInput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := sleeper()
	c.Dir = dir
	p := start(t, newWatcher(t), c)
	sid, err := unix.Getsid(p.PID())
	if err != nil || sid != p.PID() {
		t.Errorf("session %d of process %d, %v", sid, p.PID(), err)
	}
	pgid, err := unix.Getpgid(p.PID())
	if err != nil || pgid != p.PID() {
		t.Errorf("group %d of process %d, %v", pgid, p.PID(), err)
	}
	for fd := range 3 {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.PID(), fd))
		if err != nil || to != os.DevNull {
			t.Errorf("descriptor %d is %q, %v", fd, to, err)
		}
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID()))
	if err != nil || len(env) > 0 {
		t.Errorf("environment %q, %v", env, err)
	}
	in, err := p.WorksIn(dir)
	if err != nil || !in {
		t.Errorf("WorksIn(its directory): %v, %v", in, err)
	}
	in, err = p.WorksIn(t.TempDir())
	if err != nil || in {
		t.Errorf("WorksIn(another directory): %v, %v", in, err)
	}
}

func TestNothingTracesTheProcessOnceItRuns(t *testing.T) {
	t.Parallel()
	p := start(t, newWatcher(t), sleeper())
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "TracerPid:\t0\n") {
		t.Errorf("still traced:\n%s", b)
	}
	eventually(t, "it sleeps", func() bool {
		s, err := readStat(p.PID())
		return err == nil && s.state == 'S'
	})
}

// The shell's ulimit shows what is in force before the first instruction.
func TestTheDescriptorLimitIsInForceFromTheFirstInstruction(t *testing.T) {
	t.Parallel()
	var mine unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &mine); err != nil {
		t.Fatal(err)
	}
	w := newWatcher(t)
	for _, tc := range []struct{ set, want uint64 }{{0, min(DefaultNoFile, mine.Max)}, {64, 64}, {min(2000, mine.Max), min(2000, mine.Max)}} {
		for range 10 {
			out, err := os.CreateTemp(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			p := start(t, w, Command{Path: "/bin/sh", Args: []string{"-c", "ulimit -Sn; ulimit -Hn"}, Stdout: out, NoFile: tc.set})
			waitDone(t, p)
			b, err := os.ReadFile(out.Name())
			if want := fmt.Sprintf("%d\n%d\n", tc.want, tc.want); err != nil || string(b) != want {
				t.Fatalf("NoFile %d: limits %q, not %q, %v", tc.set, b, want, err)
			}
		}
	}
}

func TestTheOperatorsOwnDescriptorLimitNeverMoves(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	w := newWatcher(t)
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			var now unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &now); err != nil || now != before {
				t.Errorf("the limit was %+v, not %+v, %v", now, before, err)
				return
			}
			select {
			case <-stop:
				return
			default:
				runtime.Gosched()
			}
		}
	})
	for range 20 {
		start(t, w, sleeper())
	}
	close(stop)
	watch.Wait()
}

func TestWithoutTracingTheLimitIsStillSet(t *testing.T) {
	t.Parallel()
	c := sleeper()
	child, err := fork(&c, false)
	if err != nil {
		t.Fatal(err)
	}
	defer killAndReap(child.pidfd)
	var has unix.Rlimit
	if err := unix.Prlimit(child.pid, unix.RLIMIT_NOFILE, nil, &has); err != nil {
		t.Fatal(err)
	}
	if want := min(DefaultNoFile, has.Max); has.Cur != want || has.Max != want {
		t.Errorf("limits %+v", has)
	}
}

func TestAFailedStartSaysWhyAndLeavesNothing(t *testing.T) {
	w := newWatcher(t)
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o644); err != nil {
		t.Fatal(err)
	}
	notExec := filepath.Join(dir, "script")
	if err := os.WriteFile(notExec, []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := openDescriptors(t)
	for name, tc := range map[string]struct {
		c    Command
		is   error
		text string
	}{
		"missing":           {Command{Path: dir + "/none"}, fs.ErrNotExist, "/none"},
		"not executable":    {Command{Path: plain}, fs.ErrPermission, "plain"},
		"not a program":     {Command{Path: notExec}, unix.ENOEXEC, "script"},
		"a directory":       {Command{Path: dir}, fs.ErrPermission, dir},
		"relative":          {Command{Path: "sleep"}, nil, "not absolute"},
		"NUL in an arg":     {Command{Path: "/bin/sleep", Args: []string{"1\x00"}}, nil, "Args"},
		"NUL in env":        {Command{Path: "/bin/sleep", Env: []string{"A=\x00"}}, nil, "Env"},
		"missing directory": {Command{Path: "/bin/sleep", Dir: dir + "/none"}, fs.ErrNotExist, ""},
		"absurd limit":      {Command{Path: "/bin/sleep", NoFile: 1 << 40}, unix.EPERM, "NoFile: 1099511627776"},
		"closed output":     {Command{Path: "/bin/sleep", Stdout: closedFile(t)}, nil, "closed file"},
		"no namespace":      {Command{Path: "/bin/sleep", Netns: nullFile(t)}, nil, "network namespace /dev/null"},
		"no cgroup":         {Command{Path: "/bin/sleep", Cgroup: nullFile(t)}, nil, "/bin/sleep"},
	} {
		p, err := w.Start(tc.c)
		if err == nil {
			p.Kill()
			t.Errorf("%s: no error", name)
			continue
		}
		if tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var none unix.Siginfo
	if err := unix.Waitid(unix.P_ALL, 0, &none, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("there are children left: %v", err)
	}
	if after := openDescriptors(t); after != before+2 { // those of the table
		t.Errorf("%d descriptors, before %d", after, before)
	}
}

func closedFile(t *testing.T) *os.File {
	f := nullFile(t)
	f.Close()
	return f
}

func nullFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestStartInANetworkNamespaceLeavesOursAlone(t *testing.T) {
	t.Parallel()
	ns := newNetns(t)
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	w := newWatcher(t)
	c := sleeper()
	c.Netns = ns
	for range 10 {
		p := start(t, w, c)
		got, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", p.PID()))
		if err != nil {
			t.Fatal(err)
		}
		want, err := ns.Stat()
		if err != nil || !os.SameFile(got, want) {
			t.Errorf("the process is in another namespace, %v", err)
		}
	}
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range threads {
		if got, err := os.Readlink(path); err == nil && got != home {
			t.Errorf("%s is %s, not %s", path, got, home)
		}
	}
}

// newNetns makes a network namespace that lives as long as its descriptor.
func newNetns(t *testing.T) *os.File {
	t.Helper()
	type result struct {
		f   *os.File
		err error
	}
	ch := make(chan result)
	var unshare func()
	unshare = func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		if unix.Gettid() == os.Getpid() {
			// The main thread never ends, and is what /proc/self shows.
			defer runtime.UnlockOSThread()
			done := make(chan struct{})
			go func() {
				defer close(done)
				unshare()
			}()
			<-done
			return
		}
		err := unix.Unshare(unix.CLONE_NEWNET)
		var f *os.File
		if err == nil {
			f, err = os.Open("/proc/thread-self/ns/net")
		}
		ch <- result{f, err}
	}
	go unshare()
	r := <-ch
	if errors.Is(r.err, unix.EPERM) {
		t.Skip("no right to make network namespaces (CAP_SYS_ADMIN)")
	}
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.f.Close() })
	return r.f
}

func TestStartInACgroup(t *testing.T) {
	t.Parallel()
	root := cgroup2(t)
	dir, err := os.MkdirTemp(root, "vmm-test-")
	if err != nil {
		t.Skipf("no right to make cgroups: %v", err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := newWatcher(t)
	c := sleeper()
	c.Cgroup = f
	p, err := w.Start(c)
	f.Close()
	if err == nil {
		b, readErr := os.ReadFile(dir + "/cgroup.procs")
		if readErr != nil || strings.TrimSpace(string(b)) != fmt.Sprint(p.PID()) {
			t.Errorf("cgroup.procs: %q, %v", b, readErr)
		}
		p.Kill()
		waitDone(t, p)
	} else {
		t.Error(err)
	}
	eventually(t, "the cgroup can be removed", func() bool { return os.Remove(dir) == nil })
}

func cgroup2(t *testing.T) string {
	t.Helper()
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(dir + "/cgroup.procs"); err == nil {
			if _, err := os.Stat(dir + "/cgroup.controllers"); err == nil {
				return dir
			}
		}
	}
	t.Skip("no cgroup v2 is mounted")
	return ""
}
