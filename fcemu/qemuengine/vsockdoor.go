//go:build linux

package qemuengine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// answerTimeout bounds how long somebody who connects waits for a device that
// the guest's driver has just taken; answerEvery is its first time to answer,
// which doubles each time.
const (
	answerTimeout = 2 * time.Second
	answerEvery   = 50 * time.Millisecond
	noPort        = 1<<32 - 2 // VMADDR_PORT_ANY - 1
)

// vsockDoor listens on uds_path and relays to the backend's own socket, which
// has no name. It stands between them because vhost-device-vsock (0.3.0) is
// deaf for good to a guest whose queues it was just being told of when somebody
// connected. So until the guest's device works, the door resets whoever comes.
type vsockDoor struct {
	listener *net.UnixListener
	running  sync.WaitGroup
	gone     chan struct{}

	mu     sync.Mutex
	inside *vsockPlug // nil: nobody is let in
	conns  map[*net.UnixConn]struct{}
	closed bool
}

// vsockPlug is a device that the guest was given, and the backend behind it.
type vsockPlug struct {
	ctx    context.Context // ends when the device is taken away
	cancel context.CancelFunc
	vm     *vm
	socket *os.File // the backend's, an O_PATH descriptor
	link   *os.File // between QEMU and the backend

	mu    sync.Mutex
	works bool
}

func newVsockDoor(l *net.UnixListener) *vsockDoor {
	l.SetUnlinkOnClose(false) // as Firecracker's stays behind
	d := &vsockDoor{listener: l, gone: make(chan struct{}), conns: map[*net.UnixConn]struct{}{}}
	d.running.Go(d.accept)
	return d
}

func (d *vsockDoor) accept() {
	for {
		c, err := d.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptors left, or he is gone already
			select {
			case <-time.After(answerEvery):
				continue
			case <-d.gone:
				return
			}
		}
		d.running.Go(func() {
			if d.enter(c) {
				d.serve(c)
				d.leave(c)
			}
		})
	}
}

// enter notes a connection for close, which may be over.
func (d *vsockDoor) enter(c *net.UnixConn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		c.Close()
		return false
	}
	d.conns[c] = struct{}{}
	return true
}

func (d *vsockDoor) leave(c *net.UnixConn) {
	c.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c)
}

func (d *vsockDoor) serve(c *net.UnixConn) {
	d.mu.Lock()
	p := d.inside
	d.mu.Unlock()
	if p == nil || !p.vm.vsockInUse(p.ctx) {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, answerTimeout)
	defer cancel()
	if !p.await(ctx) {
		return
	}
	b, err := p.dial(ctx)
	if err != nil || !d.enter(b) {
		return
	}
	defer d.leave(b)
	back := make(chan struct{})
	go func() {
		defer close(back)
		relay(c, b)
	}()
	relay(b, c)
	<-back
}

// relay passes on what comes and its end. When it can't, both sides end.
func relay(to, from *net.UnixConn) {
	_, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		to.Close()
		from.Close()
	}
}

// open lets people in to p, as soon as it works. What is open stays so.
func (d *vsockDoor) open(p *vsockPlug) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.inside == nil {
		d.inside = p
	}
}

// shut lets nobody in any more. Who is inside stays until the backend ends.
func (d *vsockDoor) shut() {
	d.mu.Lock()
	p := d.inside
	d.inside = nil
	d.mu.Unlock()
	if p != nil {
		p.cancel()
		p.mu.Lock() // nobody uses its files after this
		defer p.mu.Unlock()
	}
}

// settle waits until whoever comes is let in.
func (d *vsockDoor) settle(ctx context.Context) bool {
	d.mu.Lock()
	p := d.inside
	d.mu.Unlock()
	return p != nil && p.await(ctx)
}

func (d *vsockDoor) close() {
	d.shut()
	d.listener.Close()
	close(d.gone)
	d.mu.Lock()
	d.closed = true
	for c := range d.conns {
		c.Close()
	}
	d.mu.Unlock()
	d.running.Wait()
}

// dial connects to the backend.
func (p *vsockPlug) dial(ctx context.Context) (*net.UnixConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connect(ctx)
}

func (p *vsockPlug) connect(ctx context.Context) (*net.UnixConn, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", p.socket.Fd()))
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// await returns whether the device works, as soon as it does. It asks again and
// again, not only because the guest's driver needs its time: the backend
// overlooks the driver's notice of a queue that is not yet enabled, and every
// connection makes it look.
func (p *vsockPlug) await(ctx context.Context) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	patience := answerEvery
	for !p.works {
		if p.vm.vsockInUse(ctx) && p.told() {
			if p.works = p.answers(ctx, patience) && ctx.Err() == nil; p.works {
				break
			}
			patience *= 2
		}
		select {
		case <-retry.C:
		case <-p.vm.child.exited:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return p.works
}

// told reports whether the backend has read all that QEMU sent it. Who connects
// to it earlier may end its work for good.
func (p *vsockPlug) told() bool {
	raw, err := p.link.SyscallConn()
	if err != nil {
		return false
	}
	var unread int
	var failed error
	if err := raw.Control(func(fd uintptr) { unread, failed = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) }); err != nil {
		return false
	}
	return failed == nil && unread == 0
}

// answers asks for a port that nobody listens on: a device that works answers
// at once by ending the connection.
func (p *vsockPlug) answers(ctx context.Context, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	c, err := p.connect(ctx)
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
