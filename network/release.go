package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/internal/netns"
)

// Release takes a VM's network back: the VMM must be dead. When it returns, nothing
// leads to the VM any more, and its address is free when the kernel is done with it.
// A VM without a network is no error.
func (m *Manager) Release(ctx context.Context, uid string) error {
	d, o, err := m.lockOwned(ctx, uid)
	if errors.Is(err, ErrNoSlot) {
		return nil
	}
	if err == nil {
		err = m.takeBack(d, o)
		d.unlock()
	}
	if err != nil {
		return fmt.Errorf("network of VM %s: release: %w", uid, err)
	}
	return nil
}

// takeBack makes a slot nobody's: ready for the next if there is room among those
// that are kept, else it is removed.
func (m *Manager) takeBack(d *slotDir, o owner) error {
	m.mu.Lock()
	delete(m.byUID, o.UID)
	keep := len(m.ready) < m.cfg.Slots.Max
	m.mu.Unlock()
	m.stopServing(o.UID)
	p := m.cfg.plan(d.index)
	c, done, err := m.nft()
	if err != nil {
		return err
	}
	defer done()
	if err := m.table.remove(c, entryOf(p, o.Options)); err != nil {
		return err
	}
	if err := m.table.dropEmptyGroup(c, o.Options.Group); err != nil {
		return err
	}
	if err := m.forgetVM(o, p); err != nil {
		return err
	}
	if keep && m.ctx.Err() == nil && m.clean(d, o) == nil {
		if err := os.Remove(d.path("owner")); err != nil {
			return err
		}
		m.mu.Lock()
		m.ready = append(m.ready, d.index)
		m.mu.Unlock()
	} else {
		// The host's table does not know its link any more.
		if netns.Is(d.path("ns")) {
			if err := m.insideNFT(d.index, seal); err != nil {
				return err
			}
		}
		if err := m.unmakeSlot(d); err != nil {
			return err
		}
	}
	if err := d.disown(o.UID); err != nil {
		return err
	}
	m.mu.Lock()
	last := len(m.byUID) == 0
	m.mu.Unlock()
	if last {
		return m.dropTable(c)
	}
	return nil
}

// clean makes a slot as good as new: closed, no flow remembered, counters at zero.
func (m *Manager) clean(d *slotDir, o owner) error {
	if !netns.Is(d.path("ns")) {
		return errors.New("the namespace is gone")
	}
	if err := m.routeLoopback(m.cfg.plan(d.index).link(), false); err != nil {
		return err
	}
	if o.Options.MTU != 0 {
		if err := setMTU(d.path("ns"), defaultMTU); err != nil {
			return err
		}
	}
	// All by one socket: when one is closed, others in the namespace wait.
	s, err := openNFIn(d.path("ns"))
	if err != nil {
		return err
	}
	defer m.bg.Go(s.close)
	c, err := s.conn()
	if err != nil {
		return err
	}
	if err := setPolicy(c, compiled{shut: true}, noVM); err != nil {
		return err
	}
	if err := s.forgetFlows(); err != nil {
		return fmt.Errorf("forget the flows: %w", err)
	}
	for _, t := range []*nftables.Table{{Family: nftables.TableFamilyINet, Name: tableName}, {Family: nftables.TableFamilyNetdev, Name: tableName}} {
		if _, err := c.ResetObjects(t); err != nil {
			return fmt.Errorf("zero the counters: %w", err)
		}
	}
	return os.WriteFile(d.path("ready"), nil, 0o600)
}

// unmakeSlot removes a slot that is not in the host's table any more. Its links go with
// its namespace, behind our back: the kernel ends many namespaces as fast as one, while a
// link that is removed by itself waits for several grace periods of RCU with the lock of
// all links held.
func (m *Manager) unmakeSlot(d *slotDir) error {
	link := m.cfg.plan(d.index).link()
	if err := errors.Join(hideNetns(d.path("ns"), link), netns.Unpin(d.path("ns"))); err != nil {
		return err
	}
	if err := d.remove(); err != nil {
		return err
	}
	m.seeOff(link)
	return nil
}

// going is a link whose namespace was let go.
type going struct {
	link  string
	since time.Time
}

// seeOff removes a link by hand if it does not go by itself: another program has sockets
// in its namespace. What it has not seen off when the Manager is closed, Reconcile does.
func (m *Manager) seeOff(link string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.going = append(m.going, going{link, time.Now()})
	if len(m.going) > 1 {
		return // somebody looks after them
	}
	m.bg.Go(func() {
		for {
			select {
			case <-m.ctx.Done():
				return
			case <-time.After(goes / 4):
			}
			m.mu.Lock()
			n := 0
			for n < len(m.going) && time.Since(m.going[n].since) > goes {
				n++
			}
			late := m.going[:n:n]
			m.going = m.going[n:]
			empty := len(m.going) == 0
			m.mu.Unlock()
			for _, g := range late {
				if err := m.removeStray(g.link); err != nil {
					m.cfg.Log.Error("a link is left", "link", g.link, "err", err)
				}
			}
			if empty {
				return
			}
		}
	})
}

// goes is how long a link may take to go with its namespace.
const goes = 2 * time.Second

// removeStray removes a link of ours that belongs to no slot, if it is there.
func (m *Manager) removeStray(link string) error {
	l, err := m.rt.LinkByName(link)
	if errors.As(err, new(netlink.LinkNotFoundError)) || err == nil && l.Attrs().Alias != m.alias() {
		return nil
	}
	if err == nil {
		// Asked in this order: a link that was found before its slot was made is no slot's.
		if i, ok := m.cfg.indexOf(link); !ok || exists(m.slotPath(i)) {
			return nil
		}
		err = m.rt.LinkDel(l)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s: %w", link, err)
	}
	return nil
}

// Drain removes the slots that are kept ready.
func (m *Manager) Drain() error {
	m.mu.Lock()
	m.ready = nil
	m.mu.Unlock()
	indexes, err := m.indexes()
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	var errs []error
	for _, i := range indexes {
		if exists(m.slotPath(i, "owner")) {
			continue
		}
		d, err := m.lockSlot(i)
		if errors.Is(err, errBusy) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			if o, oerr := m.readOwner(i); oerr != nil || o == nil {
				err = errors.Join(oerr, m.unmakeSlot(d))
			}
			d.unlock()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("network: remove slot %s: %w", m.slotPath(i), err))
		}
	}
	return errors.Join(errs...)
}

// refill makes slots ahead, in the background.
func (m *Manager) refill() {
	m.mu.Lock()
	missing := m.cfg.Slots.Min - len(m.ready)
	m.mu.Unlock()
	if missing <= 0 || m.ctx.Err() != nil {
		return
	}
	m.bg.Go(func() {
		for m.ctx.Err() == nil {
			m.mu.Lock()
			missing := m.cfg.Slots.Min - len(m.ready)
			m.mu.Unlock()
			if missing <= 0 {
				return
			}
			d, err := m.claim(m.ctx, nil, func() error { return nil })
			if err == nil {
				err = os.WriteFile(d.path("ready"), nil, 0o600)
				d.unlock()
			}
			if err != nil {
				if m.ctx.Err() == nil {
					m.cfg.Log.Error("a network slot could not be made ahead", "err", err)
				}
				return
			}
			m.mu.Lock()
			m.ready = append(m.ready, d.index)
			m.mu.Unlock()
		}
	})
}

// dropEmptyGroup removes the chain and sets of a group without members.
func (h *hostTable) dropEmptyGroup(c *nftables.Conn, group string) error {
	if group == "" {
		return nil
	}
	// Only for speed: a transaction that fails waits for a grace period of RCU.
	if elems, err := c.GetSetElements(h.groupSet(group, false)); err == nil && len(elems) > 0 {
		return nil
	}
	ch := &nftables.Chain{Table: h.t, Name: groupChain(group)}
	c.FlushChain(ch)
	c.DelChain(ch)
	for _, six := range []bool{false, true} {
		c.DelSet(h.groupSet(group, six))
	}
	// The map of groups holds the chain while there is a member: then nothing is removed.
	if err := c.Flush(); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove group %q: %w", group, err)
	}
	return nil
}
