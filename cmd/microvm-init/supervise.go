//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// imageInit is the real init of a root disk whose /sbin/init we are.
const imageInit = "/etc/microvm/init"

// supervise runs init as process 1 of a PID namespace of its own and restarts the
// machine when it ends. In a PID namespace reboot(2) ends the namespace instead
// of the machine (pid_namespaces(7)), so power-off and halt, which Firecracker
// would not notice, become the restart that it does notice. It returns only if
// init can't be started.
func supervise(root, init string, args []string) error {
	if err := prepare(); err != nil {
		return err
	}
	// Ctrl-Alt-Del then is a SIGINT to us instead of a reset without sync.
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		say("Ctrl-Alt-Del stays a hard reset: %v", err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGPWR, unix.SIGUSR1, unix.SIGUSR2)
	inner, err := startInner(init, args)
	if err != nil {
		return fmt.Errorf("start %s: %w", init, err)
	}
	go forward(signals, inner)
	status, err := reap(inner)
	if err != nil {
		return err
	}
	say("%s ended (%s): restarting the machine", init, describe(status))
	// Its processes are gone with it, and so are the mounts that they made.
	if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil && !errors.Is(err, unix.EROFS) {
		say("remount / read-only: %v", err)
	}
	restart()
	return nil
}

// prepare mounts what is missing when no initrd ran before us.
func prepare() error {
	for _, m := range []struct {
		kind, dir string
		magic     int64
	}{
		{"proc", "/proc", unix.PROC_SUPER_MAGIC},
		{"sysfs", "/sys", unix.SYSFS_MAGIC},
		{"devtmpfs", "/dev", unix.TMPFS_MAGIC},
	} {
		var fs unix.Statfs_t
		if err := unix.Statfs(m.dir, &fs); err != nil {
			say("the root disk has no directory %s", m.dir)
			continue
		}
		if int64(fs.Type) == m.magic {
			continue
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, unix.MS_NOSUID, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	return nil
}

// startInner starts ourselves in new PID and mount namespaces; there we mount
// that namespace's /proc and become init.
func startInner(init string, args []string) (int, error) {
	argv := append([]string{asInner, init}, args...)
	return syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Setsid: true},
	})
}

// runInner runs in the new namespaces.
func runInner(argv []string) error {
	if len(argv) == 0 {
		return errors.New("no init to run")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return fmt.Errorf("run %s: %w", argv[0], unix.Exec(argv[0], argv, os.Environ()))
}

// forward passes on what a kernel or a host would tell process 1: SIGINT is
// Ctrl-Alt-Del.
func forward(signals <-chan os.Signal, pid int) {
	for s := range signals {
		if err := unix.Kill(pid, s.(syscall.Signal)); err != nil {
			say("pass %s on: %v", s, err)
		}
	}
}

// reap collects every child that dies until it is init's turn.
func reap(inner int) (unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return status, fmt.Errorf("wait: %w", err)
		case pid == inner:
			return status, nil
		}
	}
}

// describe reads the status of a namespace's init: reboot(2) in there shows as a
// signal (pid_namespaces(7)).
func describe(s unix.WaitStatus) string {
	switch {
	case s.Signaled() && s.Signal() == unix.SIGINT:
		return "power-off or halt"
	case s.Signaled() && s.Signal() == unix.SIGHUP:
		return "reboot"
	case s.Signaled():
		return "killed by " + s.Signal().String()
	default:
		return fmt.Sprintf("exit code %d", s.ExitStatus())
	}
}
