package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is one VMM: a child of this program or an adopted one. All methods are
// safe for concurrent use.
type Process struct {
	id      Identity
	watcher *Watcher
	key     int32
	done    chan struct{}

	mu        sync.Mutex
	pidfd     int // -1 once it is closed
	dead      bool
	exit      ExitStatus
	exitKnown bool
}

// Identity is what to record in order to Open the process later.
func (p *Process) Identity() Identity { return p.id }

// PID returns the process id.
func (p *Process) PID() int { return p.id.PID }

// Done returns a channel that is closed when the process has died. It stays open
// after Process.Close and Watcher.Close, which end the watch, not the process.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit returns how the process ended. It is false while it lives, and when that
// can't be known: the process was not a child of this program and the kernel is
// older than 6.15, or its parent has not reaped it (yet).
func (p *Process) Exit() (ExitStatus, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead && !p.exitKnown && p.pidfd >= 0 {
		p.exit, p.exitKnown = exitInfo(p.pidfd)
	}
	return p.exit, p.exitKnown
}

// Signal sends a signal through the pidfd, to this very process or to none:
// ErrGone when it is dead.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.usable(); err != nil {
		return fmt.Errorf("signal process %d: %w", p.id.PID, err)
	}
	err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		err = ErrGone
	}
	if err != nil {
		return fmt.Errorf("send %s to process %d: %w", signalName(sig), p.id.PID, err)
	}
	return nil
}

func (p *Process) usable() error {
	switch {
	case p.dead:
		return ErrGone
	case p.pidfd < 0:
		return os.ErrClosed
	}
	return nil
}

// Kill sends SIGKILL to the process and to its process group.
func (p *Process) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.usable(); err != nil {
		return fmt.Errorf("kill process %d: %w", p.id.PID, err)
	}
	// While mu is held nobody here reaps the process, so the number of its group
	// is its own.
	killGroup(p.pidfd, p.id.PID)
	err := unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", p.id.PID, err)
	}
	return nil
}

// Step is what ended a process in Stop.
type Step string

// The steps of Stop.
const (
	StepNone Step = "none" // it was dead already
	StepTerm Step = "SIGTERM"
	StepKill Step = "SIGKILL"
)

// killBound is how long a killed process may take to be gone. A process with
// gigabytes to give back takes a few dozen milliseconds; one in uninterruptible
// sleep may take for ever.
const killBound = 10 * time.Second

// Stop ends the process: SIGTERM, then after the grace period (0: at once)
// SIGKILL, which goes to its process group as well. It returns when the process
// is dead and says which step did it. When ctx ends first the process is left as
// it is and the error wraps ctx.Err(); when a killed process does not die within
// 10 s the error says so. Both can be tried again.
func (p *Process) Stop(ctx context.Context, grace time.Duration) (Step, error) {
	select {
	case <-p.done:
		return StepNone, nil
	default:
	}
	if grace > 0 {
		if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, ErrGone) {
			return StepNone, err
		}
		dead, err := p.wait(ctx, grace)
		if err != nil || dead {
			return StepTerm, err
		}
	}
	if err := p.Kill(); err != nil && !errors.Is(err, ErrGone) {
		return StepKill, err
	}
	dead, err := p.wait(ctx, killBound)
	if err == nil && !dead {
		err = fmt.Errorf("stop process %d: it is still there %v after SIGKILL (state %s)", p.id.PID, killBound, p.state())
	}
	return StepKill, err
}

// wait returns false when the time is over.
func (p *Process) wait(ctx context.Context, d time.Duration) (bool, error) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.done:
		return true, nil
	case <-t.C:
		return false, nil
	case <-ctx.Done():
		return false, fmt.Errorf("stop process %d: %w", p.id.PID, ctx.Err())
	}
}

func (p *Process) state() string {
	s, err := readStat(p.id.PID)
	if err != nil {
		return "unknown"
	}
	return string(s.state)
}

// WorksIn reports whether dir is the working directory of the process. Together
// with the identity it ties a process to its VM. It needs the rights of ptrace(2)
// over the process. ErrGone when it is dead.
func (p *Process) WorksIn(dir string) (bool, error) {
	want, err := os.Stat(dir)
	if err != nil {
		return false, fmt.Errorf("working directory of process %d: %w", p.id.PID, err)
	}
	got, err := p.link("cwd")
	if err != nil {
		return false, fmt.Errorf("working directory of process %d: %w", p.id.PID, err)
	}
	return os.SameFile(want, got), nil
}

// Program returns the device and inode numbers of the file that the process
// executes: those of the file that was at the path then, if another one is there
// now. It needs the rights of ptrace(2) over the process. ErrGone when it is dead.
func (p *Process) Program() (dev, inode uint64, err error) {
	got, err := p.link("exe")
	if err != nil {
		return 0, 0, fmt.Errorf("program of process %d: %w", p.id.PID, err)
	}
	st, ok := got.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, fmt.Errorf("program of process %d: stat tells no inode: %w", p.id.PID, errors.ErrUnsupported)
	}
	return uint64(st.Dev), st.Ino, nil
}

// link is what a link among the entries of the process in /proc leads to.
func (p *Process) link(name string) (os.FileInfo, error) {
	got, err := os.Stat("/proc/" + strconv.Itoa(p.id.PID) + "/" + name)
	// The answer is about this process only if it is still alive after it.
	p.mu.Lock()
	defer p.mu.Unlock()
	if gone := p.usable(); gone != nil {
		return nil, gone
	}
	if exited(p.pidfd) {
		return nil, ErrGone
	}
	return got, err
}

// Close ends the watch over the process, which lives on. It is not needed for a
// process that has died.
func (p *Process) Close() {
	if p.watcher != nil {
		p.watcher.forget(p)
	}
	p.release()
}

func (p *Process) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd >= 0 {
		_ = unix.Close(p.pidfd)
		p.pidfd = -1
	}
}

// died takes note of the death and reports whether nothing more can be learned
// about it. reaped says that the parent has collected the exit status.
func (p *Process) died(reaped bool) (final bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd < 0 {
		return true
	}
	if !p.dead {
		p.dead = true
		// What it started goes with it (an emulator's QEMU, for example).
		killGroup(p.pidfd, p.id.PID)
		defer close(p.done)
		if p.exit, p.exitKnown = reap(p.pidfd); p.exitKnown {
			return true
		}
	}
	if !p.exitKnown {
		p.exit, p.exitKnown = exitInfo(p.pidfd)
	}
	return p.exitKnown || reaped || !hasExitInfo(p.pidfd)
}
