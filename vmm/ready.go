package vmm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
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
const retryStep = 300 * time.Microsecond

// WaitReady waits until p listens on the unix socket name in dir. It ends at
// once with an *ExitedError when p dies, with a *SocketInUseError when another
// process listens there, and with ctx.Err() (wrapped) when ctx ends.
func WaitReady(ctx context.Context, p *Process, dir, name string) error {
	fd, err := waitReady(ctx, p, dir, name)
	if fd >= 0 {
		_ = unix.Close(fd)
	}
	return err
}

// Connect is WaitReady that keeps its connection, whose other end p is proven to
// be. There is none (nil) where the kernel does not tell who it is.
func Connect(ctx context.Context, p *Process, dir, name string) (net.Conn, error) {
	fd, err := waitReady(ctx, p, dir, name)
	if err != nil || fd < 0 {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // FileConn has its own descriptor
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", filepath.Join(dir, name), err)
	}
	return c, nil
}

// waitReady returns the connection to p's socket, -1 if there is none.
func waitReady(ctx context.Context, p *Process, dir, name string) (int, error) {
	path := filepath.Join(dir, name)
	d, err := openDir(dir, name)
	if err != nil {
		return -1, fmt.Errorf("wait for socket %s: %w", path, err)
	}
	defer d.Close()
	created, stop := p.watcher.newFiles(d)
	defer stop()
	timer := time.NewTimer(retryStep)
	defer timer.Stop()
	for {
		fd, pid, err := connect(d, name)
		switch {
		case err == nil && pid == p.id.PID:
			return fd, nil
		case err == nil && fd >= 0:
			_ = unix.Close(fd)
		}
		switch {
		case err == nil && pid == 0:
			return -1, nil
		case err == nil:
			return -1, fmt.Errorf("wait for socket: %w", &SocketInUseError{Path: path, PID: pid})
		case !errors.Is(err, errRefused) && !errors.Is(err, unix.ENOENT):
			return -1, fmt.Errorf("wait for socket %s: %w", path, err)
		}
		var retry <-chan time.Time
		if created == nil || errors.Is(err, errRefused) {
			timer.Reset(retryStep)
			retry = timer.C
		}
		select {
		case _, ok := <-created:
			if !ok {
				created = nil
			}
		case <-retry:
		case <-p.done:
			status, known := p.Exit()
			return -1, fmt.Errorf("wait for socket %s: %w", path, &ExitedError{PID: p.id.PID, Status: status, Known: known})
		case <-ctx.Done():
			return -1, fmt.Errorf("wait for socket %s of process %d: %w", path, p.id.PID, ctx.Err())
		}
	}
}
