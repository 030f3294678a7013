package network

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tangle-network/microvm"
)

// compiled is a policy as the rules within a namespace have it: steps in their order,
// of which the first that holds the packet decides.
type compiled struct {
	steps   []step
	domains []shape
	open    bool // what no step holds passes
	conns   uint32
	log     bool
	shut    bool // nobody's: nothing passes in either direction
}

// step is a set of destinations and what becomes of them.
type step struct {
	name string
	pass bool
	v4   []box
	v6   []box
}

// shape is what domain rules have besides the domain: what a resolved address is
// opened for.
type shape struct {
	id      string // of the ports
	domains []string
	ports   []box // with any address
}

// surroundings are what a policy is closed to unless it names it.
type surroundings struct {
	pools  []netip.Prefix // the addresses of VMs
	guests []netip.Prefix // the network between guest and gateway
	named  []netip.Addr   // the host's and its bridges', of which rules name something
	group  bool           // the pools are reachable: the host knows which of them
}

// alwaysClosed are the addresses that no Default opens: RFC 6890 where they are not
// for the network beyond the host, with the forms in which IPv6 carries IPv4
// addresses (mapped, NAT64, 6to4, Teredo), behind which a metadata service would be
// open again; and the metadata services of clouds that have them elsewhere.
var alwaysClosed = []string{
	"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
	"::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "fe80::/10", "fec0::/10", "ff00::/8",
	"100.100.100.200/32", "168.63.129.16/32", "192.0.0.0/24", // Alibaba, Azure, Oracle
	"fd00:ec2::/32", "fd20:ce::/32", "fd00:42::/32", // AWS, Google, Scaleway
}

// The bounds of a policy: what one VM may cost in kernel memory, and in time at each
// change of its policy.
const (
	maxBoxes  = 16384 // of Allow, and of Deny: networks × protocols × ranges of ports
	maxShapes = 64    // different protocols and ports of domain rules
)

// compile makes a policy's steps. It fails with a *microvm.FieldError for one that is
// too large.
func compile(e microvm.Egress, s surroundings) (compiled, error) {
	var closed []netip.Prefix
	for _, p := range alwaysClosed {
		closed = append(closed, netip.MustParsePrefix(p))
	}
	closed = append(closed, s.guests...)
	for _, a := range s.named {
		closed = append(closed, netip.PrefixFrom(a, a.BitLen()))
	}
	var exact, allow, deny []microvm.EgressRule
	if s.group {
		for _, p := range s.pools {
			exact = append(exact, microvm.EgressRule{CIDR: p})
		}
	}
	closed = append(closed, s.pools...)
	for _, r := range e.Allow {
		switch {
		case r.Domain != "":
		case slices.ContainsFunc(closed, func(c netip.Prefix) bool { return within(r.CIDR, c) }):
			exact = append(exact, r)
		default:
			allow = append(allow, r)
		}
	}
	deny = append(deny, e.Deny...)
	c := compiled{open: e.Default == microvm.EgressAllow, domains: shapes(e.Allow)}
	if len(c.domains) > maxShapes {
		return compiled{}, &microvm.FieldError{Field: "network.egress.allow", Value: fmt.Sprintf("domains with %d different protocols and ports", len(c.domains)),
			Rule: fmt.Sprintf("at most %d: give domains the same ones", maxShapes)}
	}
	var otherDNS []microvm.EgressRule
	if len(c.domains) > 0 {
		otherDNS = otherResolvers()
	}
	for _, s := range []struct {
		step  step
		rules []microvm.EgressRule
		field string
	}{
		{step{name: "deny"}, deny, "deny"},
		{step{name: "exact", pass: true}, exact, "allow"},
		{step{name: "closed"}, rulesOf(closed), "allow"},
		{step{name: "resolvers"}, otherDNS, "allow"},
		{step{name: "allow", pass: true}, allow, "allow"},
	} {
		if len(s.rules) == 0 {
			continue
		}
		var ok bool
		if s.step.v4, s.step.v6, ok = disjoint(s.rules, maxBoxes); !ok {
			return compiled{}, &microvm.FieldError{Field: "network.egress." + s.field, Value: fmt.Sprintf("%d rules", len(s.rules)),
				Rule: fmt.Sprintf("at most %d ranges of ports over all networks, those of networks within others with the gaps that they leave: name fewer ranges, or fewer networks", maxBoxes)}
		}
		c.steps = append(c.steps, s.step)
	}
	return c, nil
}

// within says whether all of p lies in outer.
func within(p, outer netip.Prefix) bool {
	return outer.Bits() <= p.Bits() && outer.Contains(p.Addr())
}

func rulesOf(nets []netip.Prefix) []microvm.EgressRule {
	var out []microvm.EgressRule
	for _, p := range nets {
		out = append(out, microvm.EgressRule{CIDR: p})
	}
	return out
}

// otherResolvers are the ports of DNS, and of DNS over TLS and QUIC: who is bound to
// names is bound to the slot's resolver.
func otherResolvers() []microvm.EgressRule {
	var out []microvm.EgressRule
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		for _, proto := range []string{"tcp", "udp"} {
			out = append(out, microvm.EgressRule{CIDR: netip.MustParsePrefix(all), Protocol: proto, Ports: []microvm.PortRange{{First: 53}, {First: 853}}})
		}
	}
	return out
}

// shapes gathers the domains that are opened for the same protocol and ports.
func shapes(rules []microvm.EgressRule) []shape {
	var out []shape
	at := map[string]int{}
	anywhere := netip.MustParsePrefix("0.0.0.0/0")
	for _, r := range rules {
		if r.Domain == "" {
			continue
		}
		as := microvm.EgressRule{CIDR: anywhere, Protocol: r.Protocol, Ports: r.Ports}
		i, ok := at[as.String()]
		if !ok {
			i = len(out)
			at[as.String()] = i
			ports, _, _ := disjoint([]microvm.EgressRule{as}, microvm.MaxPortRanges)
			if r.Protocol == "icmp" {
				ports = append(ports, box{ports[0].addr, [2]uint8{icmpv6, icmpv6}, allPorts[0]})
			}
			sum := sha256.Sum256([]byte(as.String()))
			out = append(out, shape{id: hex.EncodeToString(sum[:4]), ports: ports})
		}
		out[i].domains = append(out[i].domains, r.Domain)
	}
	return out
}

// passes says what the policy does with a new flow; domains are left out.
func (c compiled) passes(a netip.Addr, proto uint8, port uint16) bool {
	at := box{addr: [2]netip.Addr{a, a}, proto: [2]uint8{proto, proto}, port: [2]uint16{port, port}}
	for _, s := range c.steps {
		boxes := s.v4
		if a.Is6() {
			boxes = s.v6
		}
		if slices.ContainsFunc(boxes, at.overlaps) {
			return s.pass
		}
	}
	return c.open
}
