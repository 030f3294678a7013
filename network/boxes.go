package network

import (
	"net/netip"

	"github.com/tangle-network/microvm"
)

// A set of nftables with concatenated ranges takes no elements that overlap
// (nft_set_pipapo.c in Linux), and the rules of a policy may. So they are cut into
// boxes (addresses × protocols × ports) that do not.

// box is one element: all ends are in it.
type box struct {
	addr  [2]netip.Addr
	proto [2]uint8
	port  [2]uint16
}

// protocols by name; an empty name is any.
var protocols = map[string][2]uint8{"": {0, 255}, "tcp": {6, 6}, "udp": {17, 17}, "icmp": {1, 1}}

const icmpv6 = 58

// boxesOf is what a rule with a CIDR names.
func boxesOf(r microvm.EgressRule) []box {
	b := box{addr: [2]netip.Addr{r.CIDR.Addr(), lastOf(r.CIDR)}, proto: protocols[r.Protocol], port: [2]uint16{0, 65535}}
	if r.Protocol == "icmp" && r.CIDR.Addr().Is6() {
		b.proto = [2]uint8{icmpv6, icmpv6}
	}
	if len(r.Ports) == 0 {
		return []box{b}
	}
	out := make([]box, 0, len(r.Ports))
	for _, p := range r.Ports {
		b.port = [2]uint16{p.First, p.End()}
		out = append(out, b)
	}
	return out
}

// lastOf is the last address of a network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (b box) overlaps(o box) bool {
	return b.addr[0].Compare(o.addr[1]) <= 0 && o.addr[0].Compare(b.addr[1]) <= 0 &&
		b.proto[0] <= o.proto[1] && o.proto[0] <= b.proto[1] &&
		b.port[0] <= o.port[1] && o.port[0] <= b.port[1]
}

// without is b less o, in pieces.
func (b box) without(o box) []box {
	if !b.overlaps(o) {
		return []box{b}
	}
	var out []box
	keep := func(change func(*box)) {
		piece := b
		change(&piece)
		out = append(out, piece)
	}
	if b.addr[0].Less(o.addr[0]) {
		keep(func(p *box) { p.addr[1] = o.addr[0].Prev() })
		b.addr[0] = o.addr[0]
	}
	if o.addr[1].Less(b.addr[1]) {
		keep(func(p *box) { p.addr[0] = o.addr[1].Next() })
		b.addr[1] = o.addr[1]
	}
	if b.proto[0] < o.proto[0] {
		keep(func(p *box) { p.proto[1] = o.proto[0] - 1 })
		b.proto[0] = o.proto[0]
	}
	if o.proto[1] < b.proto[1] {
		keep(func(p *box) { p.proto[0] = o.proto[1] + 1 })
		b.proto[1] = o.proto[1]
	}
	if b.port[0] < o.port[0] {
		keep(func(p *box) { p.port[1] = o.port[0] - 1 })
		b.port[0] = o.port[0]
	}
	if o.port[1] < b.port[1] {
		keep(func(p *box) { p.port[0] = o.port[1] + 1 })
		b.port[1] = o.port[1]
	}
	return out
}

// disjoint is the same set of packets in boxes that do not overlap.
func disjoint(boxes []box) []box {
	var out []box
	for _, b := range boxes {
		pieces := []box{b}
		for _, have := range out {
			var next []box
			for _, p := range pieces {
				next = append(next, p.without(have)...)
			}
			if pieces = next; len(pieces) == 0 {
				break
			}
		}
		out = append(out, pieces...)
	}
	return out
}
