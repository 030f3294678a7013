package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/internal/netns"
)

// Report is what Reconcile has found.
type Report struct {
	Removed []string         `json:"removed"` // uids of VMs that are no more, or the slot's path where nobody's
	Mended  []string         `json:"mended"`  // uids of VMs whose network was not whole
	Busy    []string         `json:"busy"`    // slots that another program works on
	Failed  map[string]error `json:"-"`       // what could not be removed or mended, and why
}

// Reconcile removes what no living VM owns, and makes whole what living ones have: the
// host may have been booted since, or its nftables flushed. It touches nothing that
// is not of this directory.
func (m *Manager) Reconcile(ctx context.Context, alive func(uid string) bool) (Report, error) {
	rep := Report{Failed: map[string]error{}}
	indexes, err := m.indexes()
	if err != nil {
		return rep, fmt.Errorf("network: %w", err)
	}
	var links []string
	for _, i := range indexes {
		if err := ctx.Err(); err != nil {
			return rep, fmt.Errorf("network: %w", err)
		}
		if m.reconcileSlot(i, alive, &rep) {
			links = append(links, m.cfg.plan(i).link())
		}
	}
	if err := m.removeStrayLinks(ctx, links); err != nil {
		rep.Failed["links"] = err
	}
	if err := m.removeStrayUIDs(); err != nil {
		rep.Failed[m.uidPath("")] = err
	}
	c, done, err := m.nft()
	if err != nil {
		return rep, fmt.Errorf("network: %w", err)
	}
	defer done()
	if err := m.dropTable(c); err != nil {
		rep.Failed[m.table.t.Name] = err
	}
	return rep, nil
}

// reconcileSlot returns whether the slot is somebody's, or ready, or in somebody's hands.
func (m *Manager) reconcileSlot(i int, alive func(string) bool, rep *Report) bool {
	d, err := m.lockSlot(i)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	if errors.Is(err, errBusy) {
		rep.Busy = append(rep.Busy, m.slotPath(i))
		return true
	}
	if err != nil {
		rep.Failed[m.slotPath(i)] = err
		return true
	}
	defer d.unlock()
	o, err := m.readOwner(i)
	switch {
	case err != nil && netns.Is(d.path("ns")):
		// Whose it is can't be told: it stays, and is reported.
		rep.Failed[m.slotPath(i)] = err
		return true
	case o == nil && d.isReady() && netns.Is(d.path("ns")):
		return true
	case o == nil: // or the host was booted before the owner's file was on the disk
		if err := m.unmakeSlot(d); err != nil {
			rep.Failed[m.slotPath(i)] = err
			return true
		}
		rep.Removed = append(rep.Removed, m.slotPath(i))
		return false
	case !alive(o.UID):
		if err := m.takeBack(d, *o); err != nil {
			rep.Failed[o.UID] = err
			return true
		}
		rep.Removed = append(rep.Removed, o.UID)
		return false
	}
	var mend error
	switch {
	case !m.isWhole(d, *o):
		mend = m.mend(d, *o)
	case o.Before != nil:
		mend = m.finishUpdate(d, *o)
	default:
		return true
	}
	if err := mend; err != nil {
		rep.Failed[o.UID] = err
	} else {
		rep.Mended = append(rep.Mended, o.UID)
	}
	return true
}

// isWhole says whether what a slot needs in the kernel is there.
func (m *Manager) isWhole(d *slotDir, o owner) bool {
	if !netns.Is(d.path("ns")) {
		return false
	}
	if _, err := m.rt.LinkByName(m.cfg.plan(d.index).link()); err != nil {
		return false
	}
	c, done, err := m.nft()
	if err != nil {
		return false
	}
	defer done()
	if _, err := c.ListTableOfFamily(m.table.t.Name, m.table.t.Family); err != nil {
		return false
	}
	return m.insideNFT(d.index, func(c *nftables.Conn) error {
		for _, f := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyNetdev} {
			if _, err := c.ListTableOfFamily(tableName, f); err != nil {
				return err
			}
		}
		return nil
	}) == nil
}

// mend makes a VM's network whole. A namespace that lacks nothing is left as it is: a
// VMM may be in it.
func (m *Manager) mend(d *slotDir, o owner) error {
	p := m.cfg.plan(d.index)
	_, err := m.rt.LinkByName(p.link())
	if !netns.Is(d.path("ns")) || errors.As(err, new(netlink.LinkNotFoundError)) {
		m.stopServing(o.UID)
		if err := m.unmake(p, d.path("ns")); err != nil {
			return err
		}
		if err := m.makeSlot(p, d.path("ns")); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	err = m.insideNFT(d.index, func(c *nftables.Conn) error {
		for _, f := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyNetdev} {
			if _, err := c.ListTableOfFamily(tableName, f); err == nil {
				continue
			}
			// One of the two is no ruleset: both anew.
			for _, f := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyNetdev} {
				t := c.AddTable(&nftables.Table{Family: f, Name: tableName})
				c.DelTable(t)
			}
			insideTable(c, p)
			return c.Flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	policy, err := m.compile(o.Options)
	if err != nil {
		return err
	}
	return m.join(d, o, policy, mended)
}

// removeStrayLinks removes links that are marked as ours and belong to no slot. Nearly all
// of them are about to go with their namespaces, and are waited for.
func (m *Manager) removeStrayLinks(ctx context.Context, known []string) error {
	for end := time.Now().Add(goes); ; {
		stray, err := m.strayLinks(known)
		if err != nil || len(stray) == 0 {
			return err
		}
		if time.Now().After(end) {
			var errs []error
			for _, link := range stray {
				errs = append(errs, m.removeStray(link))
			}
			return errors.Join(errs...)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (m *Manager) strayLinks(known []string) (stray []string, err error) {
	all, err := m.rt.LinkList()
	for i := 0; errors.Is(err, netlink.ErrDumpInterrupted) && i < 100; i++ {
		all, err = m.rt.LinkList() // some came or went meanwhile
	}
	if err != nil {
		return nil, fmt.Errorf("list the links: %w", err)
	}
	for _, l := range all {
		a := l.Attrs()
		if a.Alias != m.alias() || slices.Contains(known, a.Name) {
			continue
		}
		// A slot that was made since the list of known ones.
		if i, ok := m.cfg.indexOf(a.Name); ok && !exists(m.slotPath(i)) {
			stray = append(stray, a.Name)
		}
	}
	return stray, nil
}

// removeStrayUIDs removes links of VMs to slots that are not theirs.
func (m *Manager) removeStrayUIDs() error {
	entries, err := os.ReadDir(m.uidPath(""))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var errs []error
	for _, e := range entries {
		var d *slotDir
		i, err := m.indexOfUID(e.Name())
		if err == nil {
			d, err = m.lockSlot(i)
		}
		switch {
		case errors.Is(err, errBusy):
			continue
		case err != nil: // it leads nowhere
			err = os.Remove(m.uidPath(e.Name()))
		default:
			if o, oerr := m.readOwner(i); oerr == nil && (o == nil || o.UID != e.Name()) {
				err = d.disown(e.Name())
			}
			d.unlock()
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// lockTable keeps the host's table from being removed while a VM is put into it.
func (m *Manager) lockTable(how int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(m.cfg.Dir, "table.lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

// someVM looks for a VM that has a network among a few: most often there is one.
func (m *Manager) someVM() bool {
	f, err := os.Open(m.uidPath(""))
	if err != nil {
		return false
	}
	defer f.Close()
	names, _ := f.Readdirnames(8) // without any, all slots are looked at
	return slices.ContainsFunc(names, func(uid string) bool {
		i, err := m.indexOfUID(uid)
		return err == nil && exists(m.slotPath(i, "owner"))
	})
}

// dropTable removes the host's table when no VM has a network, and what is in it of
// VMs that have none any more.
func (m *Manager) dropTable(c *nftables.Conn) error {
	l, err := m.lockTable(unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer l.Close()
	if m.someVM() {
		return nil
	}
	indexes, err := m.indexes()
	if err != nil {
		return err
	}
	for _, i := range indexes {
		if exists(m.slotPath(i, "owner")) {
			return nil
		}
	}
	t := c.AddTable(m.table.t)
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove the table %s: %w", t.Name, err)
	}
	return nil
}
