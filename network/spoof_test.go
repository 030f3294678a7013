package network

import (
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
	"github.com/tangle-network/microvm/internal/testhost"
)

// frame is a UDP packet in an Ethernet frame, behind the header that a VMM gives a TAP.
func frame(fromMAC net.HardwareAddr, from, to netip.Addr, port uint16) []byte {
	b := make([]byte, 10, 80) // struct virtio_net_hdr
	b = append(append(append(b, gatewayMAC...), fromMAC...), 0x08, 0x00)
	return append(b, packet(from, to, port)...)
}

func packet(from, to netip.Addr, port uint16) []byte {
	ip := []byte{0x45, 0, 0, 32, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	ip = append(append(ip, from.AsSlice()...), to.AsSlice()...)
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	return append(ip, 0x30, 0x39, byte(port>>8), byte(port), 0, 12, 0, 0, 's', 'p', 'o', 'f')
}

// receiver counts what arrives, by source.
type receiver struct {
	mu   sync.Mutex
	from []string
}

func receive(t testing.TB, ns, addr string) *receiver {
	t.Helper()
	r := &receiver{}
	var u net.PacketConn
	must(t, netns.Inside(ns, func() (err error) {
		u, err = net.ListenPacket("udp", addr)
		return err
	}))
	var wg sync.WaitGroup
	t.Cleanup(func() { u.Close(); wg.Wait() })
	wg.Go(func() {
		buf := make([]byte, 100)
		for {
			_, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.from = append(r.from, from.String())
			r.mu.Unlock()
		}
	})
	return r
}

func (r *receiver) seen() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.from, " ")
}

// eventually polls for what needs a moment.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestForgedSourcesGoNowhere(t *testing.T) {
	w := testhost.NewWorld(t)
	got := receive(t, w.NS, w.Addr(10)+":700")
	m := openManager(t, func(c *Config) { c.Routed = true })
	s := acquire(t, m, "a", microvm.Network{Egress: microvm.Egress{Default: microvm.EgressAllow}})
	g := newGuest(t, s)
	to := netip.MustParseAddr(w.Addr(10))
	other, own := netip.MustParseAddr("172.30.0.3"), s.Guest.Addr()
	send := func(mac net.HardwareAddr, from netip.Addr) {
		t.Helper()
		_, err := g.tap.Write(frame(mac, from, to, 700))
		must(t, err)
	}
	send(s.MAC, own)
	eventually(t, "the guest's own packet arrives", func() bool { return got.seen() != "" })
	wrongMAC := net.HardwareAddr{6, 1, 2, 3, 4, 5}
	send(wrongMAC, own)
	send(s.MAC, other)
	send(s.MAC, netip.MustParseAddr(w.Addr(11)))
	eventually(t, "three are counted", func() bool {
		c, err := m.Counters("a")
		must(t, err)
		return c.SpoofedPackets == 3
	})

	// Who has taken over the VMM is in the namespace, past the TAP: a raw socket there,
	// which even needs rights that a VMM has not.
	raw := func(from netip.Addr) error {
		return netns.Inside(s.Namespace, func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Sendto(fd, packet(from, to, 700), 0, &unix.SockaddrInet4{Addr: to.As4()})
		})
	}
	for _, from := range []netip.Addr{s.Address, netip.MustParseAddr("10.111.255.255"), netip.MustParseAddr(w.Addr(11))} {
		if err := raw(from); err != nil && err != syscall.EPERM {
			t.Errorf("raw from %v: %v", from, err)
		}
	}
	// Without the namespace's own rules the host still asks for the VM's address.
	must(t, netns.Inside(s.Namespace, func() error {
		c := netfilter(t)
		c.FlushRuleset()
		return c.Flush()
	}))
	for _, from := range []netip.Addr{netip.MustParseAddr("10.111.255.255"), netip.MustParseAddr(w.Addr(11))} {
		must(t, raw(from))
	}
	must(t, raw(s.Address)) // its own, as the end of all that was sent
	eventually(t, "the last arrives", func() bool { return strings.Count(got.seen(), s.Address.String()) == 2 })
	if n := len(strings.Fields(got.seen())); n != 2 {
		t.Errorf("arrived: %s", got.seen())
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	w := testhost.NewWorld(t)
	testhost.Serve(t, w.NS, w.Addr(10)+":443")
	m := openManager(t, nil)
	s := acquire(t, m, "a", microvm.Network{Egress: microvm.Egress{Default: microvm.EgressAllow}, MaxConnections: 3})
	g := newGuest(t, s)
	for i := range 3 {
		c := testhost.Dial(t, g.ns, "tcp", w.Addr(10)+":443", 5*time.Second)
		if c == nil {
			t.Fatalf("connection %d of 3 is refused", i+1)
		}
		defer c.Close()
	}
	g.doesNotReach("tcp", w.Addr(10)+":443")
}

func TestDroppedPacketsAreLoggedWhenAskedFor(t *testing.T) {
	w := testhost.NewWorld(t)
	log := &lines{}
	m := openManager(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) })
	s := acquire(t, m, "a", microvm.Network{LogDropped: true})
	quiet := acquire(t, m, "b", microvm.Network{})
	g, gq := newGuest(t, s), newGuest(t, quiet)
	gq.doesNotReach("udp", w.Addr(10)+":6")
	g.doesNotReach("udp", w.Addr(10)+":5")
	eventually(t, "the drop is logged", func() bool { return strings.Contains(log.String(), w.Addr(10)+":5") })
	if out := log.String(); strings.Contains(out, "vm=b") || !strings.Contains(out, "vm=a protocol=udp") {
		t.Error(out)
	}
}

type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func FuzzPacket(f *testing.F) {
	f.Add(packet(netip.MustParseAddr("172.30.0.2"), netip.MustParseAddr("1.1.1.1"), 53))
	f.Add(append([]byte{0x60}, make([]byte, 60)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		parsePacket(b)
		parseDrop(b)
	})
}
