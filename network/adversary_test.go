package network

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
	"github.com/tangle-network/microvm/internal/testhost"
)

// capture notes the IP packets that arrive on a link, before anything filters them.
type capture struct {
	mu   sync.Mutex
	seen []packetSeen
}

type packetSeen struct {
	from, to netip.Addr
	proto    uint8
	payload  []byte
}

func (p packetSeen) String() string {
	return fmt.Sprintf("%v→%v protocol %d %x", p.from, p.to, p.proto, p.payload[:min(len(p.payload), 16)])
}

func captureOn(t testing.TB, ns, link string) *capture {
	t.Helper()
	c := &capture{}
	var f *os.File
	must(t, netns.Inside(ns, func() error {
		l, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(htons(unix.ETH_P_ALL)))
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "capture")
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: l.Index})
	}))
	var wg sync.WaitGroup
	t.Cleanup(func() { f.Close(); wg.Wait() })
	wg.Go(func() {
		buf := make([]byte, 65536)
		for {
			n, err := f.Read(buf)
			if err != nil {
				return
			}
			b := buf[:n]
			var p packetSeen
			switch {
			case n >= 20 && b[0]>>4 == 4:
				p = packetSeen{netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[9], slices.Clone(b[20:])}
			case n >= 40 && b[0]>>4 == 6:
				p = packetSeen{netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[6], slices.Clone(b[40:])}
			default:
				continue
			}
			c.mu.Lock()
			c.seen = append(c.seen, p)
			c.mu.Unlock()
		}
	})
	return c
}

func (c *capture) find(f func(packetSeen) bool) (out []packetSeen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.seen {
		if f(p) {
			out = append(out, p)
		}
	}
	return out
}

func htons(n uint16) uint16 { return binary.NativeEndian.Uint16(be16(n)) }

// ip4 is a packet of any protocol; more sets the words of the header's second line,
// and options are behind it.
func ip4(from, to netip.Addr, proto byte, payload []byte, id, frag uint16, options ...byte) []byte {
	b := []byte{0x45 + byte(len(options)/4), 0}
	b = append(b, be16(uint16(20+len(options)+len(payload)))...)
	b = append(append(b, be16(id)...), be16(frag)...)
	b = append(b, 64, proto, 0, 0)
	b = append(append(append(b, from.AsSlice()...), to.AsSlice()...), options...)
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, payload...)
}

func ip6(from, to netip.Addr, next byte, payload []byte) []byte {
	b := append([]byte{0x60, 0, 0, 0}, be16(uint16(len(payload)))...)
	b = append(b, next, 64)
	return append(append(append(b, from.AsSlice()...), to.AsSlice()...), payload...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func udp(port uint16, data string) []byte {
	b := append(be16(12345), be16(port)...)
	b = append(append(b, be16(uint16(8+len(data)))...), 0, 0) // no checksum
	return append(b, data...)
}

func tcp(flags byte) []byte {
	return append(append(be16(12345), be16(80)...), 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0)
}

func icmp(kind, code byte, rest []byte) []byte {
	b := append([]byte{kind, code, 0, 0}, rest...)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// send puts an IP packet into the TAP as the guest's; tags are of VLANs.
func (g *guest) send(s Slot, ip []byte, tags ...uint16) {
	g.t.Helper()
	b := append(append(make([]byte, 10, 100+len(ip)), gatewayMAC...), s.MAC...)
	for _, tag := range tags {
		b = append(append(b, 0x81, 0x00), be16(tag)...)
	}
	kind := uint16(unix.ETH_P_IP)
	if ip[0]>>4 == 6 {
		kind = unix.ETH_P_IPV6
	}
	_, err := g.tap.Write(append(append(b, be16(kind)...), ip...))
	must(g.t, err)
}

// Whatever form packets have: an open default opens nothing that is closed.
func TestNoFormOfAPacketReachesWhatIsClosed(t *testing.T) {
	w := testhost.NewWorld(t)
	six := netip.MustParseAddr(w.Six(t))
	testhost.SetSysctl(t, "ipv6/conf/all/forwarding", "1")
	must(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(w.Addr(10))}))
	must(t, netlink.RouteAdd(&netlink.Route{Gw: six.AsSlice()}))
	m := openManager(t, func(c *Config) { c.IPv6 = true })
	s := acquire(t, m, "a", microvm.Network{Egress: microvm.Egress{Default: microvm.EgressAllow, Deny: rules(t, w.Addr(11)+"/32")}})
	g := newGuest(t, s)
	seen := captureOn(t, w.NS, "eth0")
	me, me6 := s.Guest.Addr(), s.Guest6.Addr()
	meta, denied, open := netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr(w.Addr(11)), netip.MustParseAddr(w.Addr(10))

	for _, to := range []netip.Addr{meta, denied} {
		for _, proto := range []byte{0, 2, 4, 41, 47, 50, 51, 59, 94, 132, 136, 253, 255} {
			for _, size := range []int{0, 1, 3, 4, 8, 40} {
				g.send(s, ip4(me, to, proto, make([]byte, size), 1, 0))
			}
		}
		for _, flags := range []byte{0, 1, 2, 4, 0x10, 0x12, 0x29, 0xff} {
			g.send(s, ip4(me, to, unix.IPPROTO_TCP, tcp(flags), 2, 0))
		}
		for size := range 20 {
			g.send(s, ip4(me, to, unix.IPPROTO_TCP, tcp(2)[:size], 3, 0))
			g.send(s, ip4(me, to, unix.IPPROTO_UDP, udp(80, "")[:min(size, 8)], 3, 0))
			g.send(s, ip4(me, to, unix.IPPROTO_ICMP, icmp(8, 0, make([]byte, 20))[:size], 3, 0))
		}
		for kind := range byte(20) {
			g.send(s, ip4(me, to, unix.IPPROTO_ICMP, icmp(kind, 0, append(make([]byte, 4), ip4(to, me, 17, udp(1, ""), 4, 0)...)), 4, 0))
		}
		// In fragments, the ports in the second.
		whole := udp(80, "0123456789abcdef")
		g.send(s, ip4(me, to, unix.IPPROTO_UDP, whole[8:], 5, 1))
		g.send(s, ip4(me, to, unix.IPPROTO_UDP, whole[:8], 5, 0x2000))
		g.send(s, ip4(me, to, unix.IPPROTO_UDP, whole[16:], 6, 2))
		g.send(s, ip4(me, to, 253, whole[:8], 7, 0x2000))
		g.send(s, ip4(me, to, 253, whole[8:10], 7, 1))
		// By way of somebody who is open: a loose source route.
		route := append([]byte{131, 7, 4}, to.AsSlice()...)
		g.send(s, ip4(me, open, unix.IPPROTO_UDP, udp(80, "x"), 8, 0, append(route, 0)...))
		for _, tags := range [][]uint16{{0}, {5}, {0, 0}, {5, 5}} {
			g.send(s, ip4(me, to, unix.IPPROTO_UDP, udp(80, "x"), 9, 0), tags...)
		}
	}
	for _, to := range []string{"224.0.0.1", "239.1.2.3", "255.255.255.255", w.Addr(255), w.Addr(0), "172.30.0.3", "127.0.0.1", "0.0.0.0", "240.0.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.192"} {
		g.send(s, ip4(me, netip.MustParseAddr(to), unix.IPPROTO_UDP, udp(80, "x"), 10, 0))
	}
	for _, to := range []string{"64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::ffff:169.254.169.254", "fe80::a9fe:a9fe", "ff02::1", "ff0e::1", "fd00:ec2::254", "fd20:ce::254", "fd00:42::42", "::1"} {
		to := netip.MustParseAddr(to)
		for _, next := range []byte{59, 47, 17, 253} {
			g.send(s, ip6(me6, to, next, nil))
			g.send(s, ip6(me6, to, next, make([]byte, 8)))
		}
		// Behind headers: hop by hop, destination options, routing by way of who is open, a fragment.
		g.send(s, ip6(me6, to, 0, append([]byte{17, 0, 1, 4, 0, 0, 0, 0}, udp(80, "x")...)))
		g.send(s, ip6(me6, to, 60, append([]byte{17, 0, 1, 4, 0, 0, 0, 0}, udp(80, "x")...)))
		g.send(s, ip6(me6, to, 60, []byte{17, 0, 1, 4, 0, 0, 0, 0}))
		g.send(s, ip6(me6, to, 44, append([]byte{17, 0, 0, 0, 0, 0, 0, 1}, udp(80, "x")...)))
		for kind := range byte(5) {
			g.send(s, ip6(me6, six, 43, append(append([]byte{17, 2, kind, 1, 0, 0, 0, 0}, to.AsSlice()...), udp(80, "x")...)))
		}
	}
	g.send(s, ip4(me, open, 253, make([]byte, 8), 0x7777, 0))
	g.send(s, ip6(me6, six, 253, make([]byte, 8)))
	last := func(to netip.Addr) func() bool {
		return func() bool {
			return len(seen.find(func(p packetSeen) bool { return p.to == to && p.proto == 253 && len(p.payload) == 8 })) > 0
		}
	}
	eventually(t, "what is open arrives", last(open))
	eventually(t, "what is open arrives by IPv6", last(six))
	time.Sleep(testhost.Patience)
	bad := seen.find(func(p packetSeen) bool {
		hosts := p.from.String() == w.Addr(1) || p.from.String() == w.Six1() || p.from == s.Address || p.from == me || p.from == s.Address6 || p.from == me6
		return hosts && p.to != open && p.to != six && !p.to.IsLinkLocalMulticast() && !p.to.IsLinkLocalUnicast()
	})
	if len(bad) > 0 {
		t.Errorf("%d packets have passed: %v", len(bad), bad[:min(len(bad), 10)])
	}
}
