//go:build linux

// Program hostinit is the init of the nested host in which "make test-real" runs a
// real Firecracker: it mounts what a Linux host has, runs one command, sends its
// output and its exit code through the second serial port, and powers off.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// order is what is to be run; the host's disk has it in orderFile.
type order struct {
	Args []string
	Env  []string
	Dir  string
}

const (
	orderFile  = "/etc/order.json"
	resultPort = "/dev/ttyS1"
)

func main() {
	// What goes wrong here is seen on the console, which the test keeps.
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "hostinit:", err)
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "hostinit: power off:", err)
	}
}

func run() error {
	if os.Getpid() != 1 {
		return errors.New("this is the init of a test's host, and only runs as process 1")
	}
	port, err := os.OpenFile(resultPort, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer port.Close()
	if err := raw(port); err != nil {
		return fmt.Errorf("make %s raw: %w", resultPort, err)
	}
	code, err := execute(port)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(port, "\nhostinit: exit code %d\n", code); err != nil {
		return err
	}
	// All of it must be out before the machine is gone.
	return unix.IoctlSetInt(int(port.Fd()), unix.TCSBRK, 1)
}

// raw has bytes go through as they are.
func raw(port *os.File) error {
	t, err := unix.IoctlGetTermios(int(port.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
	return unix.IoctlSetTermios(int(port.Fd()), unix.TCSETS, t)
}

func execute(output io.Writer) (int, error) {
	for _, m := range []struct{ kind, dir string }{
		// The initrd has mounted /proc, /sys and /dev.
		{"tmpfs", "/tmp"}, {"tmpfs", "/run"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return 0, fmt.Errorf("mount %s on %s: %w", m.kind, m.dir, err)
		}
	}
	b, err := os.ReadFile(orderFile)
	if err != nil {
		return 0, err
	}
	var o order
	if err := json.Unmarshal(b, &o); err != nil {
		return 0, fmt.Errorf("read %s: %w", orderFile, err)
	}
	if len(o.Args) == 0 {
		return 0, fmt.Errorf("%s has no command", orderFile)
	}
	cmd := exec.Command(o.Args[0], o.Args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = o.Env, o.Dir, output, output
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	return reap(cmd.Process.Pid)
}

// reap waits for the command, and for all the orphans that init gets meanwhile.
func reap(command int) (int, error) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case pid != command:
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		default:
			return status.ExitStatus(), nil
		}
	}
}
