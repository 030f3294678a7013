package microvmtest_test

import (
	"context"
	"net/netip"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
)

// wrongNetworks break the rules about managed networks.
var wrongNetworks = []wrong{
	{"two VMs have one address", "networks", viewed(func(v microvm.View) microvm.View {
		for i := range v.Addresses {
			v.Addresses[i] = netip.MustParseAddr("10.111.0.1")
		}
		return v
	})},
	{"a tombstone keeps its address", "networks", viewed(func(v microvm.View) microvm.View {
		if v.Status == microvm.StatusDestroyed {
			v.Addresses = []netip.Addr{netip.MustParseAddr("10.111.0.1")}
		}
		return v
	})},
	{"a port is published twice", "networks", onVerb("create", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		if n := c.spec.Network; n != nil && c.id == "thief" {
			n.Publish[0].HostPort++
		}
		return rt.CreateVMWithSpec(ctx, c.id, c.spec)
	})},
	{"a clone takes over the ports", "networks", onVerb("restore", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		c.spec.Network = &microvm.Network{Publish: []microvm.PublishedPort{{HostPort: 1, GuestPort: 1}}}
		return rt.CreateVMWithSpec(ctx, c.id, c.spec)
	})},
	{"a policy of a VM without a network is taken", "networks", egress(func(rt *inmem.Runtime, ctx context.Context, id string, e microvm.Egress) error {
		if s, err := rt.SpecOf(id); err == nil && s.Network == nil {
			return nil
		}
		return rt.UpdateEgress(ctx, id, e)
	})},
	{"a bad policy is taken", "networks", egress(func(rt *inmem.Runtime, ctx context.Context, id string, e microvm.Egress) error {
		if e.Validate() != nil {
			e = microvm.Egress{}
		}
		return rt.UpdateEgress(ctx, id, e)
	})},
	{"a policy is forgotten", "networks", egress(func(rt *inmem.Runtime, ctx context.Context, id string, e microvm.Egress) error {
		e.Allow = nil
		return rt.UpdateEgress(ctx, id, e)
	})},
}

func viewed(f func(microvm.View) microvm.View) func(*inmem.Runtime) *faulty {
	return func(rt *inmem.Runtime) *faulty { return &faulty{Runtime: rt, view: f} }
}

func egress(f func(*inmem.Runtime, context.Context, string, microvm.Egress) error) func(*inmem.Runtime) *faulty {
	return func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, egress: func(ctx context.Context, id string, e microvm.Egress) error { return f(rt, ctx, id, e) }}
	}
}
