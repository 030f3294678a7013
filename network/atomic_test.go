package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
	"github.com/tangle-network/microvm/internal/testhost"
)

func from(port uint16, u []byte) []byte {
	binary.BigEndian.PutUint16(u, port)
	return u
}

// While two policies replace each other, what both allow passes, each packet a flow of
// its own, and what neither does is dropped.
func TestNoPacketMeetsHalfAPolicy(t *testing.T) {
	w := testhost.NewWorld(t)
	seen := captureOn(t, w.NS, "eth0")
	m := openManager(t, nil)
	both, never := netip.MustParseAddr(w.Addr(10)), netip.MustParseAddr(w.Addr(11))
	policies := []microvm.Egress{
		{Allow: append(many(500, 2), rules(t, w.Addr(10)+"/32")...)},
		{Default: microvm.EgressAllow, Deny: append(many(400, 2), rules(t, w.Addr(11)+"/32")...)},
		{Allow: rules(t, w.Addr(10)+"/32:udp:443", "*.example.org")},
	}
	s := acquire(t, m, "a", microvm.Network{Egress: policies[0]})
	g := newGuest(t, s)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	sent := 0
	wg.Go(func() {
		for port := uint16(2000); port < 60000; port++ {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Microsecond):
			}
			g.send(s, ip4(s.Guest.Addr(), both, unix.IPPROTO_UDP, from(port, udp(443, "x")), 1, 0))
			g.send(s, ip4(s.Guest.Addr(), never, unix.IPPROTO_UDP, from(port, udp(443, "x")), 1, 0))
			sent++
		}
	})
	for i := range 12 {
		must(t, m.UpdateEgress(bg, "a", policies[(i+1)%3]))
	}
	close(stop)
	wg.Wait()
	arrived := func(to netip.Addr) int {
		return len(seen.find(func(p packetSeen) bool { return p.to == to && p.proto == unix.IPPROTO_UDP }))
	}
	eventually(t, fmt.Sprintf("all %d packets arrive", sent), func() bool { return arrived(both) >= sent })
	if n := arrived(never); n > 0 || sent < 50 {
		t.Errorf("%d of %d forbidden packets have passed", n, sent)
	}
}

// Errors are believed of flows that there are, by who is at their ends.
func TestOnlyErrorsOfItsOwnFlowsLeaveAClosedVM(t *testing.T) {
	w := testhost.NewWorld(t)
	seen := captureOn(t, w.NS, "eth0")
	testhost.Serve(t, w.NS, w.Addr(10)+":443")
	m := openManager(t, nil)
	s := acquire(t, m, "a", microvm.Network{Egress: microvm.Egress{Allow: rules(t, w.Addr(10)+"/32:udp:443")}})
	g := newGuest(t, s)
	me, peer, other := s.Guest.Addr(), netip.MustParseAddr(w.Addr(10)), netip.MustParseAddr(w.Addr(11))
	g.send(s, ip4(me, peer, unix.IPPROTO_UDP, udp(443, "hello\n"), 1, 0))
	eventually(t, "the flow is there", func() bool {
		return len(seen.find(func(p packetSeen) bool { return p.from == peer && p.proto == unix.IPPROTO_UDP })) > 0
	})
	inner := append([]byte{0, 0, 0, 0}, ip4(peer, me, unix.IPPROTO_UDP, append(append(be16(443), be16(12345)...), 0, 14, 0, 0), 1, 0)...)
	lost := append([]byte{0, 0, 0, 0}, ip4(other, me, unix.IPPROTO_UDP, append(append(be16(443), be16(12345)...), 0, 14, 0, 0), 1, 0)...)
	for _, kind := range []byte{3, 4, 5, 11, 12} {
		g.send(s, ip4(me, other, unix.IPPROTO_ICMP, icmp(kind, 0, inner), 2, 0)) // to somebody else
		g.send(s, ip4(me, other, unix.IPPROTO_ICMP, icmp(kind, 0, lost), 2, 0))  // of no flow
		g.send(s, ip4(me, peer, unix.IPPROTO_ICMP, icmp(kind, 0, lost), 2, 0))
	}
	g.send(s, ip4(me, peer, unix.IPPROTO_ICMP, icmp(5, 1, inner), 2, 0)) // a redirect
	g.send(s, ip4(me, peer, unix.IPPROTO_ICMP, icmp(3, 3, inner), 2, 0))
	icmps := func(f func(packetSeen) bool) []packetSeen {
		return seen.find(func(p packetSeen) bool {
			return p.proto == unix.IPPROTO_ICMP && p.to != netip.MustParseAddr(w.Addr(1)) && f(p)
		})
	}
	eventually(t, "the error of the flow arrives", func() bool { return len(icmps(func(p packetSeen) bool { return p.payload[0] == 3 })) > 0 })
	time.Sleep(testhost.Patience)
	if bad := icmps(func(p packetSeen) bool { return p.to != peer || p.payload[0] == 5 }); len(bad) > 0 {
		t.Errorf("%v", bad)
	}
}

// A ping is a flow, too.
func TestPingsEndWithTheirPolicy(t *testing.T) {
	w := testhost.NewWorld(t)
	seen := captureOn(t, w.NS, "eth0")
	m := openManager(t, nil)
	peer := netip.MustParseAddr(w.Addr(10))
	s := acquire(t, m, "a", microvm.Network{Egress: microvm.Egress{Allow: rules(t, w.Addr(10)+"/32:icmp", w.Addr(11)+"/32:udp")}})
	g := newGuest(t, s)
	ping := func(n byte) {
		g.send(s, ip4(s.Guest.Addr(), peer, unix.IPPROTO_ICMP, icmp(8, 0, []byte{0, 7, 0, n}), 1, 0))
	}
	arrived := func(from string, n byte) bool {
		return len(seen.find(func(p packetSeen) bool {
			return p.from.String() == from && p.proto == unix.IPPROTO_ICMP && len(p.payload) >= 8 && p.payload[7] == n
		})) > 0
	}
	ping(1)
	eventually(t, "the ping is answered", func() bool { return arrived(w.Addr(10), 1) })
	ping(2)
	eventually(t, "the next is, too", func() bool { return arrived(w.Addr(10), 2) })
	must(t, m.UpdateEgress(bg, "a", microvm.Egress{Allow: rules(t, w.Addr(10)+"/32:tcp", w.Addr(11)+"/32:udp")}))
	ping(3)
	g.send(s, ip4(s.Guest.Addr(), netip.MustParseAddr(w.Addr(11)), unix.IPPROTO_UDP, udp(80, "x"), 1, 0))
	eventually(t, "what is allowed arrives", func() bool {
		return len(seen.find(func(p packetSeen) bool { return p.to.String() == w.Addr(11) && p.proto == unix.IPPROTO_UDP })) > 0
	})
	if arrived(w.Addr(1), 3) {
		t.Error("pings go on")
	}
}

// What a guest says about its neighbourhood changes nothing in the namespace.
func TestAGuestIsNoRouterAndNoNeighbourButItself(t *testing.T) {
	w := testhost.NewWorld(t)
	testhost.Serve(t, w.NS, w.Addr(10)+":443")
	testhost.SetSysctl(t, "ipv6/conf/all/forwarding", "1")
	m := openManager(t, func(c *Config) { c.IPv6 = true })
	s := acquire(t, m, "a", microvm.Network{Egress: microvm.Egress{Default: microvm.EgressAllow}})
	g := newGuest(t, s)
	g.reaches("tcp", w.Addr(10)+":443")
	table := func() (out string) {
		must(t, netns.Inside(s.Namespace, func() error {
			routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
			out = fmt.Sprint(routes)
			return err
		}))
		return out
	}
	before := table()
	arp := func(op byte, mac []byte, ip netip.Addr) {
		b := append(append(make([]byte, 10), 255, 255, 255, 255, 255, 255), s.MAC...)
		b = append(b, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, op)
		b = append(append(append(b, mac...), ip.AsSlice()...), 0, 0, 0, 0, 0, 0)
		_, err := g.tap.Write(append(b, s.Gateway.AsSlice()...))
		must(t, err)
	}
	for _, op := range []byte{1, 2} {
		arp(op, s.MAC, s.Gateway)                         // the gateway's address
		arp(op, s.MAC, m.cfg.plan(0).v4.host)             // the uplink's
		arp(op, []byte{2, 1, 1, 1, 1, 1}, s.Guest.Addr()) // another's MAC
		arp(op, gatewayMAC, s.Gateway)                    // all of the gateway's
		arp(op, s.MAC, netip.MustParseAddr("172.30.0.3")) // another neighbour
	}
	c, err := m.Counters("a")
	if err != nil || c.SpoofedPackets < 10 {
		t.Errorf("%+v, %v", c, err)
	}
	local := linkLocal(s.MAC)
	nodes := netip.MustParseAddr("ff02::1")
	icmp6 := func(from netip.Addr, body []byte) {
		pseudo := append(append(append([]byte{}, from.AsSlice()...), nodes.AsSlice()...), 0, 0, 0, byte(len(body)), 0, 0, 0, icmpv6)
		binary.BigEndian.PutUint16(body[2:], checksum(append(pseudo, body...)))
		p := ip6(from, nodes, icmpv6, body)
		p[7] = 255 // hop limit
		g.send(s, p)
	}
	// A router's advertisement with a prefix, for ever; a redirect.
	ra := append([]byte{134, 0, 0, 0, 64, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 64, 0xc0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0}, netip.MustParseAddr("2001:db8:bad::").AsSlice()...)
	redirect := append(append([]byte{137, 0, 0, 0, 0, 0, 0, 0}, local.AsSlice()...), netip.MustParseAddr("2001:db8::9").AsSlice()...)
	for _, from := range []netip.Addr{local, s.Guest6.Addr()} {
		icmp6(from, ra)
		icmp6(from, redirect)
	}
	g.reaches("tcp", w.Addr(10)+":443")
	if after := table(); after != before {
		t.Errorf("the routes were\n%s\nand are\n%s", before, after)
	}
}

// One directory is one, however it is written.
func TestADirectoryHasOneTable(t *testing.T) {
	c := Config{Dir: t.TempDir()}
	m := openOver(t, c)
	link := t.TempDir() + "/link"
	must(t, unix.Symlink(c.Dir, link))
	for _, dir := range []string{c.Dir + "/", c.Dir + "/../" + c.Dir[len(c.Dir)-3:], link} {
		other := openOver(t, Config{Dir: dir})
		if other.table.t.Name != m.table.t.Name {
			t.Errorf("%s: %s, not %s", dir, other.table.t.Name, m.table.t.Name)
		}
	}
}
