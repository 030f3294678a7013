package network

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/testhost"
)

// policySets are the sizes of the sets in a VM's namespace.
func policySets(t testing.TB, m *Manager, uid string) map[string]int {
	t.Helper()
	out := map[string]int{}
	i, _, err := m.find(uid)
	must(t, err)
	must(t, m.insideNFT(i, func(c *nftables.Conn) error {
		sets, err := c.GetSets(&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName})
		for _, s := range sets {
			elems, err := c.GetSetElements(s)
			if err != nil {
				return err
			}
			name, _, _ := strings.Cut(s.Name, "_")
			out[name] += len(elems)
		}
		return err
	}))
	return out
}

// A list that is longer than a netlink attribute is cut off without an error.
func TestLongPoliciesAreInTheKernelWhole(t *testing.T) {
	w := testhost.NewWorld(t)
	testhost.Serve(t, w.NS, w.Addr(10)+":443")
	testhost.Serve(t, w.NS, w.Addr(11)+":443")
	m := openManager(t, nil)
	o := microvm.Network{Egress: microvm.Egress{Default: microvm.EgressAllow, Deny: many(1000, 4)[:1000]}}
	for i := range 900 {
		o.Egress.Allow = append(o.Egress.Allow, microvm.EgressRule{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{30, 0, byte(i >> 8), byte(i)}), 32)})
	}
	for i := range maxShapes {
		o.Egress.Allow = append(o.Egress.Allow, rules(t, fmt.Sprintf("*.example.org:tcp:%d,%d-65535", 1+i, 1000+i))...)
	}
	for i := range microvm.MaxPublished {
		o.Publish = append(o.Publish, microvm.PublishedPort{HostPort: uint16(30000 + i), GuestPort: 80})
	}
	o.Egress.Deny = append(o.Egress.Deny, rules(t, w.Addr(11)+"/32")...)
	s := acquire(t, m, "a", o)
	g := newGuest(t, s)
	check := func() {
		t.Helper()
		got, ports := policySets(t, m, "a"), 0
		for name, n := range got {
			if strings.HasPrefix(name, "ports") {
				ports += n
			}
		}
		if got["deny4"] != 4001 || got["allow4"] != 900 || ports != 2*maxShapes {
			t.Errorf("%v", got)
		}
		g.doesNotReach("tcp", w.Addr(11)+":443")
		g.reaches("tcp", w.Addr(10)+":443")
	}
	check()
	must(t, m.UpdateEgress(bg, "a", o.Egress))
	check()
	must(t, m.UpdateEgress(bg, "a", microvm.Egress{Default: microvm.EgressAllow}))
	g.reaches("tcp", w.Addr(11)+":443")
}
