package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
)

// The host itself, and the networks of its bridges, are closed on the host, but for
// single addresses that a policy names. For what it names them (protocols, ports) only
// the VM's namespace knows, and that does not know which addresses are the host's.

// namedIn are the single addresses that a policy allows.
func namedIn(e microvm.Egress) []netip.Addr {
	var out []netip.Addr
	for _, r := range e.Allow {
		if r.CIDR.IsValid() && r.CIDR.IsSingleIP() && !slices.Contains(out, r.CIDR.Addr()) {
			out = append(out, r.CIDR.Addr())
		}
	}
	return out
}

// openAnyway says whether a policy opens an address by more than its own rules: then
// these do not bound what is open.
func openAnyway(e microvm.Egress, a netip.Addr) bool {
	return e.Default == microvm.EgressAllow || slices.ContainsFunc(e.Allow, func(r microvm.EgressRule) bool {
		return r.Domain != "" || !r.CIDR.IsSingleIP() && r.CIDR.Contains(a)
	})
}

// onHost are those of the addresses that are the host's now, or of networks of its
// bridges.
func (m *Manager) onHost(addrs []netip.Addr) ([]netip.Addr, error) {
	var out []netip.Addr
	look := looker{m, map[int]bool{}}
	for _, a := range addrs {
		r, err := look.route(a)
		if err != nil {
			return nil, err
		}
		if r.local || r.bridge && !r.gateway.IsValid() {
			out = append(out, a)
		} else if r.bridge {
			ways, err := m.gateways()
			if err != nil {
				return nil, err
			}
			if !slices.Contains(ways, r.gateway) {
				out = append(out, a)
			}
		}
	}
	return out, nil
}

// gateways are the next hops on the host's way to the world, where it is by a bridge.
func (m *Manager) gateways() ([]netip.Addr, error) {
	var out []netip.Addr
	look := looker{m, map[int]bool{}}
	for _, a := range []string{"1.1.1.1", "2606:4700:4700::1111"} { // any of the world's
		a := netip.MustParseAddr(a)
		if a.Is6() && !m.cfg.IPv6 {
			continue
		}
		r, err := look.route(a)
		if err != nil {
			return nil, err
		}
		if r.bridge && r.gateway.IsValid() {
			out = append(out, r.gateway)
		}
	}
	return out, nil
}

// looker asks the kernel for routes, and about each link once.
type looker struct {
	m       *Manager
	bridges map[int]bool
}

type route struct {
	local   bool // the host's own, or one that it sends to nobody
	bridge  bool
	gateway netip.Addr
}

// route is the way to an address; one that there is no way to has none.
func (l looker) route(a netip.Addr) (route, error) {
	routes, err := l.m.rt.RouteGet(a.AsSlice())
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || len(routes) == 0 && err == nil {
		return route{}, nil
	}
	if err != nil {
		return route{}, fmt.Errorf("look for a route to %v: %w", a, err)
	}
	r := routes[0]
	out := route{local: r.Type != unix.RTN_UNICAST}
	if out.local {
		return out, nil
	}
	gw := r.Gw
	if via, ok := r.Via.(*netlink.Via); ok {
		gw = via.Addr
	}
	out.gateway, _ = netip.AddrFromSlice(gw)
	out.gateway = out.gateway.Unmap()
	if is, known := l.bridges[r.LinkIndex]; known {
		out.bridge = is
		return out, nil
	}
	link, err := l.m.rt.LinkByIndex(r.LinkIndex)
	if err != nil {
		return route{}, fmt.Errorf("look at the link of %v: %w", a, err)
	}
	out.bridge = link.Type() == "bridge"
	l.bridges[r.LinkIndex] = out.bridge
	return out, nil
}

// closedHere are the addresses that a policy names and that are closed in the namespace
// beyond what it names of them.
func (m *Manager) closedHere(e microvm.Egress) ([]netip.Addr, error) {
	return m.onHost(slices.DeleteFunc(namedIn(e), func(a netip.Addr) bool { return !openAnyway(e, a) }))
}

// namedOnHost are the addresses that the host opens to a VM. One that becomes the
// host's later is closed if the namespace does not bound what for.
func (m *Manager) namedOnHost(e microvm.Egress) ([]netip.Addr, error) {
	here, err := m.closedHere(e)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(namedIn(e), func(a netip.Addr) bool {
		return openAnyway(e, a) && !slices.Contains(here, a) && !m.inPool(a)
	}), nil
}

// inPool says whether an address may be another VM's, which namespaces know of.
func (m *Manager) inPool(a netip.Addr) bool {
	return m.cfg.Pool.Contains(a) || m.cfg.IPv6 && m.cfg.Pool6.Contains(a)
}
