package network

import (
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

func TestDisjointBoxesHoldTheSamePackets(t *testing.T) {
	t.Parallel()
	small := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, last}) }
	rapid.Check(t, func(t *rapid.T) {
		box1 := rapid.Custom(func(t *rapid.T) box {
			two := func(name string) (uint8, uint8) {
				a, b := rapid.Uint8Range(0, 9).Draw(t, name), rapid.Uint8Range(0, 9).Draw(t, name)
				return min(a, b), max(a, b)
			}
			var b box
			a0, a1 := two("addr")
			b.addr = [2]netip.Addr{small(a0), small(a1)}
			b.proto[0], b.proto[1] = two("proto")
			p0, p1 := two("port")
			b.port = [2]uint16{uint16(p0), uint16(p1)}
			return b
		})
		in := rapid.SliceOfN(box1, 0, 8).Draw(t, "boxes")
		out := disjoint(in)
		for a := range byte(10) {
			for proto := range uint8(10) {
				for port := range uint16(10) {
					want, got := hits(in, small(a), proto, port), hits(out, small(a), proto, port)
					if min(want, 1) != got {
						t.Fatalf("%d %d %d: in %d boxes, then %d", a, proto, port, want, got)
					}
				}
			}
		}
	})
}

func TestDisjointBoxesReachTheEndsOfTheirRanges(t *testing.T) {
	t.Parallel()
	all := netip.MustParsePrefix("0.0.0.0/0")
	out := disjoint([]box{
		boxesOf(microvm.EgressRule{CIDR: netip.MustParsePrefix("255.255.255.255/32"), Protocol: "tcp", Ports: []microvm.PortRange{{First: 65535}}})[0],
		boxesOf(microvm.EgressRule{CIDR: netip.MustParsePrefix("0.0.0.0/32")})[0],
		boxesOf(microvm.EgressRule{CIDR: all})[0],
	})
	for _, a := range []string{"0.0.0.0", "10.1.2.3", "255.255.255.255"} {
		for _, proto := range []uint8{0, 6, 255} {
			for _, port := range []uint16{0, 80, 65535} {
				if n := hits(out, netip.MustParseAddr(a), proto, port); n != 1 {
					t.Errorf("%s %d %d is in %d boxes", a, proto, port, n)
				}
			}
		}
	}
}
