package vmm

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Watcher starts and adopts processes and learns of their deaths. It has one
// goroutine, whatever the number of processes, and one descriptor for each
// living process. All methods are safe for concurrent use.
type Watcher struct {
	loop chan struct{} // closed when the goroutine has ended

	mu     sync.Mutex
	closed bool
	epoll  *os.File
	epfd   int
	next   int32
	procs  map[int32]*Process
	// inotify is -1 when the kernel gave none.
	inotify int
	waiting map[int32]map[chan struct{}]bool // by watch descriptor
}

// inotifyKey is inotify's place among the keys of processes.
const inotifyKey = 0

// NewWatcher returns a Watcher; Close it.
func NewWatcher() (*Watcher, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch processes: %w", os.NewSyscallError("epoll_create1", err))
	}
	// Non-blocking, it is itself watched by Go's poller: no thread waits in it.
	if err := unix.SetNonblock(epfd, true); err != nil {
		_ = unix.Close(epfd)
		return nil, fmt.Errorf("watch processes: %w", err)
	}
	w := &Watcher{
		loop:  make(chan struct{}),
		epoll: os.NewFile(uintptr(epfd), "epoll of pidfds"),
		epfd:  epfd,
		procs: make(map[int32]*Process),

		inotify: -1,
		waiting: make(map[int32]map[chan struct{}]bool),
	}
	conn, err := w.epoll.SyscallConn()
	if err != nil {
		_ = w.epoll.Close()
		return nil, fmt.Errorf("watch processes: %w", err)
	}
	w.startInotify()
	go func() {
		defer close(w.loop)
		var events [64]unix.EpollEvent
		for {
			n := 0
			err := conn.Read(func(fd uintptr) bool {
				var err error
				n, err = unix.EpollWait(int(fd), events[:], 0)
				return err != nil && !errors.Is(err, unix.EINTR) || n > 0
			})
			if err != nil {
				return // closed
			}
			for _, e := range events[:max(n, 0)] {
				if e.Fd == inotifyKey {
					w.deliverNewFiles()
					continue
				}
				w.deliver(e.Fd, e.Events)
			}
		}
	}()
	return w, nil
}

// Close stops watching and waits for the goroutine. The processes live on; their
// Done channels stay as they are. A child of this program that dies after Close
// stays a zombie until another Watcher opens it or the program ends.
func (w *Watcher) Close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		<-w.loop
		return nil
	}
	w.closed = true
	procs := w.procs
	w.procs = nil
	w.stopInotify()
	err := w.epoll.Close()
	w.mu.Unlock()
	<-w.loop
	for _, p := range procs {
		p.release()
	}
	return err
}

// Start starts a process in a session of its own. The process is bound to
// nothing here: it lives on when this program ends.
//
// An error means that no process is left. The error of the exec itself (no such
// file, permission denied) is among them: it wraps a syscall.Errno.
func (w *Watcher) Start(c Command) (*Process, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	child, err := spawn(&c)
	if err != nil {
		return nil, err
	}
	p := &Process{
		id:    Identity{PID: child.pid, StartTime: child.stat.startTime, BootID: boot},
		pidfd: child.pidfd,
		done:  make(chan struct{}),
	}
	if err := w.watch(p); err != nil {
		killAndReap(child.pidfd)
		return nil, err
	}
	return p, nil
}

// Open finds the process that an earlier program (or an earlier Watcher)
// started. It is ErrGone when that process is dead, a zombie included, or when
// its pid now belongs to another one; nothing is signalled to find out.
func (w *Watcher) Open(id Identity) (*Process, error) {
	if id.PID <= 1 || id.StartTime == 0 || id.BootID == "" {
		return nil, fmt.Errorf("open process: incomplete identity (%v): %w", id, ErrGone)
	}
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	if boot != id.BootID {
		return nil, fmt.Errorf("open process %d: the host has booted since: %w", id.PID, ErrGone)
	}
	pidfd, err := unix.PidfdOpen(id.PID, 0)
	switch {
	case err == nil:
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		// EINVAL and ENOENT: the number now belongs to a thread.
		return nil, fmt.Errorf("open process %d: %w", id.PID, ErrGone)
	default:
		return nil, fmt.Errorf("open process %d: %w", id.PID, os.NewSyscallError("pidfd_open", err))
	}
	// The pidfd is held: what it refers to can't change any more while it is
	// checked.
	stat, err := readStat(id.PID)
	switch {
	case err != nil:
		err = fmt.Errorf("open process %d: %w", id.PID, err)
	case stat.startTime != id.StartTime:
		err = fmt.Errorf("open process %d: the pid belongs to another process now (started at tick %d, not %d): %w",
			id.PID, stat.startTime, id.StartTime, ErrGone)
	case stat.dead() || exited(pidfd):
		reap(pidfd)
		err = fmt.Errorf("open process %d: %w", id.PID, ErrGone)
	}
	if err != nil {
		_ = unix.Close(pidfd)
		return nil, err
	}
	p := &Process{id: id, pidfd: pidfd, done: make(chan struct{})}
	if err := w.watch(p); err != nil {
		_ = unix.Close(pidfd)
		return nil, err
	}
	return p, nil
}

func (w *Watcher) watch(p *Process) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return fmt.Errorf("watch process %d: watcher: %w", p.id.PID, os.ErrClosed)
	}
	for used := true; used || w.next == inotifyKey; _, used = w.procs[w.next] {
		w.next++
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: w.next}
	if err := unix.EpollCtl(w.epfd, unix.EPOLL_CTL_ADD, p.pidfd, &ev); err != nil {
		return fmt.Errorf("watch process %d: %w", p.id.PID, os.NewSyscallError("epoll_ctl", err))
	}
	p.watcher, p.key = w, w.next
	w.procs[w.next] = p
	return nil
}

// forget takes a process off the watch; it does nothing if it is not on it.
func (w *Watcher) forget(p *Process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.procs[p.key] != p {
		return
	}
	delete(w.procs, p.key)
	// A closed descriptor would leave the set by itself, unless another process
	// inherited it.
	_ = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_DEL, p.pidfd, nil)
}

func (w *Watcher) deliver(key int32, events uint32) {
	w.mu.Lock()
	p := w.procs[key]
	w.mu.Unlock()
	if p == nil {
		return
	}
	if final := p.died(events&unix.EPOLLHUP != 0); final {
		p.Close()
		return
	}
	// A stranger's child: its exit status can be read once its parent has reaped
	// it, which the kernel reports as a hang-up. That is reported unasked.
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.procs[key] == p {
		ev := unix.EpollEvent{Events: 0, Fd: key}
		_ = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_MOD, p.pidfd, &ev)
	}
}
