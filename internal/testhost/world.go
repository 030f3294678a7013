//go:build linux

package testhost

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/internal/netns"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// World is what is around the host: a network with servers, in a namespace of its own.
type World struct {
	NS    string
	index int
}

var worlds struct {
	sync.Mutex
	n int
}

// NewWorld joins a namespace to the host by a link with 203.0.N.1/24, and gives it
// the addresses 203.0.N.10 and .11, and 169.254.169.254 with a route to it.
func NewWorld(t testing.TB) *World {
	t.Helper()
	Need(t)
	worlds.Lock()
	worlds.n++
	w := &World{NS: filepath.Join(t.TempDir(), "ns"), index: worlds.n}
	worlds.Unlock()
	host, err := os.Open("/proc/thread-self/ns/net")
	must(t, err)
	defer host.Close()
	must(t, netns.New(func(ns string) error {
		veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: w.Link(), PeerNamespace: netlink.NsFd(int(host.Fd()))}
		veth.Name = "eth0"
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, a := range []string{w.Addr(10) + "/24", w.Addr(11) + "/24", "169.254.169.254/32"} {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(l, addr); err != nil {
				return err
			}
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetUp(lo), netlink.LinkSetUp(l)); err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(w.Addr(1))}); err != nil {
			return err
		}
		return netns.Pin(ns, w.NS)
	}))
	t.Cleanup(func() { must(t, netns.Unpin(w.NS)) })
	l, err := netlink.LinkByName(w.Link())
	must(t, err)
	addr, err := netlink.ParseAddr(w.Addr(1) + "/24")
	must(t, err)
	must(t, netlink.AddrAdd(l, addr))
	must(t, netlink.LinkSetUp(l))
	t.Cleanup(func() { must(t, netlink.LinkDel(l)) })
	return w
}

// Link is the host's end.
func (w *World) Link() string { return fmt.Sprintf("world%d", w.index) }

func (w *World) Addr(last int) string { return fmt.Sprintf("203.0.%d.%d", w.index, last) }

// Serve answers on TCP and UDP with the address that it sees the client have, line
// by line. ns "" is the host.
func Serve(t testing.TB, ns, addr string) {
	t.Helper()
	var l net.Listener
	var u net.PacketConn
	listen := func() (err error) {
		if l, err = net.Listen("tcp", addr); err != nil {
			return err
		}
		u, err = net.ListenPacket("udp", addr)
		return err
	}
	if ns == "" {
		must(t, listen())
	} else {
		must(t, netns.Inside(ns, listen))
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); u.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				in := bufio.NewScanner(c)
				for in.Scan() {
					fmt.Fprintln(c, c.RemoteAddr())
				}
			})
			t.Cleanup(func() { c.Close() })
		}
	})
	wg.Go(func() {
		buf := make([]byte, 100)
		for {
			_, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			u.WriteTo([]byte(from.String()+"\n"), from)
		}
	})
}

// Patience is how long a packet that is to be dropped is waited for; what is to pass
// has far longer.
const Patience = 150 * time.Millisecond

// Ask connects from a namespace and returns the address that the server sees, or "".
func Ask(t testing.TB, ns, proto, addr string, wait time.Duration) string {
	t.Helper()
	c := Dial(t, ns, proto, addr, wait)
	if c == nil {
		return ""
	}
	defer c.Close()
	return c.Ask(wait)
}

type Conn struct{ net.Conn }

func Dial(t testing.TB, ns, proto, addr string, wait time.Duration) *Conn {
	t.Helper()
	var c net.Conn
	d := net.Dialer{Timeout: wait}
	err := netns.Inside(ns, func() (err error) {
		c, err = d.Dial(proto, addr)
		return err
	})
	if err != nil {
		t.Logf("%s %s: %v", proto, addr, err)
		return nil
	}
	return &Conn{c}
}

func (c *Conn) Ask(wait time.Duration) string {
	c.SetDeadline(time.Now().Add(wait))
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		return ""
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return ""
	}
	host, _, _ := net.SplitHostPort(strings.TrimSpace(line))
	return host
}

// Six gives the link between host and world IPv6 addresses, and returns the world's.
func (w *World) Six(t testing.TB) string {
	t.Helper()
	give := func(link, addr string, gw string) error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(addr), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}); err != nil || gw == "" {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(gw)})
	}
	must(t, give(w.Link(), w.Six1(), ""))
	must(t, netns.Inside(w.NS, func() error { return give("eth0", w.Six1()+"0", w.Six1()) }))
	return w.Six1() + "0"
}

func (w *World) Six1() string { return fmt.Sprintf("2001:db8:%x::1", w.index) }

func SetSysctl(t testing.TB, name, value string) {
	t.Helper()
	path := "/proc/sys/net/" + name
	was, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte(value), 0))
	t.Cleanup(func() { must(t, os.WriteFile(path, was, 0)) })
}
