package network

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/internal/netns"
	"github.com/tangle-network/microvm/internal/testhost"
)

// guest is a namespace that stands in for a VM: its eth0 is wired to the slot's TAP
// as a VMM would, frame by frame.
type guest struct {
	t   testing.TB
	ns  string
	tap *os.File // the VMM's end, for frames of the test's own
}

func newGuest(t testing.TB, s Slot) *guest {
	t.Helper()
	g := &guest{t: t, ns: filepath.Join(t.TempDir(), "guest")}
	var inner *os.File
	must(t, netns.New(func(ns string) error {
		var err error
		if inner, err = openTAP("eth0"); err != nil {
			return err
		}
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := errors.Join(netlink.LinkSetHardwareAddr(l, s.MAC), netlink.LinkSetUp(l), netlink.LinkSetUp(lo)); err != nil {
			return err
		}
		for _, side := range []struct {
			p  netip.Prefix
			gw netip.Addr
		}{{s.Guest, s.Gateway}, {s.Guest6, s.Gateway6}} {
			if !side.p.IsValid() {
				continue
			}
			if err := addAddr(netlinkHandle(t), l, side.p.Addr(), side.p.Bits()); err != nil {
				return err
			}
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: side.gw.AsSlice()}); err != nil {
				return err
			}
		}
		return netns.Pin(ns, g.ns)
	}))
	must(t, netns.Inside(s.Namespace, func() (err error) {
		g.tap, err = openTAP(s.TAP)
		return err
	}))
	var wg sync.WaitGroup
	for _, pair := range [][2]*os.File{{inner, g.tap}, {g.tap, inner}} {
		wg.Go(func() {
			buf := make([]byte, 65600)
			for {
				n, err := pair[0].Read(buf)
				if err != nil {
					return
				}
				_, err = pair[1].Write(buf[:n])
				if errors.Is(err, os.ErrClosed) {
					return
				}
			}
		})
	}
	t.Cleanup(func() {
		inner.Close()
		g.tap.Close()
		wg.Wait()
		must(t, netns.Unpin(g.ns))
	})
	return g
}

func netlinkHandle(t testing.TB) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(h.Close)
	return h
}

// openTAP attaches to a TAP of the thread's namespace as a VMM does.
func openTAP(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		return nil, err
	}
	// What Linux guests of Firecracker want, and segments of UDP.
	const offload = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offload); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (g *guest) reaches(proto, addr string) {
	g.t.Helper()
	if testhost.Ask(g.t, g.ns, proto, addr, 5*time.Second) == "" {
		g.t.Errorf("the guest does not reach %s %s", proto, addr)
	}
}

func (g *guest) doesNotReach(proto, addr string) {
	g.t.Helper()
	if got := testhost.Ask(g.t, g.ns, proto, addr, testhost.Patience); got != "" {
		g.t.Errorf("the guest reaches %s %s, as %s", proto, addr, got)
	}
}

// reachesNone is doesNotReach for several at once.
func (g *guest) reachesNone(proto string, addrs ...string) {
	g.t.Helper()
	var wg sync.WaitGroup
	for _, a := range addrs {
		wg.Go(func() { g.doesNotReach(proto, a) })
	}
	wg.Wait()
}
