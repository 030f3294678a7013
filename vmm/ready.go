package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// ExitedError says that a process died while something was expected of it.
type ExitedError struct {
	PID    int
	Status ExitStatus
	Known  bool // whether Status is known
}

func (e *ExitedError) Error() string {
	if !e.Known {
		return fmt.Sprintf("process %d died", e.PID)
	}
	return fmt.Sprintf("process %d died: %v", e.PID, e.Status)
}

// Is makes the error ErrGone.
func (e *ExitedError) Is(target error) bool { return target == ErrGone }

// retryStep is the time between two attempts to connect while a socket exists
// but nobody listens on it yet, and everywhere when inotify can't be had.
const retryStep = 500 * time.Microsecond

// WaitReady waits until p listens on the unix socket name in dir. It ends at
// once with an *ExitedError when p dies, with a *SocketInUseError when another
// process listens there, and with ctx.Err() (wrapped) when ctx ends.
func WaitReady(ctx context.Context, p *Process, dir, name string) error {
	path := filepath.Join(dir, name)
	d, err := openDir(dir, name)
	if err != nil {
		return fmt.Errorf("wait for socket %s: %w", path, err)
	}
	defer d.Close()
	created, stop := watchDir(d)
	defer stop()
	timer := time.NewTimer(retryStep)
	defer timer.Stop()
	for {
		pid, err := owner(d, name)
		switch {
		case err == nil && (pid == p.id.PID || pid == 0):
			return nil
		case err == nil:
			return fmt.Errorf("wait for socket: %w", &SocketInUseError{Path: path, PID: pid})
		case !errors.Is(err, errRefused) && !errors.Is(err, unix.ENOENT):
			return fmt.Errorf("wait for socket %s: %w", path, err)
		}
		var retry <-chan time.Time
		if created == nil || errors.Is(err, errRefused) {
			timer.Reset(retryStep)
			retry = timer.C
		}
		select {
		case <-created:
		case <-retry:
		case <-p.done:
			status, known := p.Exit()
			return fmt.Errorf("wait for socket %s: %w", path, &ExitedError{PID: p.id.PID, Status: status, Known: known})
		case <-ctx.Done():
			return fmt.Errorf("wait for socket %s of process %d: %w", path, p.id.PID, ctx.Err())
		}
	}
}

// watchDir reports each new file in a directory. The channel is nil when there
// is no inotify instance left (a user has 128 by default): then the caller tries
// again by time. stop must be called.
func watchDir(d *os.File) (created <-chan struct{}, stop func()) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, func() {}
	}
	f := os.NewFile(uintptr(fd), "inotify")
	path := "/proc/self/fd/" + strconv.Itoa(int(d.Fd()))
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR); err != nil {
		_ = f.Close()
		return nil, func() {}
	}
	ch := make(chan struct{}, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 4096)
		for {
			if _, err := f.Read(buf); err != nil {
				return // closed
			}
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}()
	return ch, func() {
		_ = f.Close()
		<-ended
	}
}
