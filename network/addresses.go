package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
)

// addresses are what a slot's index means. They can't change while there are slots.
type addresses struct {
	Pool   netip.Prefix `json:"pool"`
	Guest  netip.Prefix `json:"guest"`
	Pool6  netip.Prefix `json:"pool6,omitzero"`
	Guest6 netip.Prefix `json:"guest6,omitzero"`
}

func (c Config) addresses() addresses {
	a := addresses{Pool: c.Pool, Guest: c.Guest}
	if c.IPv6 {
		a.Pool6, a.Guest6 = c.Pool6, c.Guest6
	}
	return a
}

func (a addresses) String() string {
	s := fmt.Sprintf("pool %v, guest %v", a.Pool, a.Guest)
	if a.Pool6.IsValid() {
		s += fmt.Sprintf(", pool6 %v, guest6 %v", a.Pool6, a.Guest6)
	}
	return s
}

const addressesFile = "addresses.json"

// keepAddresses sees that the slots that are there have the configuration's addresses.
func (m *Manager) keepAddresses() error {
	want, path := m.cfg.addresses(), filepath.Join(m.cfg.Dir, addressesFile)
	if a, err := readAddresses(path); err == nil && a == want {
		return nil
	}
	l, err := m.lockTable(unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer l.Close()
	has, err := readAddresses(path)
	if err == nil && has == want {
		return nil
	}
	if err == nil {
		// Indexes that this pool has not are slots, too.
		entries, err := os.ReadDir(m.cfg.Dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if _, err := strconv.Atoi(e.Name()); err == nil {
				return &microvm.FieldError{Field: "network", Value: want.String(), Rule: fmt.Sprintf("%v, which the networks in %s have: with others only when they are gone (destroy the VMs, microvm net gc)", has, m.cfg.Dir)}
			}
		}
	}
	// One that can't be read was not on the disk when the host went down, and no slot
	// has outlived that.
	b, err := json.Marshal(want)
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func readAddresses(path string) (a addresses, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a); err != nil || !a.Pool.IsValid() {
		return a, errors.Join(fmt.Errorf("%s is damaged", path), err)
	}
	return a, nil
}

// mkdirSlot makes a slot's directory, and says whether it was not there. While it does
// so nobody changes the addresses.
func (m *Manager) mkdirSlot(index int) (made bool, err error) {
	l, err := m.lockTable(unix.LOCK_SH)
	if err != nil {
		return false, err
	}
	defer l.Close()
	a, err := readAddresses(filepath.Join(m.cfg.Dir, addressesFile))
	if err == nil && a != m.cfg.addresses() {
		err = fmt.Errorf("another program has opened %s with %v: open it again", m.cfg.Dir, a)
	}
	if err != nil {
		return false, err
	}
	err = os.Mkdir(m.slotPath(index), 0o700)
	if err != nil && !errors.Is(err, os.ErrExist) {
		return false, err
	}
	return err == nil, nil
}
