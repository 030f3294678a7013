package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
)

// A port of the host leads to one VM. Within a table the kernel sees to it, but for
// ports of one address beside those of all; there may be tables of other directories,
// and programs of the host that listen.

// PortTakenError says whose a port is that was to be published.
type PortTakenError struct {
	Port microvm.PublishedPort
	UID  string // of the VM that has it, where that is known
	By   string // who else has it
}

func (e *PortTakenError) Error() string {
	by := e.By
	if e.UID != "" {
		by = "VM " + e.UID
	}
	return fmt.Sprintf("port %v is taken by %s: choose another", e.Port, by)
}

// taker is where a host's port leads.
type taker struct {
	hostIP netip.Addr // not valid: all addresses
	proto  byte
	port   uint16
	to     netip.Addr // the VM's address
}

func (k taker) clashes(p microvm.PublishedPort) bool {
	return k.port == p.HostPort && k.proto == protocols[p.Proto()][0] && (k.hostIP == p.HostIP || !k.hostIP.IsValid() || !p.HostIP.IsValid())
}

// takers reads where the ports lead that a table publishes.
func (h *hostTable) takers(c *nftables.Conn) ([]taker, error) {
	var out []taker
	for i := range 2 {
		size := len(netip.IPv4Unspecified().AsSlice())
		if i == 1 {
			size = len(netip.IPv6Unspecified().AsSlice())
		}
		for _, set := range []*nftables.Set{h.everywhere[i], h.published[i]} {
			elems, err := c.GetSetElements(set)
			if err != nil {
				// The library says that there is no such set only of one that is asked for by name.
				if _, there := c.GetSetByName(h.t, set.Name); errors.Is(there, unix.ENOENT) {
					continue
				}
				return nil, fmt.Errorf("read the set %s of the table %s: %w", set.Name, h.t.Name, err)
			}
			for _, e := range elems {
				var k taker
				rest := e.Key
				if set == h.published[i] && len(rest) > size {
					k.hostIP, _ = netip.AddrFromSlice(rest[:size])
					rest = rest[size:]
				}
				if len(rest) != 8 || len(e.Val) != size+4 {
					return nil, fmt.Errorf("the set %s of the table %s has an element that is none of ours", set.Name, h.t.Name)
				}
				k.proto, k.port = rest[0], uint16(rest[4])<<8|uint16(rest[5])
				k.to, _ = netip.AddrFromSlice(e.Val[:size])
				out = append(out, k)
			}
		}
	}
	return out, nil
}

// portsOf are the ports of an entry that lead to it.
func (h *hostTable) portsOf(c *nftables.Conn, e entry) (out []microvm.PublishedPort, err error) {
	if len(e.publish) == 0 {
		return nil, nil
	}
	all, err := h.takers(c)
	if err != nil {
		return nil, err
	}
	for _, p := range e.publish {
		for _, k := range all {
			if k.hostIP == p.HostIP && k.clashes(p) && e.plan.has(k.to) {
				out = append(out, p)
				break
			}
		}
	}
	return out, nil
}

// has says whether an address is the VM's own.
func (s slotPlan) has(a netip.Addr) bool {
	for _, side := range s.sides() {
		if side.vm == a {
			return true
		}
	}
	return false
}

// checkPublished fails with a *PortTakenError if a port leads to another VM than the
// one with the plan, whatever program's.
func (m *Manager) checkPublished(c *nftables.Conn, ports []microvm.PublishedPort, plan *slotPlan) error {
	tables, err := c.ListTablesOfFamily(m.table.t.Family)
	if err != nil {
		return fmt.Errorf("list the tables of the host: %w", err)
	}
	for _, t := range tables {
		if !strings.HasPrefix(t.Name, tableName+"_") {
			continue
		}
		h := newHostTable(t.Name)
		all, err := h.takers(c)
		if err != nil {
			return err
		}
		for _, k := range all {
			if t.Name == m.table.t.Name && plan != nil && plan.has(k.to) {
				continue
			}
			for _, p := range ports {
				if k.clashes(p) {
					return m.taken(p, k, t.Name)
				}
			}
		}
	}
	return nil
}

func (m *Manager) taken(p microvm.PublishedPort, k taker, table string) error {
	if table != m.table.t.Name {
		return &PortTakenError{Port: p, By: fmt.Sprintf("the VM at %v of another state directory (nftables table %s)", k.to, table)}
	}
	indexes, err := m.indexes()
	if err != nil {
		return err
	}
	for _, i := range indexes {
		if !m.cfg.plan(i).has(k.to) {
			continue
		}
		if o, err := m.readOwner(i); err == nil && o != nil {
			return &PortTakenError{Port: p, UID: o.UID}
		}
	}
	return &PortTakenError{Port: p, By: fmt.Sprintf("the VM at %v", k.to)}
}

// checkPorts looks whether ports are free, but for the slot that they are for.
func (m *Manager) checkPorts(ports []microvm.PublishedPort, d *slotDir) error {
	if len(ports) == 0 {
		return nil
	}
	c, done, err := m.nft()
	if err != nil {
		return err
	}
	defer done()
	if d == nil {
		return errors.Join(m.checkPublished(c, ports, nil), m.checkListeners(ports))
	}
	p := m.cfg.plan(d.index)
	return m.checkPublished(c, ports, &p)
}

// checkListeners fails if a program of the host has a port: what it is sent would go
// to the VM. It may come later, of course.
func (m *Manager) checkListeners(ports []microvm.PublishedPort) error {
	return netns.Inside(m.hostPath(), func() error {
		for _, p := range ports {
			addrs := []netip.Addr{p.HostIP}
			if !p.HostIP.IsValid() {
				addrs = []netip.Addr{netip.IPv4Unspecified()}
				if m.cfg.IPv6 {
					addrs = append(addrs, netip.IPv6Unspecified())
				}
			}
			for _, a := range addrs {
				switch err := bindOnce(p.Proto(), netip.AddrPortFrom(a, p.HostPort)); {
				case errors.Is(err, unix.EADDRINUSE):
					return &PortTakenError{Port: p, By: "a program of the host"}
				case errors.Is(err, unix.EADDRNOTAVAIL):
					return &microvm.FieldError{Field: "network.publish", Value: p.String(), Rule: fmt.Sprintf("an address of the host: %v is no address of the host", a), Err: err}
				case err != nil:
					return fmt.Errorf("look whether port %v is free: %w", p, err)
				}
			}
		}
		return nil
	})
}

// bindOnce takes a port of the thread's namespace, and gives it back.
func bindOnce(proto string, at netip.AddrPort) error {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	if proto == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(at.Port())}
	if family == unix.AF_INET6 {
		to = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	} else {
		to.(*unix.SockaddrInet4).Addr = at.Addr().As4()
	}
	if err == nil && kind == unix.SOCK_STREAM {
		// What a listener that has ended left in TIME_WAIT is no clash; a listener is one.
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return os.NewSyscallError("bind", unix.Bind(fd, to))
}
