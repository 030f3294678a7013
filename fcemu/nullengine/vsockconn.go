package nullengine

import (
	"io"
	"net"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// guestConn is the guest's end of a stream, as a Handler sees it.
type guestConn struct {
	*net.UnixConn
	v             *vsock
	gone          chan struct{} // closed by a snapshot
	local, remote uint32
}

// Addr is one end of a vsock stream.
type Addr struct{ CID, Port uint32 }

// Network is "vsock".
func (Addr) Network() string { return "vsock" }

func (a Addr) String() string {
	return strconv.FormatUint(uint64(a.CID), 10) + ":" + strconv.FormatUint(uint64(a.Port), 10)
}

// LocalAddr is the guest's port; its CID is not known to it (VMADDR_CID_ANY).
func (g *guestConn) LocalAddr() net.Addr { return Addr{^uint32(0), g.local} }

// RemoteAddr is the host's port.
func (g *guestConn) RemoteAddr() net.Addr { return Addr{hostCID, g.remote} }

func (g *guestConn) reset() bool {
	select {
	case <-g.gone:
		return true
	default:
		return false
	}
}

// Read reads while the guest runs. What arrives during a pause is kept back
// until its end.
func (g *guestConn) Read(b []byte) (int, error) {
	if !g.v.await(g.gone) {
		return 0, unix.ECONNRESET
	}
	n, err := g.UnixConn.Read(b)
	if !g.v.await(g.gone) || g.reset() {
		return 0, unix.ECONNRESET
	}
	g.v.count("vsock.tx_bytes_count", uint64(n))
	return n, err
}

// Write writes while the guest runs.
func (g *guestConn) Write(b []byte) (int, error) {
	if !g.v.await(g.gone) || g.reset() {
		return 0, unix.ECONNRESET
	}
	n, err := g.UnixConn.Write(b)
	g.v.count("vsock.rx_bytes_count", uint64(n))
	if err != nil && g.reset() {
		err = unix.ECONNRESET
	}
	return n, err
}

// The methods by which io.Copy would pass Read and Write by.

func (g *guestConn) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{g}, r)
}

func (g *guestConn) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{g})
}

// Close ends the guest's side. The host's stays open when a snapshot has taken
// the guest's away.
func (g *guestConn) Close() error {
	if g.reset() {
		return nil
	}
	return g.UnixConn.Close()
}

// finish is called when the guest's program has ended.
func (g *guestConn) finish() {
	g.v.mu.Lock()
	delete(g.v.conns, g)
	g.v.mu.Unlock()
	if g.reset() {
		// Mute: what the host sends goes nowhere, until it closes or close does.
		// A connection that is closed already takes no deadline and gives no bytes.
		_ = g.UnixConn.SetDeadline(time.Time{})
		_, _ = io.Copy(io.Discard, struct{ io.Reader }{g.UnixConn})
		g.v.forget(g.UnixConn)
		return
	}
	g.UnixConn.Close()
	g.v.count("vsock.conns_removed", 1)
}
