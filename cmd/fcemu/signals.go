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
// do otherwise: it ignores some of those that kill, and answers one with a
// dump. The ones that Firecracker catches end the process with its codes.
// Closing done says that the process is about to leave; ready is closed once
// all of them are caught, which must be before the API listens: who can ask the
// original anything can also signal it.
func catch(cancel context.CancelCauseFunc) (done chan<- struct{}, ready <-chan struct{}) {
	for _, s := range []unix.Signal{
		unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGVTALRM, unix.SIGIO, unix.SIGPWR, unix.SIGSTKFLT,
	} {
		setDefault(s)
	}
	leaving, caught := make(chan struct{}), make(chan struct{})
	// Beside the rest of the start-up: each signal costs a round trip to a thread
	// of the runtime's.
	go func() {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals,
			unix.SIGHUP, unix.SIGXFSZ, unix.SIGXCPU, unix.SIGSYS, unix.SIGBUS, unix.SIGSEGV, unix.SIGILL)
		close(caught)
		s := (<-signals).(unix.Signal)
		code, _ := fcemu.ExitCodeOf(s)
		cancel(fcemu.EndedBySignal{Signal: s})
		select {
		case <-leaving:
		case <-time.After(exitTimeout):
			os.Exit(code)
		}
	}()
	return leaving, caught
}

// setDefault gives a signal its default action. Go's own reset would leave the
// runtime's handler in place.
func setDefault(s unix.Signal) {
	// The kernel's struct sigaction, all zero: SIG_DFL. It can't fail for a
	// signal that exists.
	var action [4]uint64
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
}

// dieBy ends the process by a signal's default action.
func dieBy(s unix.Signal) {
	setDefault(s)
	_ = unix.Kill(unix.Getpid(), s) // our own process is always there
	// It may be delivered to another thread, a moment later.
	time.Sleep(exitTimeout)
	os.Exit(128 + int(s))
}
