package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
	"github.com/tangle-network/microvm/network"
)

// managed is the manager of networks. Two programs stand for the operator's: one makes
// each slot when it is wanted, the other has some ready. The VMs that are there besides
// are the first's.
type managed struct {
	cold, ready *network.Manager
	dir         string
	vms         int
	next        int
}

const keptReady = 4

func newManaged(dir string) (*managed, error) {
	cold, err := network.Open(network.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	ready, err := network.Open(network.Config{Dir: dir, Slots: network.SlotPool{Max: keptReady}})
	if err != nil {
		return nil, errors.Join(err, cold.Close())
	}
	m := &managed{cold: cold, ready: ready, dir: dir}
	// What is given back is kept: nothing is made beside what is measured.
	ctx := context.Background()
	for i := range keptReady {
		if _, err := ready.Acquire(ctx, fmt.Sprint("first-", i), policy()); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	for i := range keptReady {
		if err := ready.Release(ctx, fmt.Sprint("first-", i)); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	return m, nil
}

// policy has four rules, as the chain of a fork has; the first is for what is measured
// on the path.
func policy() microvm.Network {
	rule := func(text string) microvm.EgressRule {
		r, err := microvm.ParseEgressRule(text)
		if err != nil {
			panic(err) // a constant
		}
		return r
	}
	return microvm.Network{Egress: microvm.Egress{Allow: []microvm.EgressRule{
		rule(server + "/32:tcp"), rule("1.1.1.1/32:tcp:443"), rule("8.8.8.0/24:udp:53"), rule("198.51.100.0/24:tcp:80"),
	}}}
}

func vmUID(i int) string { return fmt.Sprint("vm-", i) }

// have makes or removes VMs until there are n.
func (m *managed) have(ctx context.Context, n int) error {
	for ; m.vms < n; m.vms++ {
		if _, err := m.cold.Acquire(ctx, vmUID(m.vms), policy()); err != nil {
			return err
		}
	}
	for ; m.vms > n; m.vms-- {
		if err := m.cold.Release(ctx, vmUID(m.vms-1)); err != nil {
			return err
		}
	}
	return quiet(ctx, m.vms)
}

// quiet waits until the kernel has ended the namespaces that were given back: that is
// done behind the back of whoever gave them back, and must not meet the next turn.
func quiet(ctx context.Context, vms int) error {
	for end := time.Now().Add(time.Minute); ; {
		links, err := netlink.LinkList()
		interrupted := errors.Is(err, netlink.ErrDumpInterrupted) // some have gone meanwhile
		if err != nil && !interrupted {
			return err
		}
		n := 0
		for _, l := range links {
			if l.Type() == "veth" && l.Attrs().Name != worldLink {
				n++
			}
		}
		if n <= vms+keptReady && !interrupted {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d links of VMs are still there, and there are %d VMs", n, vms)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
	time.Sleep(2 * settle)
	return nil
}

// turn attaches a VM and detaches it.
func (m *managed) turn(ctx context.Context, by string, vms int, s *samples) error {
	mgr := m.cold
	if by == "ready" {
		mgr = m.ready
	}
	m.next++
	uid := fmt.Sprint("turn-", m.next)
	began := time.Now()
	_, err := mgr.Acquire(ctx, uid, policy())
	took := time.Since(began)
	if err != nil {
		return err
	}
	s.time(1, took, "Attach", "vms", vms, "by", by)
	time.Sleep(settle)
	began = time.Now()
	if err := mgr.Release(ctx, uid); err != nil {
		return err
	}
	s.time(1, time.Since(began), "Detach", "vms", vms, "by", by)
	return quiet(ctx, vms)
}

func (m *managed) close() error {
	ctx := context.Background()
	return errors.Join(m.have(ctx, 0), m.ready.Drain(), m.ready.Close(), m.cold.Close())
}

// slotsAhead is what a slot costs that is made for nobody.
func slotsAhead(ctx context.Context, dir string, s *samples) error {
	const n = 20
	for range 5 {
		began := time.Now()
		m, err := network.Open(network.Config{Dir: dir, Slots: network.SlotPool{Min: n, Max: n}, Pool: netip.MustParsePrefix("10.112.0.0/16")})
		if err != nil {
			return err
		}
		for {
			ready, err := filepath.Glob(filepath.Join(dir, "*", "ready"))
			if err != nil || ctx.Err() != nil {
				return errors.Join(err, ctx.Err(), m.Drain(), m.Close())
			}
			if len(ready) == n {
				break
			}
			time.Sleep(200 * time.Microsecond)
		}
		s.time(n, time.Since(began), "Slot", "part", "whole")
		if err := errors.Join(m.Drain(), m.Close()); err != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond) // the kernel ends them
	}
	return nil
}

// slotPieces are the least that a slot asks of the kernel: an empty namespace, a TAP in
// it, a pair of links that leads there, and the name that keeps it.
func slotPieces(path string, s *samples) error {
	host, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer host.Close()
	began := time.Now()
	lap := func(part string) {
		s.time(1, time.Since(began), "Slot", "part", part)
		began = time.Now()
	}
	err = netns.New(func(ns string) error {
		lap("namespace")
		tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tap0"}, Mode: netlink.TUNTAP_MODE_TAP}
		if err := netlink.LinkAdd(tap); err != nil {
			return err
		}
		lap("TAP")
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "piece", PeerNamespace: netlink.NsFd(int(host.Fd()))}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		lap("pair")
		if err := netns.Pin(ns, path); err != nil {
			return err
		}
		lap("mount")
		return nil
	})
	if err != nil {
		return err
	}
	if err := netns.Unpin(path); err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := netlink.LinkByName("piece"); errors.As(err, new(netlink.LinkNotFoundError)) {
			break
		} else if err != nil || time.Now().After(end) {
			return fmt.Errorf("the link of a namespace that is gone: %w", errors.Join(err, unix.ETIMEDOUT))
		}
	}
	time.Sleep(settle)
	return nil
}
