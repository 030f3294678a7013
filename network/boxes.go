package network

import (
	"net/netip"
	"slices"

	"github.com/tangle-network/microvm"
)

// A set of nftables with concatenated ranges takes no elements that overlap
// (nft_set_pipapo.c in Linux), and the rules of a policy may. So they are cut into
// boxes (addresses × protocols × ports) that do not. Of two networks one has all of the
// other or nothing, so the addresses of a rule are never cut: what the networks around
// it have already is left out of its protocols and ports.

// box is one element: all ends are in it.
type box struct {
	addr  [2]netip.Addr
	proto [2]uint8
	port  [2]uint16
}

// protocols by name; an empty name is any.
var protocols = map[string][2]uint8{"": {0, 255}, "tcp": {6, 6}, "udp": {17, 17}, "icmp": {1, 1}}

const icmpv6 = 58

// protocolOf is the protocol of a rule, as its packets have it.
func protocolOf(r microvm.EgressRule) [2]uint8 {
	if r.Protocol == "icmp" && r.CIDR.Addr().Is6() {
		return [2]uint8{icmpv6, icmpv6}
	}
	return protocols[r.Protocol]
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

// span is a range of ports, in order and without touching ones in a list.
type span [2]uint16

var allPorts = []span{{0, 65535}}

// reach is what a network is opened or closed for: everything, or some ports of some
// protocols.
type reach struct {
	all bool
	by  map[uint8][]span
}

// disjoint are boxes for the packets of the rules, of which no two overlap, in IPv4
// and in IPv6; ok is false if there would be more than limit.
func disjoint(rules []microvm.EgressRule, limit int) (v4, v6 []box, ok bool) {
	own := map[netip.Prefix]*reach{}
	for _, r := range rules {
		at := own[r.CIDR]
		if at == nil {
			at = &reach{by: map[uint8][]span{}}
			own[r.CIDR] = at
		}
		proto := protocolOf(r)
		switch {
		case proto[0] != proto[1]:
			at.all = true
		case len(r.Ports) == 0:
			at.by[proto[0]] = allPorts
		default:
			for _, p := range r.Ports {
				at.by[proto[0]] = append(slices.Clip(at.by[proto[0]]), span{p.First, p.End()})
			}
		}
	}
	nets := make([]netip.Prefix, 0, len(own))
	for p, at := range own {
		for proto, spans := range at.by {
			at.by[proto] = joined(spans)
		}
		nets = append(nets, p)
	}
	// A network comes before those in it.
	slices.SortFunc(nets, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	type level struct {
		net netip.Prefix
		has reach // of it and of those around it
	}
	var around []level
	for _, p := range nets {
		for len(around) > 0 && !around[len(around)-1].net.Contains(p.Addr()) {
			around = around[:len(around)-1]
		}
		var has reach
		if len(around) > 0 {
			has = around[len(around)-1].has
		}
		out := &v4
		if p.Addr().Is6() {
			out = &v6
		}
		*out = append(*out, own[p].less(has, [2]netip.Addr{p.Addr(), lastOf(p)})...)
		if len(v4)+len(v6) > limit {
			return nil, nil, false
		}
		around = append(around, level{p, has.and(*own[p])})
	}
	return v4, v6, true
}

// less are the boxes of what r has and o has not.
func (r reach) less(o reach, addr [2]netip.Addr) (out []box) {
	if o.all {
		return nil
	}
	some := func(proto uint8, spans []span) {
		for _, s := range spans {
			out = append(out, box{addr, [2]uint8{proto, proto}, s})
		}
	}
	if !r.all {
		for _, proto := range sorted(r.by) {
			some(proto, minus(r.by[proto], o.by[proto]))
		}
		return out
	}
	next := 0
	for _, proto := range sorted(o.by) {
		if next < int(proto) {
			out = append(out, box{addr, [2]uint8{uint8(next), proto - 1}, allPorts[0]})
		}
		some(proto, minus(allPorts, o.by[proto]))
		next = int(proto) + 1
	}
	return append(out, box{addr, [2]uint8{uint8(next), 255}, allPorts[0]})
}

// and is what either has.
func (r reach) and(o reach) reach {
	if r.all || o.all {
		return reach{all: true}
	}
	out := reach{by: map[uint8][]span{}}
	for _, one := range []reach{r, o} {
		for proto, spans := range one.by {
			out.by[proto] = joined(append(slices.Clip(out.by[proto]), spans...))
		}
	}
	return out
}

func sorted(by map[uint8][]span) []uint8 {
	var out []uint8
	for proto := range by {
		out = append(out, proto)
	}
	slices.Sort(out)
	return out
}

// joined puts ranges in order, and those that touch together.
func joined(spans []span) []span {
	spans = slices.Clone(spans)
	slices.SortFunc(spans, func(a, b span) int { return int(a[0]) - int(b[0]) })
	var out []span
	for _, s := range spans {
		if n := len(out); n > 0 && int(s[0]) <= int(out[n-1][1])+1 {
			out[n-1][1] = max(out[n-1][1], s[1])
		} else {
			out = append(out, s)
		}
	}
	return out
}

// minus is a less b, both joined.
func minus(a, b []span) []span {
	var out []span
	for _, s := range a {
		from := int(s[0])
		for _, t := range b {
			if int(t[1]) < from {
				continue
			}
			if t[0] > s[1] {
				break
			}
			if from < int(t[0]) {
				out = append(out, span{uint16(from), t[0] - 1})
			}
			from = int(t[1]) + 1
		}
		if from <= int(s[1]) {
			out = append(out, span{uint16(from), s[1]})
		}
	}
	return out
}
