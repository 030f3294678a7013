package inmem

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tangle-network/microvm"
)

// UpdateEgress replaces the policy of a VM's managed network; SpecOf shows it.
func (r *Runtime) UpdateEgress(ctx context.Context, id string, policy microvm.Egress) error {
	if err := policy.Validate(); err != nil {
		return wrap(VerbEgress, id, err)
	}
	legal := func(v *vm) error {
		if err := alive(v); err != nil {
			return err
		}
		if v.spec.ManagedNetwork() == nil {
			return &microvm.FieldError{Field: "network", Value: "none", Rule: "a managed network: the VM was made without one"}
		}
		return nil
	}
	return r.verb(ctx, VerbEgress, id, legal, func(v *vm) {
		spec := v.spec.Clone() // snapshots share the old one
		spec.Network.Egress = microvm.Spec{Network: &microvm.Network{Egress: policy}}.Clone().Network.Egress
		v.spec, v.view.SpecDigest = spec, spec.Digest()
		r.changed(v)
	})
}

// address is one that no VM has had before; nothing answers there. r.mu is held.
func (r *Runtime) address() netip.Addr {
	n := 2*r.created + 1
	return netip.AddrFrom4([4]byte{10, 111 + byte(n>>16), byte(n >> 8), byte(n)})
}

// portsAreFree refuses a spec with a port that another VM has published. r.mu is held.
func (r *Runtime) portsAreFree(s microvm.Spec) error {
	n := s.ManagedNetwork()
	if n == nil {
		return nil
	}
	for _, p := range n.Publish {
		for id, v := range r.vms {
			if slices.ContainsFunc(v.view.Ports, func(q microvm.PublishedPort) bool {
				return p.HostPort == q.HostPort && p.Proto() == q.Proto() && p.HostIP == q.HostIP
			}) {
				return &microvm.FieldError{Field: "network.publish", Value: p.String(), Rule: fmt.Sprintf("a port of the host that is free: VM %q has it", id)}
			}
		}
	}
	return nil
}
