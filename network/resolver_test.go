package network

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
	"github.com/tangle-network/microvm/internal/testhost"
)

// nameServer answers by UDP and TCP with what it was told; by UDP it says of names that
// begin with "big." that they are too big for it.
type nameServer struct {
	mu   sync.Mutex
	rrs  []dnsmessage.Resource
	seen []string
	hold chan struct{} // until it is closed, nothing is answered
}

func (n *nameServer) set(rrs ...dnsmessage.Resource) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rrs = rrs
}

func (n *nameServer) asked() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.seen)
}

func (n *nameServer) answer(msg []byte, udp bool) []byte {
	q, _, err := parseQuery(msg)
	if err != nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen = append(n.seen, q.name())
	if n.hold != nil {
		<-n.hold
	}
	if udp && strings.HasPrefix(q.name(), "big.") {
		b, _ := q.truncated()
		return b
	}
	b, _ := q.reply(dnsmessage.RCodeSuccess, n.rrs)
	return b
}

func serveNames(t testing.TB, ns, addr string) *nameServer {
	t.Helper()
	n := &nameServer{}
	var u net.PacketConn
	var l net.Listener
	must(t, netns.Inside(ns, func() (err error) {
		if u, err = net.ListenPacket("udp", addr); err != nil {
			return err
		}
		l, err = net.Listen("tcp", addr)
		return err
	}))
	var wg sync.WaitGroup
	t.Cleanup(func() { u.Close(); l.Close(); wg.Wait() })
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			k, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			u.WriteTo(n.answer(buf[:k], true), from)
		}
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if msg, err := readFramed(c); err == nil {
				out := n.answer(msg, false)
				c.Write(append(be16(uint16(len(out))), out...))
			}
			c.Close()
		}
	})
	return n
}

// lookUp resolves as the guest does.
func (g *guest) lookUp(s Slot, name string) ([]netip.Addr, error) {
	r := net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, proto, _ string) (c net.Conn, err error) {
		err = netns.Inside(g.ns, func() error {
			c, err = (&net.Dialer{}).DialContext(ctx, proto, netip.AddrPortFrom(s.Gateway, 53).String())
			return err
		})
		return c, err
	}}
	ctx, cancel := context.WithTimeout(bg, 10*time.Second)
	defer cancel()
	return r.LookupNetIP(ctx, "ip4", name+".")
}

func TestADomainOpensWhatItResolvesTo(t *testing.T) {
	w := testhost.NewWorld(t)
	names := serveNames(t, w.NS, w.Addr(10)+":53")
	testhost.Serve(t, w.NS, w.Addr(10)+":443")
	testhost.Serve(t, w.NS, w.Addr(11)+":443")
	testhost.Serve(t, w.NS, w.Addr(11)+":80")
	m := openManager(t, nil)
	dns := []netip.Addr{netip.MustParseAddr(w.Addr(10))}
	s := acquire(t, m, "a", microvm.Network{Egress: microvm.Egress{DNS: dns, Allow: rules(t, "api.example.org:tcp:443", "*.example.net:tcp:443")}})
	g := newGuest(t, s)
	names.set(cname("api.example.org", "edge.example.com", 60), a("edge.example.com", w.Addr(11), 60), a("edge.example.com", "169.254.169.254", 60),
		a("edge.example.com", w.Addr(1), 60), a("edge.example.com", "127.0.0.1", 60), a("edge.example.com", s.Address.String(), 60))

	g.doesNotReach("tcp", w.Addr(11)+":443")
	got, err := g.lookUp(s, "API.example.org")
	must(t, err)
	if len(got) != 1 || got[0].String() != w.Addr(11) {
		t.Errorf("resolved to %v", got)
	}
	g.reaches("tcp", w.Addr(11)+":443")
	g.doesNotReach("tcp", w.Addr(11)+":80")
	g.doesNotReach("tcp", w.Addr(10)+":443")
	// Past the resolver there is no other.
	g.doesNotReach("udp", w.Addr(10)+":53")

	var dnsErr *net.DNSError
	for _, other := range []string{"example.org", "www.example.org", "example.net", "edge.example.com"} {
		if got, err := g.lookUp(s, other); !errors.As(err, &dnsErr) {
			t.Errorf("%s: %v, %v", other, got, err)
		}
	}
	for _, n := range names.asked() {
		if n != "api.example.org" {
			t.Errorf("the name server was asked for %s", n)
		}
	}

	names.set(a("big.x.example.net", w.Addr(10), 60))
	if got, err := g.lookUp(s, "big.x.example.net"); err != nil || len(got) != 1 {
		t.Errorf("over TCP: %v, %v", got, err)
	}
	g.reaches("tcp", w.Addr(10)+":443")

	// A policy that has the name still goes on with what it was resolved to; one that
	// has not closes it.
	must(t, m.UpdateEgress(bg, "a", microvm.Egress{DNS: dns, Allow: rules(t, "api.example.org:tcp:443,80")}))
	g.reaches("tcp", w.Addr(11)+":80")
	g.doesNotReach("tcp", w.Addr(10)+":443")
	must(t, m.UpdateEgress(bg, "a", microvm.Egress{DNS: dns, Allow: rules(t, "*.example.net:tcp:443")}))
	g.doesNotReach("tcp", w.Addr(11)+":443")
}

// A stub of the host on a loopback address would be the guest itself, were it copied
// into the guest.
func TestTheHostsOwnStubIsAskedByTheHost(t *testing.T) {
	for _, server := range []string{"127.0.0.53", "::1"} {
		names := serveNames(t, hostNS, net.JoinHostPort(server, "53"))
		names.set(a("api.example.org", "192.0.2.7", 60))
		conf := filepath.Join(t.TempDir(), "resolv.conf")
		must(t, os.WriteFile(conf, []byte("search example.org\nnameserver "+server+"\noptions edns0\n"), 0o600))
		m := openManager(t, func(c *Config) { c.ResolvConf = conf })
		s := acquire(t, m, "a", microvm.Network{Egress: microvm.Egress{Allow: rules(t, "api.example.org:tcp:443")}})
		g := newGuest(t, s)
		if got, err := g.lookUp(s, "api.example.org"); err != nil || len(got) != 1 {
			t.Errorf("%s: %v, %v", server, got, err)
		}
	}
	for _, text := range []string{"", "# none\noptions ndots:1\n", "nameserver\n", "nameserver what\n"} {
		conf := filepath.Join(t.TempDir(), "resolv.conf")
		must(t, os.WriteFile(conf, []byte(text), 0o600))
		m := openManager(t, func(c *Config) { c.ResolvConf = conf })
		_, err := m.Acquire(bg, "a", microvm.Network{Egress: microvm.Egress{Allow: rules(t, "api.example.org:tcp:443")}})
		if !errors.Is(err, microvm.ErrInvalidSpec) || !strings.Contains(err.Error(), conf) || !strings.Contains(err.Error(), "network.egress.dns") {
			t.Errorf("%q: %v", text, err)
		}
		acquire(t, m, "b", microvm.Network{Egress: microvm.Egress{Allow: rules(t, "192.0.2.1")}})
	}
}

// "net serve" in one terminal, "run -d" in another.
func TestVMsOfOtherProgramsAreServed(t *testing.T) {
	w := testhost.NewWorld(t)
	names := serveNames(t, w.NS, w.Addr(10)+":53")
	names.set(a("api.example.org", w.Addr(11), 60))
	server := openManager(t, nil)
	other := openOver(t, Config{Dir: server.cfg.Dir, NoServe: true})
	opts := microvm.Network{Egress: microvm.Egress{DNS: []netip.Addr{netip.MustParseAddr(w.Addr(10))}, Allow: rules(t, "api.example.org:tcp:443")}, LogDropped: true}
	served := func() (n int) {
		server.mu.Lock()
		defer server.mu.Unlock()
		return len(server.resolvers) + len(server.drops)
	}
	for _, uid := range []string{"a", "b"} {
		s, err := other.Acquire(bg, uid, opts)
		must(t, err)
		eventually(t, "it is served", func() bool { return served() == 2 })
		g := newGuest(t, s)
		if got, err := g.lookUp(s, "api.example.org"); err != nil || len(got) != 1 {
			t.Errorf("%v, %v", got, err)
		}
		g.tap.Close()
		must(t, other.Release(bg, uid))
		eventually(t, "it is let go", func() bool { return served() == 0 })
	}
}

func TestEventsOfInotifyAreRead(t *testing.T) {
	t.Parallel()
	event := func(mask uint32, name string) []byte {
		b := make([]byte, unix.SizeofInotifyEvent, unix.SizeofInotifyEvent+len(name))
		binary.NativeEndian.PutUint32(b[4:], mask)
		binary.NativeEndian.PutUint32(b[12:], uint32(len(name)))
		return append(b, name...)
	}
	names, lost := eventNames(slices.Concat(event(unix.IN_CREATE, "a\x00\x00"), event(unix.IN_DELETE_SELF, ""), event(unix.IN_DELETE, "bc\x00")))
	if !slices.Equal(names, []string{"a", "bc"}) || lost {
		t.Errorf("%q, %v", names, lost)
	}
	if _, lost := eventNames(event(unix.IN_Q_OVERFLOW, "")); !lost {
		t.Error("an overflow is passed over")
	}
	if _, lost := eventNames(event(unix.IN_CREATE, "abc")[:unix.SizeofInotifyEvent+1]); !lost {
		t.Error("half an event is one")
	}
}

func TestNamesResolveForAsLongAsAProgramLives(t *testing.T) {
	w := testhost.NewWorld(t)
	names := serveNames(t, w.NS, w.Addr(10)+":53")
	names.set(a("api.example.org", w.Addr(11), 60))
	testhost.Serve(t, w.NS, w.Addr(11)+":443")
	var dir string
	first := openManager(t, func(c *Config) { dir = c.Dir })
	opts := microvm.Network{Egress: microvm.Egress{DNS: []netip.Addr{netip.MustParseAddr(w.Addr(10))}, Allow: rules(t, "api.example.org:tcp:443")}}
	s, err := first.Acquire(bg, "a", opts)
	must(t, err)
	g := newGuest(t, s)
	second, err := Open(Config{Dir: dir})
	must(t, err)
	if _, err := g.lookUp(s, "api.example.org"); err != nil {
		t.Error(err)
	}
	open := testhost.Dial(t, g.ns, "tcp", w.Addr(11)+":443", 5*time.Second)
	if open == nil {
		t.Fatal("no connection")
	}
	defer open.Close()
	must(t, second.Close())
	for range 4 {
		if _, err := g.lookUp(s, "api.example.org"); err != nil {
			t.Errorf("with one of two programs: %v", err)
		}
	}
	stop := first.resolvers["a"]
	stop.cancel()
	<-stop.ended
	if _, err := g.lookUp(s, "api.example.org"); err == nil {
		t.Error("names resolve with no program")
	}
	if open.Ask(5*time.Second) == "" {
		t.Error("an open flow has ended")
	}
	third, err := Open(Config{Dir: dir})
	must(t, err)
	if _, err := g.lookUp(s, "api.example.org"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	must(t, third.Release(bg, "a"))
	must(t, third.Close())
}
