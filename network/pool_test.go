package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/testhost"
)

func TestSlotsAreMadeAheadAndUsedAgain(t *testing.T) {
	w := testhost.NewWorld(t)
	testhost.Serve(t, w.NS, w.Addr(10)+":443")
	m := openManager(t, func(c *Config) { c.Slots = SlotPool{Min: 2, Max: 3} })
	ready := func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.ready)
	}
	eventually(t, "two are ready", func() bool { return ready() == 2 })
	opts := microvm.Network{Egress: microvm.Egress{Default: microvm.EgressAllow}, MaxConnections: 100, Publish: []microvm.PublishedPort{{HostPort: 8070, GuestPort: 80}}, Group: "g"}
	s, err := m.Acquire(bg, "a", opts)
	must(t, err)
	g := newGuest(t, s)
	g.reaches("tcp", w.Addr(10)+":443")
	kept := testhost.Dial(t, g.ns, "tcp", w.Addr(10)+":443", 5*time.Second)
	if kept == nil {
		t.Fatal("no connection")
	}
	defer kept.Close()
	g.tap.Close() // the VMM ends
	must(t, m.Release(bg, "a"))
	eventually(t, "the slot is ready again", func() bool { return ready() == 3 })

	// Nothing of the former VM is in it.
	var again Slot
	for i := 0; ; i++ {
		again = acquire(t, m, fmt.Sprint("b", i), microvm.Network{})
		if again.Address == s.Address {
			break
		}
	}
	c, err := m.Counters(again.UID)
	if err != nil || c != (Counters{}) {
		t.Errorf("%+v, %v", c, err)
	}
	g = newGuest(t, again)
	testhost.Serve(t, g.ns, ":80")
	g.doesNotReach("tcp", w.Addr(10)+":443")
	if got := testhost.Ask(t, w.NS, "tcp", w.Addr(1)+":8070", testhost.Patience); got != "" {
		t.Error("the former VM's port is published")
	}
	if got := testhost.Ask(t, hostNS, "tcp", again.Address.String()+":80", 5*time.Second); got == "" {
		t.Error("the host does not reach it")
	}
}

// Two addresses for eight goroutines, that meanwhile look after themselves: whoever has
// one has it alone, until it is free in the kernel too.
func TestASlotIsGivenOnOnlyWhenItsOwnerIsDone(t *testing.T) {
	c := Config{Dir: t.TempDir(), Pool: netip.MustParsePrefix("10.115.0.0/30"), Slots: SlotPool{Max: 2}}
	ms := []*Manager{openOver(t, c), openOver(t, c)}
	var mu sync.Mutex
	held := map[netip.Addr]string{}
	ctx, cancel := context.WithTimeout(bg, 3*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	got := 0
	for i := range 8 {
		m := ms[i%2]
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				uid := fmt.Sprintf("%d-%d", i, n)
				s, err := m.Acquire(bg, uid, microvm.Network{Publish: []microvm.PublishedPort{{HostPort: uint16(7000 + i), GuestPort: 1}}})
				if errors.Is(err, ErrPoolFull) {
					time.Sleep(time.Millisecond)
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if other := held[s.Address]; other != "" {
					t.Errorf("%s got the address of %s", uid, other)
				}
				held[s.Address] = uid
				got++
				mu.Unlock()
				if _, err := m.Counters(uid); err != nil {
					t.Error(err)
				}
				mu.Lock()
				delete(held, s.Address)
				mu.Unlock()
				if err := m.Release(bg, uid); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			rep, err := ms[0].Reconcile(bg, func(string) bool { return true })
			if err != nil || len(rep.Failed) > 0 {
				t.Errorf("%+v, %v", rep, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	wg.Wait()
	if got < 4 {
		t.Errorf("only %d were made", got)
	}
	for _, m := range ms {
		if rep, err := m.Reconcile(bg, dead); err != nil || len(rep.Failed) > 0 {
			t.Errorf("%+v, %v", rep, err)
		}
	}
}

func TestIPv6IsClosedToo(t *testing.T) {
	w := testhost.NewWorld(t)
	six := w.Six(t)
	testhost.Serve(t, w.NS, "["+six+"]:443")
	testhost.Serve(t, w.NS, "["+six+"]:80")
	testhost.SetSysctl(t, "ipv6/conf/all/forwarding", "1")
	m := openManager(t, func(c *Config) { c.IPv6 = true })
	s := acquire(t, m, "a", microvm.Network{Egress: microvm.Egress{Allow: rules(t, "["+six+"]:tcp:443")}, Publish: []microvm.PublishedPort{{HostPort: 8060, GuestPort: 80}}})
	other := acquire(t, m, "b", microvm.Network{Egress: microvm.Egress{Default: microvm.EgressAllow}})
	g, gb := newGuest(t, s), newGuest(t, other)
	testhost.Serve(t, g.ns, "[::]:80")
	g.reaches("tcp", "["+six+"]:443")
	g.doesNotReach("tcp", "["+six+"]:80")
	gb.reaches("tcp", "["+six+"]:80")
	gb.doesNotReach("tcp", "["+s.Address6.String()+"]:80")
	if testhost.Ask(t, hostNS, "tcp", "["+s.Address6.String()+"]:80", 5*time.Second) == "" {
		t.Error("the host does not reach the VM")
	}
	if testhost.Ask(t, w.NS, "tcp", "["+w.Six1()+"]:8060", 5*time.Second) == "" {
		t.Error("the published port is not answered")
	}
	if got := testhost.Ask(t, w.NS, "tcp", "["+s.Address6.String()+"]:80", testhost.Patience); got != "" {
		t.Error("the world reaches the VM")
	}
}
