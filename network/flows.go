package network

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/internal/netns"
)

type flowFilter func(*netlink.ConntrackFlow) bool

func (f flowFilter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool { return f(flow) }

// flow is one of a VM's, whoever began it: where the other end is, and the VM's port
// as the host sees it. Protocols without ports have zeros.
type flow struct {
	far     netip.Addr
	proto   uint8
	farPort uint16
	vmPort  uint16
}

func addrOf(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a.Unmap()
}

// begun and taken are a flow that the VM has begun, and one that it was sent.
func begun(f *netlink.ConntrackFlow, vmPort uint16) flow {
	return flow{addrOf(f.Forward.DstIP), f.Forward.Protocol, f.Forward.DstPort, vmPort}
}

func taken(far netlink.IPTuple) flow {
	return flow{addrOf(far.DstIP), far.Protocol, far.DstPort, far.SrcPort}
}

// endFlows makes conntrack forget the flows that the VM has begun and that stays does
// not say yes to, in the namespace and on the host: packets of a flow that is known are
// not held against the policy. Those to addresses that the host has closed end, too.
//
// The two can't be made to forget at once, and what the other end sends in between
// would begin the flow anew from its side, on which there is no policy: meanwhile
// nothing begins from there. It may be so already, for a guest can make its namespace
// forget and the host not. Who has begun a flow is what the host says.
func (m *Manager) endFlows(d *slotDir, stays func(netip.Addr, uint8, uint16) bool, closed func(netip.Addr) bool) error {
	for _, side := range m.cfg.plan(d.index).sides() {
		fam := netlink.InetFamily(unix.AF_INET)
		if side.six {
			fam = unix.AF_INET6
		}
		inside, err := flowsOf(d.path("ns"), fam)
		if err != nil {
			return err
		}
		outside, err := flowsOf(m.hostPath(), fam)
		if err != nil {
			return err
		}
		end, came := map[flow]bool{}, map[flow]bool{}
		consider := func(f flow) {
			if f.far != side.gateway && (!stays(f.far, f.proto, f.farPort) || closed(f.far)) {
				end[f] = true
			}
		}
		for _, f := range outside {
			switch side.vm {
			case addrOf(f.Forward.SrcIP):
				consider(begun(f, f.Forward.SrcPort))
			case addrOf(f.Reverse.SrcIP):
				came[taken(f.Reverse)] = true
			}
		}
		for _, f := range inside {
			if addrOf(f.Forward.SrcIP) == side.guest {
				consider(begun(f, f.Reverse.DstPort))
			} else if k := (flow{addrOf(f.Forward.SrcIP), f.Forward.Protocol, f.Forward.SrcPort, f.Forward.DstPort}); !came[k] {
				consider(k)
			}
		}
		if len(end) == 0 {
			continue
		}
		ends := func(f *netlink.ConntrackFlow) bool {
			switch {
			case addrOf(f.Forward.SrcIP) == side.guest:
				return end[begun(f, f.Reverse.DstPort)]
			case addrOf(f.Forward.SrcIP) == side.vm:
				return end[begun(f, f.Forward.SrcPort)]
			}
			k := flow{addrOf(f.Forward.SrcIP), f.Forward.Protocol, f.Forward.SrcPort, f.Forward.DstPort}
			return addrOf(f.Forward.DstIP) == side.vm && end[k] && !came[k]
		}
		open, err := m.shut(d, side.six, end)
		if err != nil {
			return err
		}
		if err := forget(d.path("ns"), fam, ends); err != nil {
			return err
		}
		if err := forget(m.hostPath(), fam, ends); err != nil {
			return err
		}
		if err := open(); err != nil {
			return err
		}
	}
	return nil
}

// shut lets nothing new in from the far ends of flows, until what it returns is called.
func (m *Manager) shut(d *slotDir, six bool, flows map[flow]bool) (func() error, error) {
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	set := &nftables.Set{Table: t, ID: 1, Name: "shut" + version(six), KeyType: nftables.MustConcatSetType(addrKey(six), nftables.TypeInetProto), Concatenation: true}
	chain := &nftables.Chain{Table: t, Name: "shut"}
	err := m.insideNFT(d.index, func(c *nftables.Conn) error {
		var elems []nftables.SetElement
		for f := range flows {
			elems = append(elems, nftables.SetElement{Key: key(f.far.AsSlice(), []byte{f.proto})})
		}
		if err := makeSet(c, set, elems); err != nil {
			return err
		}
		c.FlushChain(chain)
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: rule(family(six), saddr(six, reg0), meta(expr.MetaKeyL4PROTO, next(six)), in(set), goTo("rx_no"))})
		return c.Flush()
	})
	if err != nil {
		return nil, fmt.Errorf("shut out who is at the end of flows: %w", err)
	}
	return func() error {
		return m.insideNFT(d.index, func(c *nftables.Conn) error {
			c.FlushChain(chain)
			c.DelSet(set)
			return c.Flush()
		})
	}, nil
}

func flowsOf(ns string, fam netlink.InetFamily) (out []*netlink.ConntrackFlow, err error) {
	err = netns.Inside(ns, func() error {
		out, err = netlink.ConntrackTableList(netlink.ConntrackTable, fam)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the flows: %w", err)
	}
	return out, nil
}

// forget makes the conntrack of a namespace forget flows.
func forget(ns string, fam netlink.InetFamily, f flowFilter) error {
	err := netns.Inside(ns, func() error {
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, fam, f)
		return err
	})
	if err != nil {
		return fmt.Errorf("end the flows that are not allowed any more: %w", err)
	}
	return nil
}

// forgetVM makes the host forget a VM that is no more: the next to have its address
// would get what is meant for it. A VM that nothing has come to, or from, has no flows
// there; to look is to walk through all that the host has.
func (m *Manager) forgetVM(o owner, s slotPlan) error {
	if c, err := m.Counters(o.UID); err == nil && c.TxPackets+c.RxPackets+c.RxDroppedPackets == 0 {
		return nil
	}
	for _, side := range s.sides() {
		fam := netlink.InetFamily(unix.AF_INET)
		if side.six {
			fam = unix.AF_INET6
		}
		err := forget(m.hostPath(), fam, func(f *netlink.ConntrackFlow) bool {
			return addrOf(f.Forward.SrcIP) == side.vm || addrOf(f.Reverse.SrcIP) == side.vm
		})
		if err != nil {
			return err
		}
	}
	return nil
}
