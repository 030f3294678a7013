package network

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/internal/netns"
)

// watch serves VMs whose networks other programs make, too, and lets go of those that
// they take back: its sockets would keep the namespace.
func (m *Manager) watch() error {
	dir := m.uidPath("")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w (sysctl fs.inotify.max_user_instances)", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_ONLYDIR); err != nil {
		f.Close()
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	m.bg.Go(func() {
		stop := context.AfterFunc(m.ctx, func() { f.Close() })
		defer stop()
		buf := make([]byte, 1<<14)
		for {
			n, err := f.Read(buf)
			if err != nil {
				if m.ctx.Err() == nil {
					m.cfg.Log.Error("networks that other programs make are not served any more", "err", err)
				}
				return
			}
			names, lost := eventNames(buf[:n])
			if lost {
				names = m.uids()
			}
			for _, uid := range names {
				// A program that stands still with one's lock keeps no other waiting.
				m.bg.Go(func() { m.follow(uid) })
			}
		}
	})
	return nil
}

// eventNames are the names in inotify(7) events, and whether some were lost.
func eventNames(b []byte) (names []string, lost bool) {
	for len(b) >= unix.SizeofInotifyEvent {
		mask, size := binary.NativeEndian.Uint32(b[4:]), int(binary.NativeEndian.Uint32(b[12:]))
		b = b[unix.SizeofInotifyEvent:]
		if size > len(b) {
			return names, true
		}
		name, _, _ := bytes.Cut(b[:size], []byte{0})
		b = b[size:]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			lost = true
		} else if len(name) > 0 {
			names = append(names, string(name))
		}
	}
	return names, lost
}

// uids are all VMs that have a network, or that are served.
func (m *Manager) uids() (all []string) {
	entries, err := os.ReadDir(m.uidPath(""))
	if err != nil {
		m.cfg.Log.Error("the VMs with networks can't be listed", "err", err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for uid := range m.resolvers {
		all = append(all, uid)
	}
	return all
}

// follow serves a VM that has a network, and does not serve one that has none.
func (m *Manager) follow(uid string) {
	for m.ctx.Err() == nil {
		index, err := m.indexOfUID(uid)
		if errors.Is(err, os.ErrNotExist) {
			m.mu.Lock()
			delete(m.byUID, uid)
			m.mu.Unlock()
			m.stopServing(uid)
			return
		}
		var d *slotDir
		if err == nil {
			d, err = m.lockSlot(index)
		}
		if errors.Is(err, errBusy) { // it is in the making
			select {
			case <-m.ctx.Done():
			case <-time.After(2 * time.Millisecond):
			}
			continue
		}
		if err == nil {
			err = m.serve(d, uid)
			d.unlock()
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) { // then it has gone meanwhile
			m.cfg.Log.Error("a VM's network is not served", "vm", uid, "err", err)
		}
		return
	}
}

func (m *Manager) serve(d *slotDir, uid string) error {
	o, err := m.readOwner(d.index)
	if err != nil || o == nil || o.UID != uid || !netns.Is(d.path("ns")) {
		return err
	}
	return errors.Join(m.resolve(d.index, uid), m.logDrops(d.index, uid, o.Options.LogDropped))
}
