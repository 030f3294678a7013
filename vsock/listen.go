package vsock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// InUseError says that another process listens on the socket.
type InUseError struct {
	Path string
	PID  int // 0 when the kernel does not say
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("socket %s is in use by process %d", e.Path, e.PID)
}

// Listener accepts the connections that a guest makes to one port of the host.
// It is a net.Listener.
type Listener struct {
	unix *net.UnixListener
	addr Addr
	dir  *os.File // of the socket, wherever it may be renamed to
	name string
	ino  uint64
	dev  uint64
	once sync.Once
}

// Listen accepts connections of the guest to a port of the host (CID 2). socket
// is the path of the VMM's vsock socket; the VMM connects to "<socket>_<port>",
// which is made here and removed by Close. A socket of that name that a dead
// program left is replaced; it is an *InUseError when a process listens on it,
// and an error when it is something other than a socket. The VMM needs the right
// to write to the socket, which is made under the umask of this program. Two
// Listens for one socket and port at the same moment must be kept apart by the
// caller.
func Listen(socket string, port uint32) (*Listener, error) {
	if _, err := fileName(socket); err != nil {
		return nil, fmt.Errorf("listen on vsock port %d: %w", port, err)
	}
	path := socket + "_" + strconv.FormatUint(uint64(port), 10)
	dir, name, err := openDir(path)
	if err != nil {
		return nil, fmt.Errorf("listen on vsock port %d: %w", port, err)
	}
	l, err := listen(dir, name, path)
	if err != nil {
		_ = dir.Close()
		return nil, fmt.Errorf("listen on vsock port %d: %w", port, err)
	}
	l.addr = Addr{socket, port}
	return l, nil
}

func listen(dir *os.File, name, path string) (*Listener, error) {
	if err := removeStale(dir, name, path); err != nil {
		return nil, err
	}
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: procPath(dir, name), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, plain(err))
	}
	u.SetUnlinkOnClose(false)
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		_ = u.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Listener{unix: u, dir: dir, name: name, ino: st.Ino, dev: uint64(st.Dev)}, nil
}

// removeStale removes a socket that nobody listens on.
func removeStale(dir *os.File, name, path string) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return fmt.Errorf("%s is not a socket: move it away", path)
	}
	c, err := connectIn(dir, name)
	switch {
	case err == nil:
		defer c.Close()
		return &InUseError{Path: path, PID: peer(c)}
	case errors.Is(err, unix.EAGAIN):
		return &InUseError{Path: path}
	case errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%s: is it in use? %w", path, err)
	}
	if err := unix.Unlinkat(int(dir.Fd()), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove stale socket %s: %w", path, err)
	}
	return nil
}

func peer(c *net.UnixConn) int {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// Accept waits for the next connection; it is a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.unix.AcceptUnix()
	if err != nil {
		return nil, fmt.Errorf("accept on vsock %v: %w", l.addr, plain(err))
	}
	return &Conn{UnixConn: c, local: l.addr, remote: Addr{Socket: l.addr.Socket}}, nil
}

// Addr is an Addr.
func (l *Listener) Addr() net.Addr { return l.addr }

// Close ends Accept and removes the socket, unless somebody has put another one
// in its place. Connections that were accepted stay open.
func (l *Listener) Close() error {
	var err error
	l.once.Do(func() {
		var st unix.Stat_t
		statErr := unix.Fstatat(int(l.dir.Fd()), l.name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if statErr == nil && st.Ino == l.ino && uint64(st.Dev) == l.dev {
			err = unix.Unlinkat(int(l.dir.Fd()), l.name, 0)
		}
		err = errors.Join(err, l.unix.Close(), l.dir.Close())
	})
	if err != nil {
		return fmt.Errorf("close vsock listener %s: %w", filepath.Base(l.name), err)
	}
	return nil
}
