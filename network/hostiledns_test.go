package network

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/testhost"
)

func TestAHostileAnswerIsBounded(t *testing.T) {
	t.Parallel()
	q := ask4("www.example.org")
	var many []dnsmessage.Resource
	for i := range 4000 {
		many = append(many, a("www.example.org", netip.AddrFrom4([4]byte{20, 0, byte(i >> 8), byte(i)}).String(), math.MaxUint32))
	}
	asked := 0
	got, err := q.parseAnswer(said(t, q, 9, many...), 9, func(netip.Addr) bool { asked++; return asked > 32 })
	if err != nil || len(got.addrs) != maxAddrs-32 || len(got.rrs) != maxAddrs-32 || asked != maxAddrs || got.ttl != maxTTL {
		t.Errorf("%d addresses, asked for %d, ttl %v, %v", len(got.addrs), asked, got.ttl, err)
	}
	// A chain of aliases that does not end soon leads nowhere.
	var chain []dnsmessage.Resource
	for i := range 40 {
		chain = append(chain, cname(fmt.Sprintf("%d.example.org", i), fmt.Sprintf("%d.example.org", i+1), 0))
	}
	chain = append(chain, cname("www.example.org", "0.example.org", 0), a("40.example.org", "20.0.0.1", 0))
	if got, err := q.parseAnswer(said(t, q, 9, chain...), 9, all); err != nil || len(got.addrs) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	// Names that point at themselves, at each other and past the end.
	good := said(t, q, 9, a("www.example.org", "20.0.0.1", 0))
	at := len(good) - 16 // the answer's name
	for _, ptr := range []uint16{uint16(at), uint16(at + 2), 0x3fff, 0} {
		bad := append([]byte(nil), good...)
		binary.BigEndian.PutUint16(bad[at:], 0xc000|ptr)
		if got, err := q.parseAnswer(bad, 9, all); err == nil && len(got.addrs) > 0 {
			t.Errorf("pointer %d: %+v", ptr, got)
		}
	}
	// Counts that are not so.
	for _, i := range []int{4, 6, 8, 10} {
		bad := append([]byte(nil), good...)
		binary.BigEndian.PutUint16(bad[i:], 0xffff)
		if got, err := q.parseAnswer(bad, 9, all); err == nil && len(got.addrs) > 1 {
			t.Errorf("count at %d: %+v", i, got)
		}
	}
}

// Whoever owns a domain that a policy names may resolve it to anything, for ever.
func TestEndlessAnswersFillABoundedSet(t *testing.T) {
	w := testhost.NewWorld(t)
	names := serveNames(t, w.NS, w.Addr(10)+":53")
	log := &lines{}
	m := openManager(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(log, nil)) })
	e := microvm.Egress{DNS: []netip.Addr{netip.MustParseAddr(w.Addr(10))}, Allow: rules(t, "*.evil.example:tcp:443")}
	for i := range 15 {
		e.Allow = append(e.Allow, rules(t, fmt.Sprintf("example.org:tcp:%d", i+1))...)
	}
	s := acquire(t, m, "a", microvm.Network{Egress: e})
	g := newGuest(t, s)
	failed := 0
	for i := range maxResolved/16/maxAddrs + 3 {
		var rrs []dnsmessage.Resource
		name := fmt.Sprintf("big%d.evil.example", i)
		for j := range maxAddrs + 6 {
			rrs = append(rrs, a(name, netip.AddrFrom4([4]byte{20, byte(i), 0, byte(j)}).String(), math.MaxUint32))
		}
		names.set(rrs...)
		if _, err := g.lookUp(s, name); err != nil {
			failed++
		}
	}
	total := 0
	for name, n := range policySets(t, m, "a") {
		if strings.HasPrefix(name, resolvedSet) {
			total += n
		}
	}
	if total != maxResolved/16 || failed == 0 {
		t.Errorf("%d addresses, %d lookups failed", total, failed)
	}
	if n := strings.Count(log.String(), "\n"); n == 0 || n > 15 {
		t.Errorf("%d lines of log", n)
	}
	// A policy with less room takes what it has room for.
	for i := range 30 {
		e.Allow = append(e.Allow, rules(t, fmt.Sprintf("example.org:tcp:%d", i+100))...)
	}
	must(t, m.UpdateEgress(bg, "a", e))
}

// A question that was asked under one policy, and is answered under the next.
func TestAnAnswerOpensNothingInAPolicyThatHasNotTheName(t *testing.T) {
	w := testhost.NewWorld(t)
	names := serveNames(t, w.NS, w.Addr(10)+":53")
	names.hold = make(chan struct{})
	names.set(a("a.example.org", w.Addr(11), 60))
	testhost.Serve(t, w.NS, w.Addr(11)+":443")
	m := openManager(t, nil)
	dns := []netip.Addr{netip.MustParseAddr(w.Addr(10))}
	s := acquire(t, m, "a", microvm.Network{Egress: microvm.Egress{DNS: dns, Allow: rules(t, "a.example.org:tcp:443")}})
	g := newGuest(t, s)
	done := make(chan error, 1)
	go func() {
		_, err := g.lookUp(s, "a.example.org")
		done <- err
	}()
	time.Sleep(100 * time.Millisecond)
	must(t, m.UpdateEgress(bg, "a", microvm.Egress{DNS: dns, Allow: rules(t, "b.example.org:tcp:443")}))
	close(names.hold)
	if err := <-done; err == nil {
		t.Error("the name resolves")
	}
	g.doesNotReach("tcp", w.Addr(11)+":443")
	if got := policySets(t, m, "a"); got["resolved"+shapes(rules(t, "b.example.org:tcp:443"))[0].id+"4"] != 0 {
		t.Errorf("%v", got)
	}
}
