package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
)

// A slot has a directory, named by its index. Who makes the directory has the slot.
//
//	lock       held while the slot is being worked on
//	ns         the namespace is mounted here
//	owner      whose it is: written before the first thing is made in the kernel, and
//	           removed when the last is gone
//	ready      whole; without owner, for whoever comes
//
// A slot without owner and ready is one that a crash has left half made.
//
// Beside them, uids/<uid> is a link to the index of the VM's slot: it is made before
// owner, and goes after it.

// owner is what a slot knows of its VM.
type owner struct {
	UID     string          `json:"uid"`
	Options microvm.Network `json:"options"`
	// Before is the policy that is being replaced, until what is left of it is gone.
	Before *microvm.Egress `json:"before,omitempty"`
}

type slotDir struct {
	m     *Manager
	index int
	lock  *os.File
}

func (m *Manager) slotPath(index int, name ...string) string {
	return filepath.Join(append([]string{m.cfg.Dir, fmt.Sprintf("%05d", index)}, name...)...)
}

func (d *slotDir) path(name string) string { return d.m.slotPath(d.index, name) }

// errBusy means that somebody is working on the slot.
var errBusy = errors.New("in use")

// lockSlot takes a slot's lock, or fails with errBusy. The directory must be there:
// os.ErrNotExist.
func (m *Manager) lockSlot(index int) (*slotDir, error) {
	f, err := os.OpenFile(m.slotPath(index, "lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errBusy
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	// The directory may have been removed, and made anew, before the lock was got.
	var ours, there unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &ours); err != nil {
		f.Close()
		return nil, err
	}
	if err := unix.Lstat(f.Name(), &there); err != nil || ours.Ino != there.Ino {
		f.Close()
		return nil, errBusy
	}
	return &slotDir{m, index, f}, nil
}

func (d *slotDir) unlock() {
	// A child that is about to exec may hold a copy of the descriptor.
	_ = unix.Flock(int(d.lock.Fd()), unix.LOCK_UN)
	d.lock.Close()
}

// owner is nil for a slot that is nobody's.
func (m *Manager) readOwner(index int) (*owner, error) {
	b, err := os.ReadFile(m.slotPath(index, "owner"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var o owner
	if err = json.Unmarshal(b, &o); err == nil {
		err = checkUID(o.UID)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", m.slotPath(index, "owner"), err)
	}
	return &o, nil
}

func (m *Manager) uidPath(uid string) string { return filepath.Join(m.cfg.Dir, "uids", uid) }

// own makes the slot a VM's.
func (d *slotDir) own(o owner) error {
	if err := os.MkdirAll(d.m.uidPath(""), 0o700); err != nil {
		return err
	}
	target, path := strconv.Itoa(d.index), d.m.uidPath(o.UID)
	err := os.Symlink(target, path)
	if errors.Is(err, os.ErrExist) { // of a slot that it has no more
		if err = os.Remove(path); err == nil {
			err = os.Symlink(target, path)
		}
	}
	if err != nil {
		return err
	}
	return d.writeOwner(o)
}

// disown removes the link of a VM whose slot this was.
func (d *slotDir) disown(uid string) error {
	if i, err := d.m.indexOfUID(uid); errors.Is(err, os.ErrNotExist) || err == nil && i != d.index {
		return nil
	}
	return os.Remove(d.m.uidPath(uid))
}

func (m *Manager) indexOfUID(uid string) (int, error) {
	target, err := os.Readlink(m.uidPath(uid))
	if err != nil {
		return 0, err
	}
	i, err := strconv.Atoi(target)
	if err != nil || i < 0 || i >= m.cfg.slots() {
		return 0, fmt.Errorf("%s leads to %q, which is no slot", m.uidPath(uid), target)
	}
	return i, nil
}

// checkUID refuses what is no name of a file.
func checkUID(uid string) error {
	if uid == "" || len(uid) > 64 || strings.Trim(uid, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
		return &microvm.FieldError{Field: "uid", Value: fmt.Sprintf("%.80q", uid), Rule: "1 to 64 letters, digits and '-'"}
	}
	return nil
}

func (d *slotDir) writeOwner(o owner) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	tmp := d.path("owner.new")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, d.path("owner"))
}

func (d *slotDir) isReady() bool {
	_, err := os.Lstat(d.path("ready"))
	return err == nil
}

// remove removes the directory; its kernel objects are gone.
func (d *slotDir) remove() error {
	for _, name := range []string{"ready", "owner", "owner.new", "lock"} {
		if err := os.Remove(d.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	// Somebody who wants the slot may have made a lock anew: then it stays.
	if err := os.Remove(d.m.slotPath(d.index)); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	return nil
}
