package network

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
	"github.com/tangle-network/microvm/internal/testhost"
)

func TestAHostPortLeadsToOneVM(t *testing.T) {
	w := testhost.NewWorld(t)
	m, other := openManager(t, nil), openManager(t, nil)
	host := netip.MustParseAddr(w.Addr(1))
	s := acquire(t, m, "a", microvm.Network{Publish: []microvm.PublishedPort{{HostPort: 8300, GuestPort: 80}, {HostIP: host, HostPort: 8301, GuestPort: 80, Protocol: "udp"}}})
	g := newGuest(t, s)
	testhost.Serve(t, g.ns, ":80")
	l, err := net.Listen("tcp", w.Addr(1)+":8302")
	must(t, err)
	defer l.Close()
	u, err := net.ListenPacket("udp", "[::]:8303")
	must(t, err)
	defer u.Close()
	nowhere := netip.MustParseAddr("198.51.100.77")
	for i, c := range []struct {
		m    *Manager
		p    microvm.PublishedPort
		says string
	}{
		{m, microvm.PublishedPort{HostPort: 8300, GuestPort: 1}, "taken by VM a:"},
		{m, microvm.PublishedPort{HostIP: host, HostPort: 8300, GuestPort: 1}, "taken by VM a:"},
		{m, microvm.PublishedPort{HostPort: 8301, GuestPort: 1, Protocol: "udp"}, "taken by VM a:"},
		{other, microvm.PublishedPort{HostPort: 8300, GuestPort: 1}, s.Address.String()},
		{other, microvm.PublishedPort{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8300, GuestPort: 1}, s.Address.String()},
		{m, microvm.PublishedPort{HostPort: 8302, GuestPort: 1}, "a program of the host"},
		{m, microvm.PublishedPort{HostIP: host, HostPort: 8303, GuestPort: 1, Protocol: "udp"}, "a program of the host"},
		{m, microvm.PublishedPort{HostIP: nowhere, HostPort: 8304, GuestPort: 1}, "no address of the host"},
	} {
		_, err := c.m.Acquire(bg, "b", microvm.Network{Publish: []microvm.PublishedPort{c.p}})
		if !errors.As(err, new(*PortTakenError)) && c.p.HostIP != nowhere || err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), c.p.String()) {
			t.Errorf("%d %v: %v", i, c.p, err)
		}
	}
	// Another address, or protocol, is another port.
	acquire(t, other, "c", microvm.Network{Publish: []microvm.PublishedPort{
		{HostPort: 8300, GuestPort: 1, Protocol: "udp"}, {HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 8301, GuestPort: 80, Protocol: "udp"}, {HostPort: 8302, GuestPort: 1, Protocol: "udp"}}})
	// Whoever failed to get a port took nothing from who has it.
	if testhost.Ask(t, w.NS, "tcp", w.Addr(1)+":8300", 5*time.Second) == "" || testhost.Ask(t, w.NS, "udp", w.Addr(1)+":8301", 5*time.Second) == "" {
		t.Error("the port of the first is gone")
	}
}

// A program that was killed after it had taken a slot, and before it could see that
// the port is another's.
func TestWhatIsRemovedOfTheDeadIsNotTheLivings(t *testing.T) {
	w := testhost.NewWorld(t)
	c := Config{Dir: t.TempDir()}
	m := openOver(t, c)
	o := microvm.Network{Publish: []microvm.PublishedPort{{HostPort: 8310, GuestPort: 80}}}
	s := acquire(t, m, "a", o)
	g := newGuest(t, s)
	testhost.Serve(t, g.ns, ":80")
	d, err := m.claim(bg, &owner{UID: "killed", Options: o}, func() error { return nil })
	must(t, err)
	d.unlock()
	rep, err := m.Reconcile(bg, func(uid string) bool { return uid == "a" })
	if err != nil || len(rep.Removed) != 1 || len(rep.Failed) > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if testhost.Ask(t, w.NS, "tcp", w.Addr(1)+":8310", 5*time.Second) == "" {
		t.Error("the port of the living is gone")
	}
}

// The resolver's own sockets, and others in namespaces, are nobody's on the host.
func TestAPortOfANamespaceIsFreeOnTheHost(t *testing.T) {
	m := openManager(t, nil)
	s := acquire(t, m, "a", microvm.Network{})
	must(t, netns.Inside(s.Namespace, func() error {
		l, err := net.Listen("tcp", ":8320")
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}))
	acquire(t, m, "b", microvm.Network{Publish: []microvm.PublishedPort{{HostPort: 8320, GuestPort: 1}, {HostPort: 53, GuestPort: 53, Protocol: "udp"}}})
}
