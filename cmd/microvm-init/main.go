//go:build linux

// Command microvm-init is the first program of a guest. It has two lives.
//
// As /init of an initrd made by `microvm kernel import` it loads the modules that
// the initrd lists, applies ip=, finds and mounts the root disk, and hands over
// to the root disk's init.
//
// As /sbin/init of a root disk made by `microvm image build --demo` (or with
// microvm.init=supervise on the command line, for any root disk) it stays process
// 1 and runs the real init, /etc/microvm/init, in a PID namespace below it.
// Whatever that init does to end the machine (power-off, halt, reboot, exit) ends
// in a reboot of the virtual machine, which is the one thing that ends a
// Firecracker process.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Names that we are run by. The kernel runs /init from an initrd only; the second
// is how we run ourselves in the new namespace.
const (
	asInitrd = "/init"
	asInner  = "microvm-init:inner"
)

func main() {
	if os.Args[0] == asInner {
		fail(runInner(os.Args[1:]))
		os.Exit(1)
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "microvm-init: this is the init of a microVM's guest and only runs as process 1")
		os.Exit(2)
	}
	var err error
	if os.Args[0] == asInitrd {
		err = boot()
	} else {
		err = supervise("/", imageInit, os.Args[1:])
	}
	// Both return only if they failed.
	fail(err)
	restart()
}

// say prints a line on the guest's console.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "microvm-init: "+format+"\n", args...)
}

func fail(err error) {
	say("FATAL: %v", err)
}

// restart ends the machine: with reboot=k (or t) and Firecracker or fcemu below,
// the VMM ends.
func restart() {
	unix.Sync()
	// The console must be out before the machine is gone. A console that can't
	// drain (ENOTTY: not a terminal) has nothing to wait for.
	_ = unix.IoctlSetInt(int(os.Stderr.Fd()), unix.TCSBRK, 1)
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	// Only without CAP_SYS_BOOT. The kernel panics when process 1 ends.
	fmt.Fprintln(os.Stderr, "microvm-init: reboot:", err)
	os.Exit(1)
}
