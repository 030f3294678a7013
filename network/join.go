package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
)

// join gives a slot its owner's policy, and a place in the host's table.
func (m *Manager) join(d *slotDir, o owner, policy compiled, when occasion) error {
	p := m.cfg.plan(d.index)
	c, done, err := m.nft()
	if err != nil {
		return err
	}
	defer done()
	l, err := m.lockTable(unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := m.table.create(c, m.cfg); err != nil {
		return err
	}
	e := entryOf(p, o.Options)
	if e.named, err = m.namedOnHost(o.Options.Egress); err != nil {
		return err
	}
	if e.gateways, err = m.gateways(); err != nil {
		return err
	}
	if err := m.table.add(c, e); err != nil {
		if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
			err = errors.Join(m.checkPublished(c, o.Options.Publish, &p), err)
		}
		return fmt.Errorf("write the host's table %s: %w", m.table.t.Name, err)
	}
	if o.Options.MTU != 0 {
		if err := setMTU(d.path("ns"), o.Options.MTU); err != nil {
			return err
		}
	}
	// Only now: the host lets nothing in any more that is not for the VM.
	if err := m.policyInside(d, policy, when); err != nil {
		return err
	}
	if err := errors.Join(m.resolve(d.index, o.UID), m.logDrops(d.index, o.UID, o.Options.LogDropped)); err != nil {
		return err
	}
	if !slices.ContainsFunc(o.Options.Publish, func(p microvm.PublishedPort) bool { return !p.HostIP.IsValid() || p.HostIP.IsLoopback() }) {
		return nil
	}
	return m.routeLoopback(p.link(), true)
}

// routeLoopback lets the host's own packets to a port that is published on a loopback
// address leave by the link. What comes in by it to such an address is dropped by the
// host's table.
func (m *Manager) routeLoopback(link string, on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	err := netns.Inside(m.hostPath(), func() error {
		return os.WriteFile("/proc/sys/net/ipv4/conf/"+link+"/route_localnet", []byte(value), 0)
	})
	if err != nil {
		return fmt.Errorf("sysctl net.ipv4.conf.%s.route_localnet=%s: %w", link, value, err)
	}
	return nil
}

// entryOf is all that the host's table may have of a VM.
func entryOf(p slotPlan, o microvm.Network) entry {
	return entry{plan: p, named: namedIn(o.Egress), publish: o.Publish, group: o.Group}
}

// policyInside writes the policy into the namespace.
func (m *Manager) policyInside(d *slotDir, p compiled, when occasion) error {
	return m.insideNFT(d.index, func(c *nftables.Conn) error { return setPolicy(c, p, when) })
}

func (m *Manager) compile(o microvm.Network) (compiled, error) {
	s := surroundings{pools: []netip.Prefix{m.cfg.Pool}, guests: []netip.Prefix{m.cfg.Guest.Masked()}, group: o.Group != ""}
	if m.cfg.IPv6 {
		s.pools, s.guests = append(s.pools, m.cfg.Pool6), append(s.guests, m.cfg.Guest6.Masked())
	}
	var err error
	if s.named, err = m.closedHere(o.Egress); err != nil {
		return compiled{}, err
	}
	c, err := compile(o.Egress, s)
	c.conns, c.log = uint32(o.MaxConnections), o.LogDropped
	return c, err
}

// insideNFT runs f with a connection to the nftables of a slot's namespace.
func (m *Manager) insideNFT(index int, f func(*nftables.Conn) error) error {
	s, err := openNFIn(m.slotPath(index, "ns"))
	if err != nil {
		return fmt.Errorf("netfilter of the namespace: %w", err)
	}
	defer m.bg.Go(s.close) // which may wait
	c, err := s.conn()
	if err != nil {
		return err
	}
	return f(c)
}
