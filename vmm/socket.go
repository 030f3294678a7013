package vmm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// SocketInUseError says that a socket was not removed because a process listens
// on it.
type SocketInUseError struct {
	Path string
	PID  int // of the listener; 0 when the kernel does not say
}

func (e *SocketInUseError) Error() string {
	return fmt.Sprintf("socket %s is in use by process %d: stop that process, or use another path", e.Path, e.PID)
}

// errRefused says that nobody listens on a socket.
var errRefused = errors.New("nobody listens")

// RemoveSocket removes the unix socket that a dead VMM has left in dir: VMMs do
// not remove their sockets, and refuse to start on an existing one. A missing
// socket is no error. It is a *SocketInUseError when a process listens, and an
// error when name is something other than a socket. It must not race with the
// start of a VMM in the same dir.
func RemoveSocket(dir, name string) error {
	d, err := openDir(dir, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove socket: %w", err)
	}
	defer d.Close()
	path := filepath.Join(dir, name)
	var st unix.Stat_t
	err = unix.Fstatat(int(d.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return fmt.Errorf("remove socket %s: %w", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return fmt.Errorf("remove socket %s: it is not a socket: move it away", path)
	}
	pid, err := owner(d, name)
	switch {
	case err == nil:
		return fmt.Errorf("remove socket: %w", &SocketInUseError{Path: path, PID: pid})
	case errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, errRefused):
		return fmt.Errorf("remove socket %s: is it in use? %w", path, err)
	}
	if err := unix.Unlinkat(int(d.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove socket %s: %w", path, err)
	}
	return nil
}

// SocketOwner returns the pid of the process that listens on a unix stream
// socket (SO_PEERCRED, unix(7)); 0 when that process is outside this PID
// namespace. It connects, and closes the connection at once. When nobody listens
// the error wraps ErrGone.
func SocketOwner(dir, name string) (int, error) {
	d, err := openDir(dir, name)
	if err != nil {
		return 0, fmt.Errorf("owner of socket: %w", err)
	}
	defer d.Close()
	pid, err := owner(d, name)
	if errors.Is(err, errRefused) || errors.Is(err, unix.ENOENT) {
		err = fmt.Errorf("%w (%w)", err, ErrGone)
	}
	if err != nil {
		return 0, fmt.Errorf("owner of socket %s: %w", filepath.Join(dir, name), err)
	}
	return pid, nil
}

// openDir opens the directory of a socket, through which the socket is reached
// however long its path is (a unix address holds 107 bytes).
func openDir(dir, name string) (*os.File, error) {
	if name == "" || name == "." || name == ".." || filepath.Base(name) != name {
		return nil, fmt.Errorf("socket name %q is not that of a file in a directory", name)
	}
	if len(name) > 80 { // /proc/self/fd/… stands before it
		return nil, fmt.Errorf("socket name %q is longer than 80 bytes", name)
	}
	return os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
}

// owner says who listens on a socket, without ever waiting.
func owner(dir *os.File, name string) (int, error) {
	fd, pid, err := connect(dir, name)
	if fd >= 0 {
		_ = unix.Close(fd)
	}
	return pid, err
}

// connect never waits. pid is 0, and fd may be -1, where the kernel does not say
// who listens.
func connect(dir *os.File, name string) (fd, pid int, err error) {
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, 0, os.NewSyscallError("socket", err)
	}
	addr := &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name}
	for {
		err = unix.Connect(fd, addr)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		var cred *unix.Ucred
		if cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			return fd, int(cred.Pid), nil
		}
		err = os.NewSyscallError("getsockopt SO_PEERCRED", err)
	} else {
		switch {
		case errors.Is(err, unix.EAGAIN):
			err = nil // its queue is full: it is alive, but does not say who it is
		case errors.Is(err, unix.ECONNREFUSED):
			err = errRefused
		default:
			err = os.NewSyscallError("connect", err)
		}
	}
	_ = unix.Close(fd)
	return -1, 0, err
}
