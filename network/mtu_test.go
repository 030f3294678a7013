package network

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
	"github.com/tangle-network/microvm/internal/testhost"
)

// sink takes what it is sent by TCP and UDP, answers TCP with as much when the other
// side has ended, and counts.
type sink struct{ tcp, udp atomic.Int64 }

func newSink(t testing.TB, ns, addr string) *sink {
	t.Helper()
	s := &sink{}
	var l net.Listener
	var u net.PacketConn
	must(t, netns.Inside(ns, func() (err error) {
		if l, err = net.Listen("tcp", addr); err != nil {
			return err
		}
		u, err = net.ListenPacket("udp", addr)
		return err
	}))
	t.Cleanup(func() { l.Close(); u.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n, _ := io.Copy(io.Discard, c)
			s.tcp.Add(n)
			c.Write(make([]byte, n))
			c.Close()
		}
	}()
	go func() {
		buf := make([]byte, 65536)
		for {
			n, _, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			s.udp.Add(int64(n))
		}
	}()
	return s
}

func linkMTU(t testing.TB, ns, link string, mtu int) {
	t.Helper()
	must(t, netns.Inside(ns, func() error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(l, mtu)
	}))
}

// Segments of 64 KiB without checksums go through, both ways, and packets that are too
// large for a link on the way are told so.
func TestLargePacketsPass(t *testing.T) {
	w := testhost.NewWorld(t)
	to := newSink(t, w.NS, w.Addr(10)+":443")
	linkMTU(t, w.NS, "eth0", 1300)
	linkMTU(t, hostNS, w.Link(), 1300)
	m := openManager(t, nil)
	s := acquire(t, m, "a", microvm.Network{Egress: microvm.Egress{Allow: rules(t, w.Addr(10)+"/32")}, Publish: []microvm.PublishedPort{{HostPort: 8500, GuestPort: 80}}})
	g := newGuest(t, s)
	inside := newSink(t, g.ns, ":80")
	for _, c := range []struct {
		from, addr string
		to         *sink
	}{{g.ns, w.Addr(10) + ":443", to}, {w.NS, w.Addr(1) + ":8500", inside}, {hostNS, s.Address.String() + ":80", inside}} {
		conn := testhost.Dial(t, c.from, "tcp", c.addr, 5*time.Second)
		if conn == nil {
			t.Fatal("no connection")
		}
		before := c.to.tcp.Load()
		const size = 4 << 20
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, err := conn.Write(make([]byte, size))
		err = errors.Join(err, conn.Conn.(*net.TCPConn).CloseWrite())
		n, rerr := io.Copy(io.Discard, conn)
		if err = errors.Join(err, rerr); err != nil || n != size || c.to.tcp.Load()-before != size {
			t.Errorf("%s: %d bytes there, %d back, %v", c.addr, c.to.tcp.Load()-before, n, err)
		}
		conn.Close()
	}

	u := testhost.Dial(t, g.ns, "udp", w.Addr(10)+":443", 5*time.Second)
	defer u.Close()
	raw, err := u.Conn.(*net.UDPConn).SyscallConn()
	must(t, err)
	option := func(level, opt, value int) {
		t.Helper()
		var serr error
		must(t, raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), level, opt, value) }))
		must(t, serr)
	}
	option(unix.IPPROTO_UDP, unix.UDP_SEGMENT, 1000)
	_, err = u.Write(make([]byte, 40_000))
	must(t, err)
	eventually(t, "all segments arrive", func() bool { return to.udp.Load() == 40_000 })
	option(unix.IPPROTO_UDP, unix.UDP_SEGMENT, 0)
	option(unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	// The path's MTU is asked anew: the kernel may have it from the TCP connection.
	eventually(t, "the guest learns what passes", func() bool { _, err := u.Write(make([]byte, 1400)); return errors.Is(err, unix.EMSGSIZE) })
	// The socket may have an error to tell first.
	eventually(t, "what is small enough is sent", func() bool { _, err := u.Write(make([]byte, 1200)); return err == nil })
	eventually(t, "what is small enough arrives", func() bool { return to.udp.Load() == 41_200 })
}

// A guest with a small MTU is sent no larger packets: the namespace says so to whoever
// sends them.
func TestAnMTUHoldsInBothDirections(t *testing.T) {
	m := openManager(t, func(c *Config) { c.Slots = SlotPool{Max: 1}; c.Pool = netip.MustParsePrefix("10.119.0.0/31") })
	tapMTU := func(s Slot) (mtu int) {
		must(t, netns.Inside(s.Namespace, func() error {
			l, err := net.InterfaceByName(s.TAP)
			mtu = l.MTU
			return err
		}))
		return mtu
	}
	s, err := m.Acquire(bg, "a", microvm.Network{MTU: 1280})
	must(t, err)
	g := newGuest(t, s)
	got := newSink(t, g.ns, ":80")
	if n := tapMTU(s); n != 1280 {
		t.Errorf("the TAP has %d", n)
	}
	u := testhost.Dial(t, hostNS, "udp", s.Address.String()+":80", 5*time.Second)
	defer u.Close()
	raw, err := u.Conn.(*net.UDPConn).SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	}))
	must(t, err)
	eventually(t, "the host learns what passes", func() bool { _, err := u.Write(make([]byte, 1400)); return errors.Is(err, unix.EMSGSIZE) })
	eventually(t, "what is small enough is sent", func() bool { _, err := u.Write(make([]byte, 1200)); return err == nil })
	eventually(t, "what is small enough arrives", func() bool { return got.udp.Load() == 1200 })
	g.tap.Close()
	must(t, m.Release(bg, "a"))
	if n := tapMTU(acquire(t, m, "b", microvm.Network{})); n != 1500 {
		t.Errorf("the next VM's TAP has %d", n)
	}
	six := openManager(t, func(c *Config) { c.IPv6 = true })
	var field *microvm.FieldError
	if _, err := six.Acquire(bg, "c", microvm.Network{MTU: 1279}); !errors.As(err, &field) || field.Field != "network.mtu" {
		t.Errorf("an MTU that IPv6 can't have: %v", err)
	}
}
