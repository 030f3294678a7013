package main

import (
	"context"
	"os"
	"os/signal"
	"time"
	"unsafe"

	"github.com/tangle-network/microvm/fcemu"
	"golang.org/x/sys/unix"
)

// exitTimeout is how long a clean end may take after a signal that the
// original answers by leaving at once.
const exitTimeout = time.Second

// catch makes signals act as they do on Firecracker, where Go's runtime would
// do otherwise: the ones that it catches end the process with its codes, the
// others, which Go ignores or answers with a dump, kill. Closing the channel
// says that the process is about to leave.
func catch(cancel context.CancelCauseFunc) (done chan struct{}) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals,
		unix.SIGSYS, unix.SIGBUS, unix.SIGSEGV, unix.SIGXFSZ, unix.SIGXCPU, unix.SIGHUP, unix.SIGILL,
		unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGVTALRM, unix.SIGIO, unix.SIGPWR, unix.SIGSTKFLT)
	done = make(chan struct{})
	go func() {
		s := (<-signals).(unix.Signal)
		code, caught := fcemu.ExitCodeOf(s)
		if !caught {
			dieBy(s)
		}
		cancel(fcemu.EndedBySignal{Signal: s})
		select {
		case <-done:
		case <-time.After(exitTimeout):
			os.Exit(code)
		}
	}()
	return done
}

// dieBy ends the process by a signal's default action.
func dieBy(s unix.Signal) {
	// The kernel's struct sigaction, all zero: SIG_DFL. Go's own reset would
	// leave the runtime's handler in place.
	var action [4]uint64
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0); errno == 0 {
		_ = unix.Kill(unix.Getpid(), s) // our own process is always there
	}
	// The signal may be blocked on this thread; it is not on the others.
	time.Sleep(exitTimeout)
	os.Exit(128 + int(s))
}
