package network

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// What every guest finds inside.
var (
	defaultPool   = netip.MustParsePrefix("10.111.0.0/16")
	defaultGuest  = netip.MustParsePrefix("172.30.0.2/30")
	defaultPool6  = netip.MustParsePrefix("fd6d:7670:6f6f::/64")
	defaultGuest6 = netip.MustParsePrefix("fd6d:7667::2/64")
)

// MACs inside are the same in every namespace: a clone's guest has its gateway's in
// its ARP cache.
var (
	guestMAC   = net.HardwareAddr{0x06, 0x00, 0xac, 0x1e, 0x00, 0x02}
	gatewayMAC = net.HardwareAddr{0x06, 0x00, 0xac, 0x1e, 0x00, 0x01}
)

// slotPlan is a slot as numbers: all that is needed to make it. It follows from the
// configuration and the slot's index.
type slotPlan struct {
	index int
	mac   net.HardwareAddr
	v4    side
	v6    *side
}

// side is one family's addresses.
type side struct {
	six     bool
	guest   netip.Addr
	gateway netip.Addr // of the guest: on the TAP
	bits    int        // of the guest's network
	vm      netip.Addr // the VM's own: the namespace's end of the veth pair
	host    netip.Addr // the host's end
}

func (s slotPlan) sides() []side {
	if s.v6 == nil {
		return []side{s.v4}
	}
	return []side{s.v4, *s.v6}
}

// link is the host's end of the veth pair. The kernel lets no two links have one
// name, so whoever made it has the address, whatever program and state directory.
func (s slotPlan) link() string {
	a := s.v4.vm.As4()
	return fmt.Sprintf("%s%02x%02x%02x%02x", linkPrefix, a[0], a[1], a[2], a[3])
}

const linkPrefix = "mv"

// plan is the slot with that index: the pool's addresses in pairs, the host's end the
// even one (RFC 3021).
func (c Config) plan(index int) slotPlan {
	s := slotPlan{index: index, mac: guestMAC, v4: sideOf(c.Pool, c.Guest, index)}
	if c.IPv6 {
		six := sideOf(c.Pool6, c.Guest6, index)
		s.v6 = &six
	}
	return s
}

// slots is how many the pool has.
func (c Config) slots() int {
	return 1 << min(31-c.Pool.Bits(), 20)
}

func sideOf(pool, guest netip.Prefix, index int) side {
	s := side{six: pool.Addr().Is6(), guest: guest.Addr(), gateway: guest.Masked().Addr().Next(), bits: guest.Bits()}
	s.host = addTo(pool.Addr(), 2*index)
	s.vm = s.host.Next()
	return s
}

// addTo counts on from an address.
func addTo(a netip.Addr, n int) netip.Addr {
	b := a.AsSlice()
	for i := len(b) - 1; n > 0 && i >= 0; i-- {
		n += int(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	out, _ := netip.AddrFromSlice(b)
	return out
}

// linkLocal is the address that a guest gives itself (RFC 4291, appendix A).
func linkLocal(m net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// indexOf is plan and link backwards.
func (c Config) indexOf(link string) (int, bool) {
	hex, ok := strings.CutPrefix(link, linkPrefix)
	n, err := strconv.ParseUint(hex, 16, 32)
	if !ok || len(hex) != 8 || err != nil {
		return 0, false
	}
	vm := netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	if !c.Pool.Contains(vm) {
		return 0, false
	}
	p := c.Pool.Addr().As4()
	i := (int(n) - int(binary.BigEndian.Uint32(p[:]))) / 2
	return i, i < c.slots()
}
