package vmm

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// spawned is a child that runs with its limits set.
type spawned struct {
	pid, pidfd int
	stat       procStat
}

// spawn starts the process on a thread of its own: tracing and namespaces belong
// to threads. A thread that can't be brought back to its network namespace ends
// with the goroutine.
func spawn(c *Command) (spawned, error) {
	type result struct {
		child spawned
		err   error
	}
	ch := make(chan result, 1)
	go func() {
		runtime.LockOSThread()
		child, clean, err := spawnOnThread(c)
		if clean {
			runtime.UnlockOSThread()
		}
		ch <- result{child, err}
	}()
	r := <-ch
	return r.child, r.err
}

// spawnOnThread reports in clean whether the thread is as it was before.
func spawnOnThread(c *Command) (child spawned, clean bool, err error) {
	clean = true
	if c.Netns != nil {
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return spawned{}, true, fmt.Errorf("start VMM %s: %w", c.Path, err)
		}
		defer home.Close()
		if err := unix.Setns(int(c.Netns.Fd()), unix.CLONE_NEWNET); err != nil {
			return spawned{}, true, fmt.Errorf("start VMM %s: enter network namespace %s: %w", c.Path, c.Netns.Name(), err)
		}
		defer func() { clean = unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil }()
	}
	// The limit must be in force before the first instruction of the program,
	// which reads it at once, and this program's own limit must never move, not
	// even for a moment: so the child is traced, which stops it at its exec.
	// Where tracing is forbidden (Yama, seccomp) the limit is set just after the
	// exec instead.
	trace := !losesPrivileges(c.Path)
	child, err = fork(c, trace)
	if trace && errors.Is(err, unix.EPERM) {
		child, err = fork(c, false)
	}
	return child, clean, err
}

func fork(c *Command, trace bool) (spawned, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return spawned{}, fmt.Errorf("start VMM %s: %w", c.Path, err)
	}
	defer null.Close()
	files := make([]uintptr, 3)
	for i, f := range []*os.File{c.Stdin, c.Stdout, c.Stderr} {
		if f == nil {
			f = null
		}
		if files[i], err = descriptor(f); err != nil {
			return spawned{}, fmt.Errorf("start VMM %s: %w", c.Path, err)
		}
	}
	defer runtime.KeepAlive(c)

	pid, pidfd, err := forkExec(c, files, trace)
	if err != nil {
		return spawned{}, fmt.Errorf("start VMM %s: %w", c.Path, err)
	}
	err = setNoFile(pid, c.NoFile)
	stat, statErr := readStat(pid)
	if err == nil && statErr != nil {
		err = statErr
	}
	if trace {
		err = errors.Join(err, detach(pid, pidfd))
	}
	if err != nil {
		killAndReap(pidfd)
		return spawned{}, fmt.Errorf("start VMM %s: %w", c.Path, err)
	}
	return spawned{pid: pid, pidfd: pidfd, stat: stat}, nil
}

// descriptor is File.Fd without its side effect: that makes the file blocking,
// for every program that shares it.
func descriptor(f *os.File) (uintptr, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var fd uintptr
	err = conn.Control(func(d uintptr) { fd = d })
	return fd, err
}

func forkExec(c *Command, files []uintptr, trace bool) (pid, pidfd int, err error) {
	pidfd = -1
	sys := &syscall.SysProcAttr{Setsid: true, Ptrace: trace, PidFD: &pidfd}
	if c.Cgroup != nil {
		sys.UseCgroupFD, sys.CgroupFD = true, int(c.Cgroup.Fd())
	}
	env := c.Env
	if env == nil {
		env = []string{}
	}
	pid, _, err = syscall.StartProcess(c.Path, append([]string{c.Path}, c.Args...), &syscall.ProcAttr{
		Dir: c.Dir, Env: env, Files: files, Sys: sys,
	})
	if err != nil {
		return 0, -1, err
	}
	if pidfd < 0 {
		// A kernel older than 5.2, which nothing here supports.
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
		return 0, -1, errors.New("the kernel gives no pidfd: Linux 5.4 or newer is needed")
	}
	return pid, pidfd, nil
}

// losesPrivileges reports whether the kernel would withhold from a traced
// program the privileges that its file grants (execve(2): set-user-ID and file
// capabilities are ignored while an unprivileged process traces).
func losesPrivileges(path string) bool {
	if os.Geteuid() == 0 {
		return false
	}
	info, err := os.Stat(path)
	if err != nil {
		return false // the exec will say what is wrong
	}
	if info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
		return true
	}
	n, err := unix.Getxattr(path, "security.capability", nil)
	return err == nil && n > 0
}

// setNoFile sets the child's limit of open descriptors, soft and hard.
func setNoFile(pid int, want uint64) error {
	limit := want
	if limit == 0 {
		limit = DefaultNoFile
	}
	err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: limit, Max: limit}, nil)
	if err == nil {
		return nil
	}
	var has unix.Rlimit
	if getErr := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &has); getErr != nil {
		return fmt.Errorf("limit of open files: %w", getErr)
	}
	if want != 0 || limit <= has.Max {
		return fmt.Errorf("limit of open files: NoFile: %d with an inherited hard limit of %d: %w", limit, has.Max, err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: has.Max, Max: has.Max}, nil); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	return nil
}

// detach lets the child run. It may not have reached its stop yet: forkExec
// returns as soon as the exec closes the pipe between the two. The stop is not
// waited for by wait4, because another part of the program (a reaper of all
// children) may take that notice away.
func detach(pid, pidfd int) error {
	const bound = 10 * time.Second
	for end := time.Now().Add(bound); ; {
		err := unix.PtraceDetach(pid)
		if err == nil || exited(pidfd) {
			return nil
		}
		if !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("let process %d run: %w", pid, err)
		}
		if time.Now().After(end) {
			return fmt.Errorf("let process %d run: it did not stop at its exec within %v", pid, bound)
		}
		pause := unix.NsecToTimespec(int64(20 * time.Microsecond))
		_, _ = unix.Ppoll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, &pause, nil)
	}
}

func exited(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n == 1
		}
	}
}

// killAndReap ends a child that never came to anything.
func killAndReap(pidfd int) {
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
	for {
		err := unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = unix.Close(pidfd)
}

// isGone reports whether an error of /proc or of a pidfd means that the process
// does not exist.
func isGone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// signalName is "SIGKILL" and the like.
func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return strings.ToUpper(s.String())
}
