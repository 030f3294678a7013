package network

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/tangle-network/microvm"
)

func (b box) has(a netip.Addr, proto uint8, port uint16) bool {
	return b.overlaps(box{[2]netip.Addr{a, a}, [2]uint8{proto, proto}, [2]uint16{port, port}})
}

func hits(boxes []box, a netip.Addr, proto uint8, port uint16) (n int) {
	for _, b := range boxes {
		if b.has(a, proto, port) {
			n++
		}
	}
	return n
}

// named says whether a rule names a packet, without boxes.
func named(r microvm.EgressRule, a netip.Addr, proto uint8, port uint16) bool {
	if p := protocolOf(r); !r.CIDR.Contains(a) || proto < p[0] || proto > p[1] {
		return false
	}
	for _, p := range r.Ports {
		if p.First <= port && port <= p.End() {
			return true
		}
	}
	return len(r.Ports) == 0
}

func TestDisjointBoxesHoldThePacketsOfTheirRules(t *testing.T) {
	t.Parallel()
	small := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, last}) }
	rapid.Check(t, func(t *rapid.T) {
		one := rapid.Custom(func(t *rapid.T) microvm.EgressRule {
			r := microvm.EgressRule{CIDR: netip.PrefixFrom(small(rapid.Uint8Range(0, 7).Draw(t, "addr")), rapid.IntRange(28, 32).Draw(t, "bits")).Masked(),
				Protocol: rapid.SampledFrom([]string{"", "tcp", "udp", "icmp"}).Draw(t, "protocol")}
			if r.Protocol == "tcp" || r.Protocol == "udp" {
				for range rapid.IntRange(0, 3).Draw(t, "ranges") {
					first := rapid.Uint16Range(1, 9).Draw(t, "first")
					r.Ports = append(r.Ports, microvm.PortRange{First: first, Last: rapid.Uint16Range(first, 9).Draw(t, "last")})
				}
			}
			return r
		})
		in := rapid.SliceOfN(one, 0, 8).Draw(t, "rules")
		out, v6, ok := disjoint(in, 10000)
		if !ok || len(v6) > 0 {
			t.Fatalf("%v, %v", ok, v6)
		}
		for a := range byte(10) {
			for _, proto := range []uint8{0, 1, 2, 6, 7, 17, 18, 58, 255} {
				for _, port := range []uint16{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 65535} {
					want := 0
					for _, r := range in {
						if named(r, small(a), proto, port) {
							want = 1
						}
					}
					if got := hits(out, small(a), proto, port); got != want {
						t.Fatalf("%d %d %d: is in %d boxes, and should be in %d", a, proto, port, got, want)
					}
				}
			}
		}
	})
}

func TestDisjointBoxesReachTheEndsOfTheirRanges(t *testing.T) {
	t.Parallel()
	out, v6, _ := disjoint(rules(t, "255.255.255.255/32:tcp:65535", "0.0.0.0/32", "0.0.0.0/0", "[::]/0", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]/128:udp"), 100)
	for _, a := range []string{"0.0.0.0", "10.1.2.3", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"} {
		for _, proto := range []uint8{0, 6, 17, 255} {
			for _, port := range []uint16{0, 80, 65535} {
				if n := hits(append(out, v6...), netip.MustParseAddr(a), proto, port); n != 1 {
					t.Errorf("%s %d %d is in %d boxes", a, proto, port, n)
				}
			}
		}
	}
}

// many are rules for n networks with k single ports each, within a network that has
// other ports of them all.
func many(n, k int) (out []microvm.EgressRule) {
	wide := microvm.EgressRule{CIDR: netip.MustParsePrefix("20.0.0.0/8"), Protocol: "tcp"}
	for i := range k {
		wide.Ports = append(wide.Ports, microvm.PortRange{First: uint16(100*i + 51)})
	}
	for i := range n {
		r := microvm.EgressRule{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i >> 8), byte(i), 0}), 24), Protocol: "tcp"}
		for j := range k {
			r.Ports = append(r.Ports, microvm.PortRange{First: uint16(100*j + 1), Last: uint16(100*j + 60)})
		}
		out = append(out, r)
	}
	return append(out, wide)
}

func TestAPolicyThatIsTooLargeIsRefusedByName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		e     microvm.Egress
		field string
	}{
		{microvm.Egress{Allow: many(microvm.MaxEgressRules-1, microvm.MaxPortRanges)}, "network.egress.allow"},
		{microvm.Egress{Deny: many(microvm.MaxEgressRules-1, microvm.MaxPortRanges)}, "network.egress.deny"},
		{microvm.Egress{Allow: shapesOf(t, maxShapes+1)}, "network.egress.allow"},
	} {
		must(t, c.e.Validate())
		_, err := compile(c.e, around)
		var field *microvm.FieldError
		if !errors.As(err, &field) || field.Field != c.field {
			t.Errorf("%s: %v", c.field, err)
		}
	}
	// What may be large is.
	if _, err := compile(microvm.Egress{Allow: many(1000, 16)[:1000], Deny: many(250, 60)[:250]}, around); err != nil {
		t.Error(err)
	}
}

func shapesOf(t testing.TB, n int) (out []microvm.EgressRule) {
	for i := range n {
		out = append(out, rules(t, fmt.Sprintf("*.example.org:tcp:%d", i+1))...)
	}
	return out
}
