package nullengine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tangle-network/microvm/fcemu"
	"golang.org/x/sys/unix"
)

// Handler is a program in the guest: it is given each connection that the host
// makes to a vsock port, and must return when reading or writing fails. The
// connection stands still while the guest is paused, and fails with ECONNRESET
// once a snapshot was taken, as a guest's connections do.
type Handler func(conn net.Conn, port uint32)

// Echo is the default Handler: it sends back what it receives.
func Echo(conn net.Conn, _ uint32) {
	// Either end may go away at any time.
	_, _ = io.Copy(conn, conn)
}

const (
	// maxConnections is how many streams Firecracker's device carries at most.
	maxConnections = 1023
	// firstHostPort is the first of the ports that stand for host programs.
	firstHostPort = 1 << 30
	hostCID       = 2
)

// vsock is the device: the listening socket on the host, and the connections
// to the guest's programs.
type vsock struct {
	listener *net.UnixListener
	path     string
	handler  Handler
	cmd      Commands
	count    func(name string, n uint64)
	print    func(line string)

	closing chan struct{}
	wg      sync.WaitGroup

	mu      sync.Mutex
	serving bool
	up      chan struct{} // closed while the guest runs and its driver is there
	opener  *time.Timer
	base    time.Duration // the guest's uptime at began
	began   time.Time     // zero while it is paused
	port    uint32
	mute    uint64 // connections that get no answer
	conns   map[*guestConn]bool
	waiting map[*net.UnixConn]bool // before their guest has answered
	dialled bool
}

// maxSocketName is what sun_path holds besides its final zero byte (unix(7)).
const maxSocketName = 107

// openVsock binds the socket, as PUT /vsock and a load do. The name must be
// free, and stays behind.
func (e *Engine) openVsock(v *fcemu.Vsock) error {
	if e.vsock != nil {
		e.vsock.close()
		e.vsock = nil
	}
	if len(v.UDSPath) > maxSocketName {
		return fmt.Errorf("uds_path %q is longer than %d bytes", v.UDSPath, maxSocketName)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: v.UDSPath, Net: "unix"})
	if err != nil {
		return fmt.Errorf("bind uds_path %q: %w", v.UDSPath, errnoOf(err))
	}
	l.SetUnlinkOnClose(false)
	e.vsock = &vsock{
		listener: l, path: v.UDSPath, handler: e.opt.Vsock, count: e.count,
		closing: make(chan struct{}), up: make(chan struct{}), port: firstHostPort,
		conns: map[*guestConn]bool{}, waiting: map[*net.UnixConn]bool{},
	}
	return nil
}

// errnoOf leaves only the system's error of one that names everything twice.
func errnoOf(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// serve begins to accept connections for a guest with these commands.
func (v *vsock) serve(cmd Commands, print func(line string)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cmd, v.print, v.mute = cmd, print, cmd.VsockMute
	if v.serving {
		return
	}
	v.serving = true
	v.wg.Add(1)
	go func() {
		defer v.wg.Done()
		for {
			c, err := v.listener.AcceptUnix()
			if err != nil {
				return // closed
			}
			v.spawn(c, func() { v.host(c) })
		}
	}()
}

// spawn runs fn for a connection that close ends.
func (v *vsock) spawn(c *net.UnixConn, fn func()) {
	v.mu.Lock()
	full := len(v.waiting)+len(v.conns) >= maxConnections
	select {
	case <-v.closing:
		full = true
	default:
	}
	if !full {
		v.waiting[c] = true
		v.wg.Add(1)
	}
	v.mu.Unlock()
	if full {
		c.Close()
		return
	}
	go func() {
		defer v.wg.Done()
		fn()
	}()
}

// forget closes a connection that never reached a guest's program.
func (v *vsock) forget(c *net.UnixConn) {
	v.mu.Lock()
	delete(v.waiting, c)
	v.mu.Unlock()
	c.Close()
}

// run says that the guest runs, uptime into its life.
func (v *vsock) run(uptime time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.began.IsZero() {
		return
	}
	v.base, v.began = uptime, time.Now()
	up := v.up
	v.opener = time.AfterFunc(max(0, v.cmd.VsockAfter-uptime), func() { v.open(up) })
}

// open lets the guest's side go on, unless it was paused meanwhile.
func (v *vsock) open(up chan struct{}) {
	v.mu.Lock()
	if v.up != up || v.began.IsZero() {
		v.mu.Unlock()
		return
	}
	close(up)
	dial := v.cmd.VsockDial != 0 && !v.dialled
	v.dialled = v.dialled || dial
	v.mu.Unlock()
	if dial {
		v.dial(v.cmd.VsockDial)
	}
}

// halt says that the guest is paused.
func (v *vsock) halt() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.began.IsZero() {
		return
	}
	v.base += time.Since(v.began)
	v.began = time.Time{}
	v.opener.Stop()
	select {
	case <-v.up:
		v.up = make(chan struct{})
	default:
	}
}

// listening tells whether the guest's program listens yet.
func (v *vsock) listening() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	up := v.base
	if !v.began.IsZero() {
		up += time.Since(v.began)
	}
	return up >= v.cmd.ListenAfter
}

// await returns when the guest runs; false when it will not, for this
// connection.
func (v *vsock) await(gone <-chan struct{}) bool {
	v.mu.Lock()
	up := v.up
	v.mu.Unlock()
	select {
	case <-up:
		return true
	case <-gone:
	case <-v.closing:
	}
	return false
}

// host deals with a connection that the host made.
func (v *vsock) host(c *net.UnixConn) {
	port, err := readConnect(c)
	if err != nil || !v.await(nil) || !v.listening() {
		v.forget(c)
		return
	}
	v.mu.Lock()
	mute := v.mute > 0
	if mute {
		v.mute--
	}
	local := v.port
	v.port++
	v.mu.Unlock()
	if mute {
		<-v.closing
		v.forget(c)
		return
	}
	if _, err := io.WriteString(c, "OK "+strconv.FormatUint(uint64(local), 10)+"\n"); err != nil {
		v.forget(c)
		return
	}
	g := v.connect(c, local, port)
	defer g.finish()
	v.handler(g, port)
}

// connect makes a stream of a connection whose peer has agreed.
func (v *vsock) connect(c *net.UnixConn, hostPort, guestPort uint32) *guestConn {
	g := &guestConn{UnixConn: c, v: v, gone: make(chan struct{}), local: guestPort, remote: hostPort}
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.waiting, c)
	v.conns[g] = true
	v.count("vsock.conns_added", 1)
	return g
}

// readConnect reads "CONNECT <port>\n" as Firecracker does: all of it must be
// there when the first byte is.
func readConnect(c *net.UnixConn) (port uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	const least, most = len("connect 0\n"), 32
	line := make([]byte, 0, most)
	waited := false
	rerr := raw.Read(func(fd uintptr) bool {
		for len(line) < least || line[len(line)-1] != '\n' && len(line) < most {
			n, rerr := unix.Read(int(fd), line[len(line):max(least, len(line)+1)])
			switch {
			case errors.Is(rerr, unix.EINTR):
			case errors.Is(rerr, unix.EAGAIN) && !waited && len(line) == 0:
				waited = true
				return false
			case rerr != nil:
				err = rerr
				return true
			case n == 0:
				err = io.ErrUnexpectedEOF
				return true
			default:
				line = line[:len(line)+n]
			}
		}
		return true
	})
	if err = errors.Join(rerr, err); err != nil {
		return 0, err
	}
	words := strings.Fields(string(line))
	if len(words) < 2 || strings.ToLower(words[0]) != "connect" {
		return 0, errors.New("not a CONNECT")
	}
	p, err := strconv.ParseUint(words[1], 10, 32)
	return uint32(p), err
}

// dial is the guest's own connection to a program of the host: it says which
// port it is and prints what comes back.
func (v *vsock) dial(port uint32) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: v.path + "_" + strconv.FormatUint(uint64(port), 10), Net: "unix"})
	if err != nil {
		v.print(fmt.Sprintf("null guest: vsock port %d of the host: connection reset by peer", port))
		return
	}
	v.spawn(c, func() {
		g := v.connect(c, port, firstHostPort)
		defer g.finish()
		if _, err := fmt.Fprintf(g, "null guest calls port %d\n", port); err != nil {
			return
		}
		b := make([]byte, maxLine)
		for {
			n, err := g.Read(b)
			if n > 0 {
				v.print(fmt.Sprintf("null guest: vsock port %d of the host: %q", port, b[:n]))
			}
			if err != nil {
				return
			}
		}
	})
}

// reset ends the guest's side of all connections, as a snapshot does. The
// host's ends stay open and mute until it closes them.
func (v *vsock) reset() {
	v.mu.Lock()
	conns := v.conns
	v.conns = map[*guestConn]bool{}
	for g := range conns {
		v.waiting[g.UnixConn] = true
	}
	v.mu.Unlock()
	for g := range conns {
		close(g.gone)
		// What is being read or written ends; a closed connection has nothing.
		_ = g.UnixConn.SetDeadline(time.Unix(1, 0))
	}
	v.count("vsock.conns_killed", uint64(len(conns)))
}

// close ends it all. The socket's name stays.
func (v *vsock) close() {
	if v == nil {
		return
	}
	v.halt()
	v.mu.Lock()
	close(v.closing)
	for g := range v.conns {
		g.UnixConn.Close()
	}
	for c := range v.waiting {
		c.Close()
	}
	v.mu.Unlock()
	v.listener.Close()
	v.wg.Wait()
}
