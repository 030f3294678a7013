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

const (
	plugTries     = 3
	answerTimeout = time.Second
	noPort        = 1<<32 - 2 // VMADDR_PORT_ANY - 1
)

// vsock is the host's side of the guest's vsock device: a vhost-device-vsock
// process, which listens on uds_path and speaks Firecracker's protocol there.
// QEMU can't save the device. So the guest loses it before it is paused and
// gets it back when it goes on; its listeners survive, open connections end,
// as across a snapshot of Firecracker's.
type vsock struct {
	program string
	cid     uint32
	path    string

	backend *child
	conn    *os.File // to the backend, until QEMU has it

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
		old.stopBackend()
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
	if _, err := os.Lstat(s.path); err == nil {
		return fmt.Errorf("vsock: bind uds_path %q: %w", s.path, unix.EADDRINUSE)
	}
	if err := s.startBackend(ctx); err != nil {
		return fmt.Errorf("vsock: %w", err)
	}
	e.vsock = s
	return nil
}

// startBackend returns when the backend listens on uds_path and we have the
// only connection to its other socket, whose name is gone again. That socket
// is beside uds_path, where we may write, and the backend is started there, so
// that its paths are short however deep that is.
func (s *vsock) startBackend(ctx context.Context) error {
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
	cmd := exec.Command(s.program, "--guest-cid="+strconv.FormatUint(uint64(s.cid), 10),
		"--socket="+filepath.Join(filepath.Base(dir), "vu"), "--uds-path="+filepath.Base(s.path))
	cmd.Dir = home
	backend, err := startChild(cmd)
	if err != nil {
		return err
	}
	conn, err := dialBackend(ctx, fmt.Sprintf("/proc/self/fd/%d/vu", in.Fd()), backend.exited)
	if err != nil {
		backend.kill()
		if said := backend.stderr.String(); said != "" {
			return fmt.Errorf("vhost-device-vsock did not start: %s", said)
		}
		return fmt.Errorf("vhost-device-vsock did not start: %w", err)
	}
	s.backend, s.conn = backend, conn
	return nil
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
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
	if s.backend != nil {
		s.backend.kill()
		s.backend = nil
	}
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

// renew replaces the backend by a fresh one: it serves one connection only.
func (s *vsock) renew(ctx context.Context) error {
	s.stopBackend()
	if err := s.unlink(); err != nil {
		return err
	}
	return s.startBackend(ctx)
}

// connection is the one to give to QEMU; the caller closes it.
func (s *vsock) connection(ctx context.Context) (*os.File, error) {
	if s.conn == nil {
		if err := s.renew(ctx); err != nil {
			return nil, fmt.Errorf("vsock: %w", err)
		}
	}
	c := s.conn
	s.conn = nil
	s.plugged = true
	return c, nil
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
	if err := s.renew(ctx); err != nil {
		return fmt.Errorf("vsock: %w", err)
	}
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
	defer c.Close()
	s.plugged = false
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

// settleVsock waits until the device works after a plug; until then the backend
// resets whoever connects. Now and then the backend and the guest's new driver
// miss each other's first notice and stay mute: then the plug is repeated.
func (e *Engine) settleVsock(ctx context.Context) {
	for range plugTries {
		e.awaitVsockDriver(ctx)
		if e.vsock.answers(ctx) || ctx.Err() != nil {
			return
		}
		e.logf(fcemu.LevelDebug, "The guest's vsock device is mute: plugging it again.")
		err := e.unplugVsock(ctx)
		if err == nil {
			_, err = e.plugVsock(ctx)
		}
		if err != nil {
			e.logf(fcemu.LevelError, "The guest's vsock device is gone: %v.", err)
			return
		}
	}
	e.logf(fcemu.LevelWarn, "The guest's vsock device does not answer yet.")
}

// awaitVsockDriver gives the guest's driver time to take the new device.
func (e *Engine) awaitVsockDriver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, unplugTimeout)
	defer cancel()
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for !e.vm.vsockInUse(ctx) {
		select {
		case <-retry.C:
		case <-e.vm.child.exited:
			return
		case <-ctx.Done():
			return
		}
	}
}

// answers asks for a port that nobody listens on: a device that works answers
// at once by ending the connection.
func (s *vsock) answers(ctx context.Context) bool {
	home, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return false
	}
	defer home.Close()
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", home.Fd(), filepath.Base(s.path)))
	if err != nil {
		return false
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if _, err := fmt.Fprintf(c, "CONNECT %d\n", noPort); err != nil {
		return false
	}
	_, err = c.Read(make([]byte, 1))
	return !errors.Is(err, net.ErrClosed)
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

// resetVsock makes the vsock ready for another start after a failed one.
func (e *Engine) resetVsock() {
	if e.vsock != nil {
		e.vsock.plugged = false
	}
}

// closeVsock leaves the socket's file behind, as Firecracker does.
func (e *Engine) closeVsock() {
	if e.vsock != nil {
		e.vsock.stopBackend()
		e.vsock = nil
	}
}
