package vmm

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// startInotify does without inotify where there is none to be had: a user may
// have 128 of them (fs.inotify.max_user_instances).
func (w *Watcher) startInotify() {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: inotifyKey}
	if err := unix.EpollCtl(w.epfd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		_ = unix.Close(fd)
		return
	}
	w.inotify = fd
}

// stopInotify is called with mu held. Closed channels send those who wait to
// look again by time.
func (w *Watcher) stopInotify() {
	if w.inotify < 0 {
		return
	}
	_ = unix.EpollCtl(w.epfd, unix.EPOLL_CTL_DEL, w.inotify, nil)
	_ = unix.Close(w.inotify)
	w.inotify = -1
	for _, chans := range w.waiting {
		for ch := range chans {
			close(ch)
		}
	}
	w.waiting = nil
}

// newFiles tells by inotify(7) of each new file in a directory. All directories
// of a Watcher share one inotify instance: a user has few of them, and to close
// one takes the kernel 10 ms.
//
// The channel is nil when the kernel gives no watch, and is closed when there is
// none any more: then the caller looks again by time. stop must be called.
func (w *Watcher) newFiles(dir *os.File) (created <-chan struct{}, stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.inotify < 0 {
		return nil, func() {}
	}
	path := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd()))
	wd, err := unix.InotifyAddWatch(w.inotify, path, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR)
	if err != nil {
		return nil, func() {}
	}
	key := int32(wd) // the same for the same directory
	ch := make(chan struct{}, 1)
	if w.waiting[key] == nil {
		w.waiting[key] = make(map[chan struct{}]bool)
	}
	w.waiting[key][ch] = true
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.inotify < 0 {
			return
		}
		delete(w.waiting[key], ch)
		if len(w.waiting[key]) == 0 {
			delete(w.waiting, key)
			// Fails when the directory is gone, and the watch with it. Its number
			// is not given again before 2^31 others.
			_, _ = unix.InotifyRmWatch(w.inotify, uint32(wd))
		}
	}
}

// deliverNewFiles reads what inotify has to tell.
func (w *Watcher) deliverNewFiles() {
	var buf [4096]byte // an event has at most 16 + 256 bytes
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.inotify < 0 {
		return
	}
	n, err := unix.Read(w.inotify, buf[:])
	if err != nil {
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			w.stopInotify()
		}
		return
	}
	for b := buf[:max(n, 0)]; len(b) >= unix.SizeofInotifyEvent; {
		key := int32(binary.NativeEndian.Uint32(b))
		mask := binary.NativeEndian.Uint32(b[4:])
		if mask&unix.IN_Q_OVERFLOW != 0 { // of any directory
			for _, chans := range w.waiting {
				wake(chans)
			}
		} else {
			wake(w.waiting[key])
		}
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		b = b[min(size, len(b)):]
	}
}

func wake(chans map[chan struct{}]bool) {
	for ch := range chans {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
