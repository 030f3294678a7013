package network

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/testhost"
)

const hostNS = "/proc/self/ns/net"

func TestAVMReachesWhatItsPolicyNamesAndNothingElse(t *testing.T) {
	w := testhost.NewWorld(t)
	for _, a := range []string{w.Addr(10) + ":443", w.Addr(10) + ":80", w.Addr(11) + ":443", "169.254.169.254:80"} {
		testhost.Serve(t, w.NS, a)
	}
	testhost.Serve(t, "", w.Addr(1)+":22") // the host's own
	m := openManager(t, nil)
	a := acquire(t, m, "a", microvm.Network{Egress: microvm.Egress{Allow: rules(t, w.Addr(10)+"/32:tcp:443", w.Addr(10)+"/32:udp:80")}})
	b := acquire(t, m, "b", microvm.Network{Egress: microvm.Egress{Default: microvm.EgressAllow}})
	ga, gb := newGuest(t, a), newGuest(t, b)
	testhost.Serve(t, ga.ns, ":8000")
	testhost.Serve(t, gb.ns, ":8000")

	ga.reaches("tcp", w.Addr(10)+":443")
	ga.reaches("udp", w.Addr(10)+":80")
	ga.doesNotReach("udp", w.Addr(10)+":443")
	ga.doesNotReach("tcp", w.Addr(10)+":80")
	ga.doesNotReach("tcp", w.Addr(11)+":443")
	gb.reaches("tcp", w.Addr(11)+":443")
	for _, g := range []*guest{ga, gb} {
		g.doesNotReach("tcp", "169.254.169.254:80")
		g.doesNotReach("tcp", w.Addr(1)+":22")
		g.doesNotReach("udp", w.Addr(1)+":22")
	}
	ga.doesNotReach("tcp", b.Address.String()+":8000")
	gb.doesNotReach("tcp", a.Address.String()+":8000")

	// The host reaches every VM at its own address; the world reaches none.
	for _, s := range []Slot{a, b} {
		for _, proto := range []string{"tcp", "udp"} {
			if testhost.Ask(t, hostNS, proto, s.Address.String()+":8000", 5*time.Second) == "" {
				t.Errorf("the host does not reach %s by %s", s.UID, proto)
			}
			if got := testhost.Ask(t, w.NS, proto, s.Address.String()+":8000", testhost.Patience); got != "" {
				t.Errorf("the world reaches %s by %s", s.UID, proto)
			}
		}
	}
}

func TestAPolicyIsReplacedWhileTheVMRuns(t *testing.T) {
	w := testhost.NewWorld(t)
	testhost.Serve(t, w.NS, w.Addr(10)+":443")
	testhost.Serve(t, w.NS, w.Addr(11)+":443")
	testhost.Serve(t, "", w.Addr(1)+":22")
	m := openManager(t, nil)
	s := acquire(t, m, "a", microvm.Network{})
	g := newGuest(t, s)
	testhost.Serve(t, g.ns, ":8000")
	first, second := w.Addr(10)+":443", w.Addr(11)+":443"
	g.doesNotReach("tcp", first)
	only := func(ss ...string) {
		t.Helper()
		must(t, m.UpdateEgress(bg, "a", microvm.Egress{Allow: rules(t, ss...)}))
	}

	only(w.Addr(10)+"/32:tcp:443", w.Addr(11)+"/32")
	g.reaches("tcp", first)
	stays, ends := testhost.Dial(t, g.ns, "tcp", first, 5*time.Second), testhost.Dial(t, g.ns, "tcp", second, 5*time.Second)
	udp := testhost.Dial(t, g.ns, "udp", second, 5*time.Second)
	fromHost := testhost.Dial(t, hostNS, "tcp", s.Address.String()+":8000", 5*time.Second)
	for name, c := range map[string]*testhost.Conn{"first": stays, "second": ends, "udp": udp, "from the host": fromHost} {
		if c == nil || c.Ask(5*time.Second) == "" {
			t.Fatalf("%s: no connection", name)
		}
		defer c.Close()
	}
	only(w.Addr(10) + "/32:tcp:443")
	if stays.Ask(5*time.Second) == "" {
		t.Error("a flow that is allowed still has ended")
	}
	if fromHost.Ask(5*time.Second) == "" {
		t.Error("a flow that the host began has ended")
	}
	if ends.Ask(testhost.Patience) != "" || udp.Ask(testhost.Patience) != "" {
		t.Error("a flow that is not allowed any more goes on")
	}
	g.doesNotReach("tcp", second)

	// The host's own address is open to who names it, for as long as it does.
	only(w.Addr(1) + "/32:tcp:22")
	g.reaches("tcp", w.Addr(1)+":22")
	only(w.Addr(0) + "/24")
	g.doesNotReach("tcp", w.Addr(1)+":22")
	g.reaches("tcp", second)
	must(t, m.UpdateEgress(bg, "a", microvm.Egress{}))
	g.doesNotReach("tcp", first)
	if c, err := m.Counters("a"); err != nil || c.TxPackets == 0 || c.TxDroppedPackets == 0 || c.RxBytes == 0 || c.SpoofedPackets != 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestPublishedPortsLeadToTheGuest(t *testing.T) {
	w := testhost.NewWorld(t)
	m := openManager(t, nil)
	s := acquire(t, m, "a", microvm.Network{Publish: []microvm.PublishedPort{{HostPort: 8080, GuestPort: 80}, {HostPort: 5353, GuestPort: 53, Protocol: "udp"}}})
	g := newGuest(t, s)
	testhost.Serve(t, g.ns, ":80")
	testhost.Serve(t, g.ns, ":53")
	for _, from := range []string{w.NS, hostNS} {
		if got := testhost.Ask(t, from, "tcp", w.Addr(1)+":8080", 5*time.Second); got == "" {
			t.Errorf("8080 is not answered for %s", from)
		}
		if got := testhost.Ask(t, from, "udp", w.Addr(1)+":5353", 5*time.Second); got == "" {
			t.Errorf("5353 is not answered for %s", from)
		}
		if got := testhost.Ask(t, from, "udp", w.Addr(1)+":8080", testhost.Patience); got != "" {
			t.Errorf("8080 is answered by UDP for %s", from)
		}
	}
	if got := testhost.Ask(t, hostNS, "tcp", "127.0.0.1:8080", 5*time.Second); got == "" {
		t.Error("127.0.0.1:8080 is not answered")
	}
	_, err := m.Acquire(bg, "b", microvm.Network{Publish: []microvm.PublishedPort{{HostPort: 8081, GuestPort: 1}, {HostPort: 8080, GuestPort: 1}}})
	if !errors.As(err, new(*PortTakenError)) || !strings.Contains(err.Error(), "VM a") {
		t.Errorf("a port that is taken: %v", err)
	}
	if _, err := m.Find("b"); !errors.Is(err, ErrNoSlot) {
		t.Errorf("what could not be made is there: %v", err)
	}
	must(t, m.Release(bg, "a"))
	c := acquire(t, m, "c", microvm.Network{Publish: []microvm.PublishedPort{{HostPort: 8080, GuestPort: 80}}})
	if c.Address == s.Address {
		t.Log("the same address") // may be
	}
}

func TestVMsOfAGroupReachEachOther(t *testing.T) {
	m := openManager(t, nil)
	group := func(uid, group string, rules ...microvm.EgressRule) (Slot, *guest) {
		s := acquire(t, m, uid, microvm.Network{Group: group, Egress: microvm.Egress{Allow: rules}})
		g := newGuest(t, s)
		testhost.Serve(t, g.ns, ":80")
		return s, g
	}
	a, ga := group("a", "x")
	b, gb := group("b", "x")
	c, gc := group("c", "y")
	d, gd := group("d", "", rules(t, a.Address.String()+"/32:tcp:80")...)
	at := func(s Slot) string { return s.Address.String() + ":80" }
	ga.reaches("tcp", at(b))
	gb.reaches("tcp", at(a))
	ga.doesNotReach("tcp", at(c))
	gc.doesNotReach("tcp", at(a))
	ga.doesNotReach("tcp", at(d))
	// By name, in one direction.
	gd.reaches("tcp", at(a))
	gd.doesNotReach("udp", at(a))
	gd.doesNotReach("tcp", at(b))
	must(t, m.Release(bg, "b"))
	ga.doesNotReach("tcp", at(b))
}

// All clones of a snapshot have the same address inside.
func TestClonesAreToldApartByTheirOwnAddresses(t *testing.T) {
	w := testhost.NewWorld(t)
	testhost.Serve(t, "", w.Addr(1)+":9000")
	m := openManager(t, nil)
	opts := microvm.Network{Egress: microvm.Egress{Allow: rules(t, w.Addr(1)+"/32:tcp:9000")}}
	var guests []*guest
	var slots []Slot
	for _, uid := range []string{"a", "b", "c"} {
		s := acquire(t, m, uid, opts)
		slots, guests = append(slots, s), append(guests, newGuest(t, s))
	}
	var wg sync.WaitGroup
	for i, g := range guests {
		wg.Go(func() {
			if got := testhost.Ask(t, g.ns, "tcp", w.Addr(1)+":9000", 5*time.Second); got != slots[i].Address.String() {
				t.Errorf("%s is seen as %q, not as %s", slots[i].UID, got, slots[i].Address)
			}
		})
		if slots[i].Guest != slots[0].Guest || slots[i].MAC.String() != slots[0].MAC.String() {
			t.Errorf("inside they differ: %+v", slots[i])
		}
	}
	wg.Wait()
}
