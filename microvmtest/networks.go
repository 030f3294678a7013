package microvmtest

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/tangle-network/microvm"
)

// networks looks at addresses, ports and policies; no packet is sent.
func networks(b *bench) {
	u, ok := b.rt.(microvm.EgressUpdater)
	if !ok {
		b.t.Skip("the runtime is no microvm.EgressUpdater")
	}
	b.skipIfLacking(Specs)
	update := func(id string, e microvm.Egress) error {
		return b.call(func(ctx context.Context) error { return u.UpdateEgress(ctx, id, e) })
	}
	with := func(ports ...microvm.PublishedPort) func(*microvm.Spec) {
		return func(s *microvm.Spec) {
			s.Network, s.NetworkInterfaces = &microvm.Network{Publish: ports}, nil
		}
	}
	port := microvm.PublishedPort{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 47111, GuestPort: 80}
	const id = "wired"
	err := b.createWith(id, with(port))
	if errors.Is(err, microvm.ErrUnsupported) || errors.Is(err, microvm.ErrHost) {
		b.t.Skipf("no networks can be made: %v", err)
	}
	b.ok("CreateVMWithSpec with a network", err)
	b.ok("CreateVMWithSpec with a network", b.createWith("other", with()))

	addresses := map[netip.Addr]string{}
	has := func(id string) microvm.View {
		v := b.get(id)
		if len(v.Addresses) == 0 {
			b.t.Errorf("a VM with a network has no address: %s", asJSON(v))
		}
		for _, a := range v.Addresses {
			if by := addresses[a]; by != "" && by != id {
				b.t.Errorf("%s has %v, the address of %s", id, a, by)
			}
			addresses[a] = id
		}
		return v
	}
	v := has(id)
	has("other")
	if !slices.Equal(v.Ports, []microvm.PublishedPort{port}) {
		b.t.Errorf("the ports of %s: %v; want %v", id, v.Ports, port)
	}
	b.refused("CreateVMWithSpec with a port that is taken", b.createWith("thief", with(port)), microvm.ErrInvalidSpec, "thief")
	b.absent("thief")

	allow := microvm.Egress{Allow: []microvm.EgressRule{{CIDR: netip.MustParsePrefix("192.0.2.1/32"), Protocol: "tcp"}}}
	b.ok("UpdateEgress of a created VM", update(id, allow))
	b.ok("StartVM", b.start(id))
	b.ok("UpdateEgress of a running VM", update(id, microvm.Egress{}))
	b.is(id, microvm.StatusRunning)
	b.ok("StopVM", b.stop(id))
	b.ok("UpdateEgress of a stopped VM", update(id, allow))
	if now := has(id); !slices.Equal(now.Addresses, v.Addresses) || now.SpecDigest == v.SpecDigest {
		b.t.Errorf("addresses %v became %v, and the spec's digest is %q", v.Addresses, now.Addresses, now.SpecDigest)
	}
	b.unchanged("refused calls of UpdateEgress", func() {
		b.refused("UpdateEgress", update("nobody", allow), microvm.ErrVMNotFound, "nobody")
		b.refused("UpdateEgress with a bad policy", update(id, microvm.Egress{Default: "perhaps"}), microvm.ErrInvalidSpec, id)
	})
	b.ok("CreateVM without a network", b.createWith("bare", func(s *microvm.Spec) { s.Network = nil }))
	b.refused("UpdateEgress of a VM without a network", update("bare", allow), microvm.ErrInvalidSpec, "bare")

	if !b.lacks(Restores) {
		b.ok("SnapshotVM", b.snapshot(id, "s"))
		b.ok("restore", b.restore("clone", microvm.RestoreFrom{VMID: id, SnapshotID: "s"}))
		if c := has("clone"); len(c.Ports) > 0 {
			b.t.Errorf("the clone has taken over the ports %v", c.Ports)
		}
	}
	b.ok("DestroyVM", b.destroy(id))
	if gone := b.get(id); len(gone.Addresses) > 0 || len(gone.Ports) > 0 {
		b.t.Errorf("a destroyed VM has addresses and ports: %s", asJSON(gone))
	}
	b.refused("UpdateEgress of a destroyed VM", update(id, allow), microvm.ErrInvalidTransition, id)
	b.ok("CreateVMWithSpec with a port that is free again", b.createWith("heir", with(port)))
}
