package network

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
	"github.com/tangle-network/microvm/internal/testhost"
)

// accomplice is a server that, once a guest has written to it, never stops sending to
// it, and counts what it gets.
type accomplice struct {
	got atomic.Int64
}

func newAccomplice(t testing.TB, ns, addr string) *accomplice {
	t.Helper()
	a := &accomplice{}
	var u net.PacketConn
	must(t, netns.Inside(ns, func() (err error) {
		u, err = net.ListenPacket("udp", addr)
		return err
	}))
	var to atomic.Pointer[net.Addr]
	done := make(chan struct{})
	var wg sync.WaitGroup
	t.Cleanup(func() { close(done); u.Close(); wg.Wait() })
	wg.Go(func() {
		buf := make([]byte, 100)
		for {
			_, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			a.got.Add(1)
			to.Store(&from)
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Microsecond):
			}
			if at := to.Load(); at != nil {
				u.WriteTo([]byte("x"), *at)
			}
		}
	})
	return a
}

// hears says whether what the guest sends arrives; sent until it does, or for a while.
func (a *accomplice) hears(c net.Conn, wait time.Duration) bool {
	before := a.got.Load()
	for end := time.Now().Add(wait); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		c.Write([]byte("x"))
		if a.got.Load() > before {
			return true
		}
	}
	return false
}

// A flow that a new policy forbids can't be kept by whoever is at its other end: what
// it sends meanwhile would begin the flow anew, from its side.
func TestAnAccompliceKeepsNoForbiddenFlow(t *testing.T) {
	w := testhost.NewWorld(t)
	bad, good := newAccomplice(t, w.NS, w.Addr(10)+":443"), newAccomplice(t, w.NS, w.Addr(11)+":443")
	m := openManager(t, nil)
	both := microvm.Egress{Allow: rules(t, w.Addr(10)+"/32", w.Addr(11)+"/32")}
	s := acquire(t, m, "a", microvm.Network{Egress: both, Publish: []microvm.PublishedPort{{HostPort: 8400, GuestPort: 8400, Protocol: "udp"}}})
	g := newGuest(t, s)
	published := receive(t, g.ns, ":8400")
	dial := func(addr string) net.Conn {
		c := testhost.Dial(t, g.ns, "udp", addr, 5*time.Second)
		t.Cleanup(func() { c.Close() })
		return c
	}
	for i := range 5 {
		toBad, toGood := dial(w.Addr(10)+":443"), dial(w.Addr(11)+":443")
		if !bad.hears(toBad, 5*time.Second) || !good.hears(toGood, 5*time.Second) {
			t.Fatal("what is open does not pass")
		}
		inbound := testhost.Dial(t, w.NS, "udp", w.Addr(1)+":8400", 5*time.Second)
		before := published.seen()
		eventually(t, "the published port is reached", func() bool { inbound.Write([]byte("x")); return published.seen() != before })
		if i > 0 {
			// The namespace forgets the flow, as a guest can make it do, and knows it the other
			// way around from then on.
			must(t, netns.Inside(s.Namespace, func() error {
				_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, flowFilter(func(f *netlink.ConntrackFlow) bool { return f.Forward.DstPort == 443 }))
				return err
			}))
			turned := func(ip string) bool {
				var flows []*netlink.ConntrackFlow
				must(t, netns.Inside(s.Namespace, func() (err error) {
					flows, err = netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
					return err
				}))
				for _, f := range flows {
					if f.Forward.SrcIP.String() == ip {
						return true
					}
				}
				return false
			}
			eventually(t, "the flows have turned", func() bool { return turned(w.Addr(10)) && turned(w.Addr(11)) })
		}
		must(t, m.UpdateEgress(bg, "a", microvm.Egress{Allow: rules(t, w.Addr(11)+"/32")}))
		time.Sleep(20 * time.Millisecond) // what was on its way
		if bad.hears(toBad, testhost.Patience) {
			t.Fatalf("%d: a forbidden flow goes on", i)
		}
		if !good.hears(toGood, 5*time.Second) {
			t.Fatalf("%d: an allowed flow has ended", i)
		}
		before = published.seen()
		eventually(t, "the published port is reached still", func() bool { inbound.Write([]byte("x")); return published.seen() != before })
		inbound.Close()
		must(t, m.UpdateEgress(bg, "a", both))
	}
}

// What comes for nobody's slot is no flow of the VM that gets it.
func TestNothingBeginsAFlowBeforeItsVMIsThere(t *testing.T) {
	w := testhost.NewWorld(t)
	m := openManager(t, func(c *Config) { c.Slots = SlotPool{Min: 1, Max: 1}; c.Pool = netip.MustParsePrefix("10.117.0.0/31") })
	eventually(t, "a slot is ready", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.ready) == 1 })
	for range 2 { // a new one, and one that was a VM's
		var u *net.UDPConn
		must(t, netns.Inside(w.NS, func() (err error) {
			u, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(w.Addr(10)), Port: 443})
			return err
		}))
		knock := func() {
			_, err := u.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(10, 117, 0, 1), Port: 5000})
			must(t, err)
		}
		knock()
		knock()
		time.Sleep(20 * time.Millisecond)
		s, err := m.Acquire(bg, "a", microvm.Network{})
		must(t, err)
		g := newGuest(t, s)
		must(t, netns.Inside(g.ns, func() error {
			c, err := net.DialUDP("udp", &net.UDPAddr{Port: 5000}, &net.UDPAddr{IP: net.ParseIP(w.Addr(10)), Port: 443})
			if err != nil {
				return err
			}
			defer c.Close()
			knock()
			_, err = c.Write([]byte("out\n"))
			return err
		}))
		u.SetReadDeadline(time.Now().Add(testhost.Patience))
		if n, err := u.Read(make([]byte, 10)); err == nil {
			t.Errorf("%d bytes have left the closed VM", n)
		}
		u.Close()
		g.tap.Close()
		must(t, m.Release(bg, "a"))
	}
}

// The host's flows of a VM end with it: another may have its address at once.
func TestFlowsOfAVMEndWithIt(t *testing.T) {
	w := testhost.NewWorld(t)
	far := newAccomplice(t, w.NS, w.Addr(10)+":443")
	m := openManager(t, func(c *Config) { c.Slots = SlotPool{Max: 1}; c.Pool = netip.MustParsePrefix("10.118.0.0/31") })
	s, err := m.Acquire(bg, "a", microvm.Network{Egress: microvm.Egress{Default: microvm.EgressAllow}})
	must(t, err)
	g := newGuest(t, s)
	must(t, netns.Inside(g.ns, func() error {
		c, err := net.DialUDP("udp", &net.UDPAddr{Port: 5000}, &net.UDPAddr{IP: net.ParseIP(w.Addr(10)), Port: 443})
		if err == nil {
			defer c.Close()
			if !far.hears(c, 5*time.Second) {
				err = fmt.Errorf("what is open does not pass")
			}
		}
		return err
	}))
	g.tap.Close()
	must(t, m.Release(bg, "a"))
	next := acquire(t, m, "b", microvm.Network{})
	if next.Address != s.Address {
		t.Fatal("another address")
	}
	g = newGuest(t, next)
	got := receive(t, g.ns, ":5000")
	time.Sleep(testhost.Patience)
	if got.seen() != "" {
		t.Errorf("the next VM has it: %.100s", got.seen())
	}
}

// A change of the policy forgets no flow that is counted.
func TestConnectionsAreBoundedAcrossPolicies(t *testing.T) {
	w := testhost.NewWorld(t)
	testhost.Serve(t, w.NS, w.Addr(10)+":443")
	m := openManager(t, nil)
	open := microvm.Egress{Default: microvm.EgressAllow}
	s := acquire(t, m, "a", microvm.Network{Egress: open, MaxConnections: 2})
	g := newGuest(t, s)
	for range 2 {
		c := testhost.Dial(t, g.ns, "tcp", w.Addr(10)+":443", 5*time.Second)
		if c == nil {
			t.Fatal("no connection")
		}
		defer c.Close()
	}
	must(t, m.UpdateEgress(bg, "a", open))
	g.doesNotReach("tcp", w.Addr(10)+":443")
}

// A program that was killed in the middle of an update.
func TestAnUpdateThatWasCutOffIsFinished(t *testing.T) {
	w := testhost.NewWorld(t)
	testhost.Serve(t, w.NS, w.Addr(10)+":443")
	m := openManager(t, nil)
	s := acquire(t, m, "a", microvm.Network{Egress: microvm.Egress{Default: microvm.EgressAllow}})
	g := newGuest(t, s)
	c := testhost.Dial(t, g.ns, "tcp", w.Addr(10)+":443", 5*time.Second)
	if c == nil {
		t.Fatal("no connection")
	}
	defer c.Close()
	d, o, err := m.lockOwned(bg, "a")
	must(t, err)
	before := o.Options.Egress
	o.Before, o.Options.Egress = &before, microvm.Egress{}
	must(t, d.writeOwner(o))
	d.unlock()
	for _, want := range []int{1, 0} {
		rep, err := m.Reconcile(bg, func(string) bool { return true })
		if err != nil || len(rep.Mended) != want || len(rep.Failed) > 0 {
			t.Errorf("%+v, %v", rep, err)
		}
	}
	if c.Ask(testhost.Patience) != "" {
		t.Error("the flow goes on")
	}
	g.doesNotReach("tcp", w.Addr(10)+":443")
}
