//go:build linux

package qemuengine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/fcemu"
)

// unplugTimeout bounds how long a pause waits for the guest to let go of its
// vsock device. A guest that is up takes 0.2 to 0.4 s.
const unplugTimeout = 5 * time.Second

// vsock is the host's side of the guest's vsock device: a vhost-device-vsock
// process, which speaks Firecracker's protocol, behind a door on uds_path. QEMU can't save the device. So the guest loses it before it is paused and
// gets it back when it goes on; its listeners survive, open connections end,
// as across a snapshot of Firecracker's.
type vsock struct {
	program string
	cid     uint32
	path    string

	door    *vsockDoor
	backend *child
	socket  *os.File // the backend's, an O_PATH descriptor
	link    *os.File // to the backend; QEMU is given it, too
	linked  bool     // QEMU was given it

	plugged bool // the guest has the device
	leaving bool // the guest was asked to let go of it and has not answered
	late    *lateUnplug
}

// lateUnplug waits for a guest that goes on without having answered.
type lateUnplug struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// attachVsock starts the backend, which binds uds_path. As with Firecracker a
// path that exists is refused, and a former socket of ours is removed.
func (e *Engine) attachVsock(ctx context.Context, v *fcemu.Vsock) error {
	if old := e.vsock; old != nil {
		e.vsock = nil
		old.close()
		if err := old.unlink(); err != nil {
			return err
		}
	}
	program, err := exec.LookPath(e.opt.VhostDeviceVsock)
	if err != nil {
		return fmt.Errorf("vsock: the qemu engine needs vhost-device-vsock (the Debian package of that name; https://github.com/rust-vmm/vhost-device): %w", err)
	}
	if program, err = filepath.Abs(program); err != nil {
		return fmt.Errorf("vsock: %w", err)
	}
	s := &vsock{program: program, cid: v.GuestCID, path: v.UDSPath}
	if strings.HasSuffix(s.path, "/") {
		return fmt.Errorf("vsock: bind uds_path %q: %w", s.path, unix.EISDIR)
	}
	l, err := listenBeside(s.path)
	if err != nil {
		return fmt.Errorf("vsock: bind uds_path %q: %w", s.path, err)
	}
	s.door = newVsockDoor(l)
	if err := s.startBackend(ctx); err != nil {
		s.close()
		return errors.Join(fmt.Errorf("vsock: %w", err), s.unlink())
	}
	e.vsock = s
	return nil
}

// listenBeside binds a path that may be too long for a socket's address.
func listenBeside(path string) (*net.UnixListener, error) {
	home, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer home.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", home.Fd(), filepath.Base(path))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	var no unix.Errno
	if errors.As(err, &no) {
		return nil, no // the rest speaks of the short path
	}
	return l, err
}

// startBackend returns when the backend is up. It must bind uds_path, because
// it makes the names of the guest's calls from that, so the door's socket makes
// room meanwhile. We keep the only connection to its other socket, and both
// lose their names. That other socket is beside uds_path, where we may write,
// and the backend is started there, so that its paths are short however deep
// that is.
func (s *vsock) startBackend(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("vhost-device-vsock did not come up in time"))
	defer cancel()
	home := filepath.Dir(s.path)
	dir, err := os.MkdirTemp(home, ".fcemu-")
	if err != nil {
		return fmt.Errorf("make a directory for a socket: %w", err)
	}
	defer os.RemoveAll(dir)
	in, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open the directory of a socket: %w", err)
	}
	defer in.Close()
	putBack, err := putAside(s.path, filepath.Join(dir, "door"))
	if err != nil {
		return err
	}
	defer func() {
		if back := putBack(); back != nil {
			s.stopBackend()
			err = errors.Join(err, back)
		}
	}()
	cmd := exec.Command(s.program, "--guest-cid="+strconv.FormatUint(uint64(s.cid), 10),
		"--socket="+filepath.Join(filepath.Base(dir), "vu"), "--uds-path="+filepath.Base(s.path))
	cmd.Dir = home
	backend, err := startChild(cmd)
	if err != nil {
		return err
	}
	link, err := dialBackend(ctx, fmt.Sprintf("/proc/self/fd/%d/vu", in.Fd()), backend.exited)
	if err != nil {
		backend.kill()
		if said := backend.stderr.String(); said != "" {
			return fmt.Errorf("vhost-device-vsock did not start: %s", said)
		}
		return fmt.Errorf("vhost-device-vsock did not start: %w", err)
	}
	socket, err := unix.Open(s.path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		link.Close()
		backend.kill()
		return fmt.Errorf("open the socket of vhost-device-vsock: %w", err)
	}
	s.backend, s.link, s.linked, s.socket = backend, link, false, os.NewFile(uintptr(socket), "vsock")
	return nil
}

// putAside renames a file; putBack renames it back over whatever has its name
// by then. A file that its user has removed stays removed.
func putAside(path, aside string) (putBack func() error, err error) {
	back := func() error { return os.Rename(aside, path) }
	err = os.Rename(path, aside)
	if errors.Is(err, os.ErrNotExist) {
		back, err = func() error { return os.Remove(path) }, nil
	}
	if err != nil {
		return nil, fmt.Errorf("move uds_path aside: %w", err)
	}
	return func() error {
		if err := back(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("move uds_path back: %w", err)
		}
		return nil
	}, nil
}

// dialBackend tries until the socket is there. It has no other sign of life.
func dialBackend(ctx context.Context, path string, exited <-chan struct{}) (*os.File, error) {
	retry := time.NewTicker(time.Millisecond)
	defer retry.Stop()
	for {
		c, err := net.Dial("unix", path)
		if err == nil {
			defer c.Close()
			return c.(*net.UnixConn).File()
		}
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) {
			return nil, err
		}
		select {
		case <-retry.C:
		case <-exited:
			return nil, errors.New("it ended at once")
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (s *vsock) stopBackend() {
	if s.backend == nil {
		return
	}
	s.door.shut()
	s.backend.kill() // before its links end: it would bind uds_path once more
	s.link.Close()
	s.socket.Close()
	s.backend, s.link, s.socket = nil, nil, nil
}

func (s *vsock) close() {
	s.stopBackend()
	s.door.close()
}

// unlink removes uds_path, if it is a socket.
func (s *vsock) unlink() error {
	st, err := os.Lstat(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && st.Mode().Type() == os.ModeSocket {
		err = os.Remove(s.path)
	}
	if err != nil {
		return fmt.Errorf("vsock: remove the former uds_path: %w", err)
	}
	return nil
}

// connection is the one to give to QEMU. A backend serves one only.
func (s *vsock) connection(ctx context.Context) (*os.File, error) {
	if s.linked || s.backend == nil {
		s.stopBackend()
		if err := s.startBackend(ctx); err != nil {
			return nil, fmt.Errorf("vsock: %w", err)
		}
	}
	s.linked = true
	return s.link, nil
}

// openVsock lets the host in to a device that the guest has now.
func (e *Engine) openVsock() {
	if e.vsock == nil || !e.vsock.plugged {
		return
	}
	p := &vsockPlug{vm: e.vm, socket: e.vsock.socket, link: e.vsock.link}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	e.vsock.door.open(p)
}

// unplugVsock takes the device from a running guest that is to be paused. A
// guest that does not let go in time keeps it; it can be paused but not saved.
func (e *Engine) unplugVsock(ctx context.Context) error {
	s, v := e.vsock, e.vm
	if s == nil {
		return nil
	}
	s.stopWaiting()
	if !s.plugged || !v.vsockInUse(ctx) {
		return nil
	}
	s.door.shut()
	v.mu.Lock()
	if v.unplugged == nil || !s.leaving {
		v.unplugged = make(chan bool, 1)
	}
	left := v.unplugged
	v.mu.Unlock()
	if _, err := v.qmp.run(ctx, "device_del", object{"id": vsockID}); err != nil && !s.leaving {
		return fmt.Errorf("take the vsock device from the guest: %w", err)
	}
	s.leaving = true
	timeout := time.NewTimer(unplugTimeout)
	defer timeout.Stop()
	select {
	case gone := <-left:
		return e.vsockLeft(ctx, gone)
	case <-timeout.C:
		e.logf(fcemu.LevelWarn, "The guest does not let go of its vsock device: no snapshot can be taken.")
		return nil
	case <-v.child.exited:
		return nil // the end is announced elsewhere
	case <-ctx.Done():
		return fmt.Errorf("take the vsock device from the guest: %w", context.Cause(ctx))
	}
}

// vsockLeft follows the guest's answer.
func (e *Engine) vsockLeft(ctx context.Context, gone bool) error {
	s := e.vsock
	s.leaving = false
	if !gone {
		e.logf(fcemu.LevelWarn, "The guest refuses to let go of its vsock device: no snapshot can be taken.")
		return nil
	}
	s.plugged = false
	if _, err := e.vm.qmp.run(ctx, "chardev-remove", object{"id": vsockChardev}); err != nil {
		return fmt.Errorf("let go of the vsock backend: %w", err)
	}
	s.stopBackend()
	return nil
}

// plugVsock gives the device to a guest that is about to go on.
func (e *Engine) plugVsock(ctx context.Context) (plugged bool, err error) {
	s := e.vsock
	if s == nil || s.plugged {
		return false, nil
	}
	c, err := s.connection(ctx)
	if err != nil {
		return false, err
	}
	q := e.vm.qmp
	if err := q.passFile(ctx, vsockChardev, c); err != nil {
		return false, fmt.Errorf("hand the vsock backend over: %w", err)
	}
	chardev := object{"id": vsockChardev, "backend": object{"type": "socket", "data": object{
		"addr": object{"type": "fd", "data": object{"str": vsockChardev}}, "server": false,
	}}}
	if _, err := q.run(ctx, "chardev-add", chardev); err != nil {
		return false, fmt.Errorf("connect the vsock backend: %w", err)
	}
	if _, err := q.run(ctx, "device_add", vsockDevice()); err != nil {
		return false, fmt.Errorf("give the guest its vsock device: %w", err)
	}
	s.plugged = true
	return true, nil
}

// settleVsock waits until the device works that the guest was just given.
func (e *Engine) settleVsock(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, unplugTimeout)
	defer cancel()
	if !e.vsock.door.settle(ctx) {
		e.logf(fcemu.LevelWarn, "The guest's vsock device does not answer yet.")
	}
}

// awaitVsock follows up on a guest that goes on while it still owes an answer:
// when it lets go after all it gets the device back.
func (e *Engine) awaitVsock() {
	s, v := e.vsock, e.vm
	if s == nil || !s.leaving {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.late = &lateUnplug{cancel: cancel, done: make(chan struct{})}
	v.mu.Lock()
	left := v.unplugged
	v.mu.Unlock()
	go func() {
		defer close(s.late.done)
		select {
		case gone := <-left:
			err := e.vsockLeft(ctx, gone)
			if err == nil {
				_, err = e.plugVsock(ctx)
			}
			if err == nil {
				e.openVsock()
			}
			if err != nil && ctx.Err() == nil {
				e.logf(fcemu.LevelError, "The guest's vsock device is gone: %v.", err)
			}
		case <-v.child.exited:
		case <-ctx.Done():
		}
	}()
}

func (s *vsock) stopWaiting() {
	if s.late != nil {
		s.late.cancel()
		<-s.late.done
		s.late = nil
	}
}

// vsockInUse reports whether the guest's driver has taken the device. Before
// that nobody would answer a request to let go of it.
func (v *vm) vsockInUse(ctx context.Context) bool {
	var st struct {
		Started bool `json:"started"`
	}
	args := object{"path": "/machine/peripheral/" + vsockID + "/virtio-backend"}
	if err := v.qmp.get(ctx, &st, "x-query-virtio-status", args); err != nil {
		return true // a QEMU that does not tell: ask the guest
	}
	return st.Started
}

// closeVsock leaves the socket's file behind, as Firecracker does.
func (e *Engine) closeVsock() {
	if e.vsock != nil {
		e.vsock.close()
		e.vsock = nil
	}
}
