package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/google/nftables"

	"github.com/tangle-network/microvm"
)

// UpdateEgress replaces the policy of a VM while it runs. Each packet meets the old
// policy or the new one; flows that the new one does not allow end, others go on.
func (m *Manager) UpdateEgress(ctx context.Context, uid string, e microvm.Egress) error {
	fail := func(err error) error { return fmt.Errorf("network of VM %s: update the policy: %w", uid, err) }
	if err := e.Validate(); err != nil {
		return fail(err)
	}
	d, o, err := m.lockOwned(ctx, uid)
	if err != nil {
		return fail(err)
	}
	defer d.unlock()
	before := o.Options
	o.Options.Egress = e
	if _, err := m.compile(o.Options); err != nil {
		return fail(err)
	}
	if err := m.checkHost(o.Options); err != nil {
		return fail(err)
	}
	// What the policy will be is written first: Reconcile finishes what is half done.
	if o.Before == nil {
		o.Before = &before.Egress
	} else {
		o.Before.Allow = append(o.Before.Allow, before.Egress.Allow...) // of an update that failed
	}
	if err := d.writeOwner(o); err != nil {
		return fail(err)
	}
	if err := m.finishUpdate(d, o); err != nil {
		return fail(err)
	}
	return nil
}

// finishUpdate brings a slot to the policy that is written down for it.
func (m *Manager) finishUpdate(d *slotDir, o owner) error {
	before := o.Options
	before.Egress = *o.Before
	if err := m.apply(d, before, o.Options); err != nil {
		return err
	}
	o.Before = nil
	return d.writeOwner(o)
}

// apply brings a slot from one policy to another.
func (m *Manager) apply(d *slotDir, before, after microvm.Network) error {
	p := m.cfg.plan(d.index)
	policy, err := m.compile(after)
	if err != nil {
		return err
	}
	if err := m.policyInside(d, policy, update); err != nil {
		return err
	}
	c, done, err := m.nft()
	if err != nil {
		return err
	}
	defer done()
	e := entryOf(p, after)
	if e.named, err = m.namedOnHost(after.Egress); err != nil {
		return err
	}
	if err := m.table.rename(c, entryOf(p, before), e); err != nil {
		return err
	}
	closed, err := m.onHost(without(namedIn(before.Egress), e.named))
	if err != nil {
		return err
	}
	resolved, err := m.resolvedNow(d.index, policy)
	if err != nil {
		return err
	}
	return m.endFlows(d,
		func(a netip.Addr, proto uint8, port uint16) bool {
			return policy.passes(a, proto, port) || resolved(a, proto, port)
		},
		func(a netip.Addr) bool { return slices.Contains(closed, a) })
}

// rename replaces the addresses that a policy names.
func (h *hostTable) rename(c *nftables.Conn, before, after entry) error {
	gone, come := before, after
	gone.named = without(before.named, after.named)
	for _, el := range h.elementsOf(gone) {
		if el.set == h.named[0] || el.set == h.named[1] {
			// One that is not there can't be removed: it is added first.
			if err := errors.Join(addElements(c, el.set, el.elems), deleteElements(c, el.set, el.elems)); err != nil {
				return err
			}
		}
	}
	for _, el := range h.elementsOf(come) {
		if el.set == h.named[0] || el.set == h.named[1] {
			if err := addElements(c, el.set, el.elems); err != nil {
				return err
			}
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write the host's table %s: %w", h.t.Name, err)
	}
	return nil
}

func without(all, those []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return slices.Contains(those, a) })
}

func (m *Manager) hostPath() string { return fmt.Sprintf("/proc/self/fd/%d", m.host.Fd()) }

// resolvedNow says what the addresses that domains were resolved to are open for.
func (m *Manager) resolvedNow(index int, p compiled) (func(netip.Addr, uint8, uint16) bool, error) {
	var addrs [][]netip.Addr
	if len(p.domains) > 0 {
		err := m.insideNFT(index, func(c *nftables.Conn) error {
			t := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
			old, err := oldPolicies(c, t)
			if err != nil {
				return err
			}
			elems, err := stillAllowed(c, old, p.domains)
			if err != nil {
				return err
			}
			for _, bySix := range elems {
				var list []netip.Addr
				for _, els := range bySix {
					for _, e := range els {
						if a, ok := netip.AddrFromSlice(e.Key); ok {
							list = append(list, a)
						}
					}
				}
				addrs = append(addrs, list)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	any4 := netip.IPv4Unspecified()
	return func(a netip.Addr, proto uint8, port uint16) bool {
		at := box{addr: [2]netip.Addr{any4, any4}, proto: [2]uint8{proto, proto}, port: [2]uint16{port, port}}
		for i, s := range p.domains {
			if slices.Contains(addrs[i], a) && slices.ContainsFunc(s.ports, at.overlaps) {
				return true
			}
		}
		return false
	}, nil
}

// lockOwned waits for the lock of a VM's slot, for as long as ctx lets it.
func (m *Manager) lockOwned(ctx context.Context, uid string) (*slotDir, owner, error) {
	for {
		index, _, err := m.find(uid)
		if err != nil {
			return nil, owner{}, err
		}
		d, err := m.lockSlot(index)
		switch {
		case err == nil:
			// It may have been released, and given to another, before the lock was got.
			o, err := m.readOwner(index)
			if err == nil && o != nil && o.UID == uid {
				return d, *o, nil
			}
			d.unlock()
			if err != nil {
				return nil, owner{}, err
			}
		case errors.Is(err, os.ErrNotExist):
		case !errors.Is(err, errBusy):
			return nil, owner{}, err
		}
		// Another program works on it: a matter of milliseconds.
		select {
		case <-ctx.Done():
			return nil, owner{}, fmt.Errorf("another program works on it: %w", ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}
