package network

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
	"github.com/tangle-network/microvm/internal/testhost"
)

// container is a namespace behind a bridge of the host, as container runtimes make them.
func container(t testing.TB, bridge, gateway, addr string) (ns string) {
	t.Helper()
	ns = filepath.Join(t.TempDir(), "ns")
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}
	must(t, netlink.LinkAdd(br))
	t.Cleanup(func() { must(t, netlink.LinkDel(br)) })
	gw, err := netlink.ParseAddr(gateway + "/24")
	must(t, err)
	must(t, errors.Join(netlink.AddrAdd(br, gw), netlink.LinkSetUp(br)))
	must(t, netns.New(func(path string) error { return netns.Pin(path, ns) }))
	t.Cleanup(func() { must(t, netns.Unpin(ns)) })
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: bridge + "c"}, PeerName: "eth0"}
	must(t, netlink.LinkAdd(veth))
	peer, err := netlink.LinkByName("eth0")
	must(t, err)
	fd, err := unix.Open(ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, errors.Join(netlink.LinkSetNsFd(peer, fd), netlink.LinkSetMaster(veth, br), netlink.LinkSetUp(veth)))
	must(t, netns.Inside(ns, func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr + "/24")
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l), netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gateway)}))
	}))
	return ns
}

func TestNetworksOfBridgesAreClosedUnlessNamed(t *testing.T) {
	w := testhost.NewWorld(t)
	testhost.Serve(t, w.NS, w.Addr(10)+":80")
	c := container(t, "docker9", "192.0.2.1", "192.0.2.9")
	testhost.Serve(t, c, ":80")
	testhost.Serve(t, "", "192.0.2.1:81")
	// A port of the host that leads to the container, and one that leads out again.
	nf := netfilter(t)
	table := nf.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "runtime"})
	ch := nf.AddChain(&nftables.Chain{Table: table, Name: "dnat", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
	for port, to := range map[uint16]string{8180: "192.0.2.9", 8181: w.Addr(10)} {
		nf.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: rule(l4proto(unix.IPPROTO_TCP), dport(reg0), is(be16(port)...), match{
			&expr.Immediate{Register: reg0, Data: netip.MustParseAddr(to).AsSlice()}, &expr.Immediate{Register: reg1, Data: be16(80)},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg0, RegProtoMin: reg1}})})
	}
	must(t, nf.Flush())
	defer func() { nf.DelTable(table); must(t, nf.Flush()) }()
	m := openManager(t, nil)
	s := acquire(t, m, "a", microvm.Network{Egress: microvm.Egress{Default: microvm.EgressAllow}})
	g := newGuest(t, s)
	g.reaches("tcp", w.Addr(10)+":80")
	g.reachesNone("tcp", "192.0.2.9:80", "192.0.2.1:81", w.Addr(1)+":8180", w.Addr(1)+":8181", "192.0.2.1:8181")
	if testhost.Ask(t, c, "tcp", s.Address.String()+":22", testhost.Patience) != "" {
		t.Error("the container reaches the VM")
	}
	must(t, m.UpdateEgress(bg, "a", microvm.Egress{Allow: rules(t, "192.0.2.9/32:tcp:80")}))
	g.reaches("tcp", "192.0.2.9:80")
	g.doesNotReach("tcp", "192.0.2.1:81")
}

// On many hosts the way to the world is by a bridge: its gateway leads on, and neither
// it nor who else is on the bridge is open.
func TestAWayToTheWorldByABridgeIsOpen(t *testing.T) {
	testhost.Need(t)
	router := container(t, "br9", "192.0.2.1", "192.0.2.9")
	must(t, netns.Inside(router, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr("198.51.100.1/32")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(lo, a))
	}))
	testhost.Serve(t, router, ":80")
	must(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP("192.0.2.9")}))
	must(t, netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4(198, 18, 0, 0), Mask: net.CIDRMask(16, 32)}, Gw: net.ParseIP("192.0.2.77")}))
	m := openManager(t, nil)
	for uid, e := range map[string]microvm.Egress{"a": {Default: microvm.EgressAllow}, "b": {Default: microvm.EgressAllow, Allow: rules(t, "198.51.100.1/32:tcp:81")}, "c": {Allow: rules(t, "198.51.100.0/24", "192.0.2.0/24")}} {
		g := newGuest(t, acquire(t, m, uid, microvm.Network{Egress: e}))
		g.reaches("tcp", "198.51.100.1:80")
		g.doesNotReach("tcp", "192.0.2.9:80")
	}
	here := []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("192.0.2.50"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.18.0.1")}
	if got, err := m.onHost(append(slices.Clone(here), netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("8.8.8.8"))); err != nil || !slices.Equal(got, here) {
		t.Errorf("%v, %v", got, err)
	}
}

// What a policy names of the host is what it opens, however open the rest is.
func TestOneNamedPortOfTheHostOpensNoOther(t *testing.T) {
	w := testhost.NewWorld(t)
	testhost.Serve(t, "", w.Addr(1)+":22")
	testhost.Serve(t, "", w.Addr(1)+":23")
	testhost.Serve(t, w.NS, w.Addr(10)+":23")
	c := container(t, "docker9", "192.0.2.1", "192.0.2.9")
	testhost.Serve(t, c, ":22")
	testhost.Serve(t, c, ":23")
	m := openManager(t, nil)
	named := rules(t, w.Addr(1)+"/32:tcp:22", w.Addr(10)+"/32:tcp:22", "192.0.2.9/32:tcp:22")
	for i, e := range []microvm.Egress{{Default: microvm.EgressAllow, Allow: named}, {Allow: append(rules(t, "0.0.0.0/0:tcp"), named...)}} {
		s := acquire(t, m, []string{"a", "b"}[i], microvm.Network{Egress: e})
		g := newGuest(t, s)
		g.reaches("tcp", w.Addr(1)+":22")
		g.reachesNone("tcp", w.Addr(1)+":23", "192.0.2.9:23")
		g.doesNotReach("udp", w.Addr(1)+":22")
		g.reaches("tcp", "192.0.2.9:22")
		g.reaches("tcp", w.Addr(10)+":23") // nothing of the host's
		open := testhost.Dial(t, g.ns, "tcp", w.Addr(1)+":22", 5*time.Second)
		if open == nil {
			t.Fatal("no connection")
		}
		defer open.Close()
		must(t, m.UpdateEgress(bg, s.UID, microvm.Egress{Default: microvm.EgressAllow}))
		if open.Ask(testhost.Patience) != "" {
			t.Error("a flow to the host goes on that no rule names any more")
		}
		g.doesNotReach("tcp", w.Addr(1)+":22")
	}
}

// Published ports are for the world: VMs are closed to each other this way too.
func TestPublishedPortsAreClosedToVMs(t *testing.T) {
	w := testhost.NewWorld(t)
	testhost.Serve(t, w.NS, w.Addr(10)+":80")
	m, other := openManager(t, nil), openManager(t, func(c *Config) { c.Pool = netip.MustParsePrefix("10.116.0.0/24") })
	open := microvm.Egress{Default: microvm.EgressAllow}
	s := acquire(t, m, "a", microvm.Network{Egress: open, Publish: []microvm.PublishedPort{{HostPort: 8190, GuestPort: 80}}})
	ga := newGuest(t, s)
	testhost.Serve(t, ga.ns, ":80")
	testhost.Serve(t, ga.ns, ":81")
	first, at := s, func(last string) string { return w.Addr(1) + last }
	neighbour := acquire(t, m, "b", microvm.Network{Egress: microvm.Egress{Default: microvm.EgressAllow, Allow: rules(t, s.Address.String()+"/32:tcp:81", w.Addr(1)+"/32:tcp:8190")}})
	stranger := acquire(t, other, "c", microvm.Network{Egress: microvm.Egress{Default: microvm.EgressAllow, Allow: rules(t, w.Addr(1)+"/32:tcp:8190")}})
	for name, s := range map[string]Slot{"its own": s, "a neighbour's": neighbour, "another program's": stranger} {
		g := ga
		if s.UID != "a" {
			g = newGuest(t, s)
		}
		g.reaches("tcp", w.Addr(10)+":80")
		for _, to := range []string{at(":8190"), first.Address.String() + ":80"} {
			if got := testhost.Ask(t, g.ns, "tcp", to, testhost.Patience); got != "" {
				t.Errorf("%s guest reaches %s, as %s", name, to, got)
			}
		}
		if s.UID == "b" {
			g.reaches("tcp", first.Address.String()+":81")
		}
	}
	if testhost.Ask(t, w.NS, "tcp", at(":8190"), 5*time.Second) == "" {
		t.Error("the world does not reach the published port")
	}
}

// A port that is published on a loopback address is for the host alone: a neighbour on
// its network can send packets to 127.0.0.1, too.
func TestAPortOnLoopbackIsTheHostsAlone(t *testing.T) {
	w := testhost.NewWorld(t)
	m := openManager(t, nil)
	s := acquire(t, m, "a", microvm.Network{Publish: []microvm.PublishedPort{{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8200, GuestPort: 80, Protocol: "udp"}, {HostPort: 8201, GuestPort: 80, Protocol: "udp"}}})
	g := newGuest(t, s)
	got := receive(t, g.ns, ":80")
	host, err := net.InterfaceByName(w.Link())
	must(t, err)
	must(t, netns.Inside(w.NS, func() error {
		l, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		to := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP), Ifindex: l.Index, Halen: 6}
		copy(to.Addr[:], host.HardwareAddr)
		for _, dst := range []struct {
			addr string
			port uint16
		}{{"127.0.0.1", 8200}, {"127.0.0.1", 8201}, {"127.1.2.3", 8201}} {
			if err := unix.Sendto(fd, ip4(netip.MustParseAddr(w.Addr(11)), netip.MustParseAddr(dst.addr), unix.IPPROTO_UDP, udp(dst.port, "x"), 1, 0), 0, to); err != nil {
				return err
			}
		}
		return unix.Sendto(fd, ip4(netip.MustParseAddr(w.Addr(10)), netip.MustParseAddr(w.Addr(1)), unix.IPPROTO_UDP, udp(8201, "x"), 1, 0), 0, to)
	}))
	eventually(t, "what is published to the world arrives", func() bool { return got.seen() != "" })
	time.Sleep(testhost.Patience)
	if got.seen() != w.Addr(10)+":12345" {
		t.Errorf("arrived from %s", got.seen())
	}
}

// A policy that names a VM, or a group, means no stranger with such an address beyond
// the host.
func TestAddressesOfThePoolDoNotLeaveTheHost(t *testing.T) {
	w := testhost.NewWorld(t)
	seen := captureOn(t, w.NS, "eth0")
	must(t, netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(w.Addr(10))}))
	m := openManager(t, func(c *Config) { c.Pool = netip.MustParsePrefix("10.120.0.0/24") })
	gone, err := m.Acquire(bg, "gone", microvm.Network{Group: "x"})
	must(t, err)
	e := microvm.Egress{Allow: rules(t, gone.Address.String()+"/32", w.Addr(10)+"/32")}
	a, b := acquire(t, m, "a", microvm.Network{Egress: e}), acquire(t, m, "b", microvm.Network{Egress: e, Group: "x"})
	must(t, m.Release(bg, "gone"))
	for _, s := range []Slot{a, b} {
		g := newGuest(t, s)
		for _, to := range []netip.Addr{gone.Address, netip.MustParseAddr("10.120.0.255"), netip.MustParseAddr(w.Addr(10))} {
			g.send(s, ip4(s.Guest.Addr(), to, unix.IPPROTO_UDP, udp(80, "x"), 1, 0))
		}
	}
	to := func(a string) int {
		return len(seen.find(func(p packetSeen) bool { return p.to.String() == a && p.proto == unix.IPPROTO_UDP }))
	}
	eventually(t, "what the policies name arrives", func() bool { return to(w.Addr(10)) == 2 })
	time.Sleep(testhost.Patience)
	if n := to(gone.Address.String()) + to("10.120.0.255"); n > 0 {
		t.Errorf("%d packets have left", n)
	}
}
