package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

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
	bridge := map[int]bool{}
	for _, a := range addrs {
		routes, err := m.rt.RouteGet(a.AsSlice())
		if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || len(routes) == 0 && err == nil {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look for a route to %v: %w", a, err)
		}
		r := routes[0]
		is, known := bridge[r.LinkIndex]
		if !known && r.Type == unix.RTN_UNICAST {
			l, err := m.rt.LinkByIndex(r.LinkIndex)
			if err != nil {
				return nil, fmt.Errorf("look at the link of %v: %w", a, err)
			}
			is = l.Type() == "bridge"
			bridge[r.LinkIndex] = is
		}
		if r.Type != unix.RTN_UNICAST || is {
			out = append(out, a)
		}
	}
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
