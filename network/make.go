package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/internal/netns"
)

// errAddressTaken means that a link of the slot's name is there, or its address is on
// another: somebody else's, or not gone yet.
var errAddressTaken = errors.New("the address is taken")

// makeSlot makes the namespace, the veth pair, the TAP and the closed ruleset of a
// slot, and pins the namespace on path. What it could not finish it takes back.
func (m *Manager) makeSlot(s slotPlan, path string) error {
	if err := m.checkFree(s); err != nil {
		return err
	}
	err := netns.New(func(ns string) error {
		if err := m.makeInside(s, int(m.host.Fd())); err != nil {
			return err
		}
		return netns.Pin(ns, path)
	})
	if err != nil {
		return err
	}
	err = m.makeOutside(s)
	if err == nil && m.cfg.IPNetns {
		err = showNetns(path, s.link())
	}
	if err != nil {
		return errors.Join(err, m.unmake(s, path))
	}
	return nil
}

// checkFree asks the kernel whether a link that is not ours has one of the slot's
// addresses, or a network that they lie in: packets to the VM would go there. The
// kernel itself would let two links have one address.
func (m *Manager) checkFree(s slotPlan) error {
	for _, side := range s.sides() {
		for _, a := range []netip.Addr{side.host, side.vm} {
			routes, err := m.rt.RouteGet(a.AsSlice())
			if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || len(routes) == 0 && err == nil {
				continue
			}
			if err != nil {
				return fmt.Errorf("look for a route to %v: %w", a, err)
			}
			if r := routes[0]; r.Gw == nil && r.Via == nil {
				name := strconv.Itoa(r.LinkIndex)
				if l, err := m.rt.LinkByIndex(r.LinkIndex); err == nil {
					name = l.Attrs().Name
				}
				return fmt.Errorf("%w: %v is behind %s", errAddressTaken, a, name)
			}
		}
	}
	return nil
}

// makeInside runs in the new namespace.
func (m *Manager) makeInside(s slotPlan, host int) error {
	if err := makeTAP(m.cfg.TAPOwner, m.cfg.TAPGroup); err != nil {
		return err
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	// The pair is made from within, so that its inner end never is on the host, where
	// udev would rename it or change its MAC.
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: s.link(), PeerNamespace: netlink.NsFd(host)}
	veth.Name = uplink
	if err := h.LinkAdd(veth); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return errAddressTaken
		}
		return fmt.Errorf("make the veth pair %s: %w", s.link(), err)
	}
	up, err := h.LinkByName(uplink)
	if err != nil {
		return fmt.Errorf("find %s: %w", uplink, err)
	}
	tap, err := h.LinkByName(TAP)
	if err != nil {
		return fmt.Errorf("find %s: %w", TAP, err)
	}
	if err := h.LinkSetHardwareAddr(tap, gatewayMAC); err != nil {
		return fmt.Errorf("set the MAC of %s: %w", TAP, err)
	}
	if err := sysctlsInside(s.v6 != nil); err != nil {
		return err
	}
	for _, side := range s.sides() {
		width := 127
		if !side.six {
			width = 31
		}
		if err := addAddr(h, up, side.vm, width); err != nil {
			return err
		}
		if err := addAddr(h, tap, side.gateway, side.bits); err != nil {
			return err
		}
	}
	for _, l := range []netlink.Link{up, tap} {
		if err := h.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up: %w", l.Attrs().Name, err)
		}
	}
	for _, side := range s.sides() {
		if err := h.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Gw: side.host.AsSlice()}); err != nil {
			return fmt.Errorf("route by %v: %w", side.host, err)
		}
	}
	nf, err := openNF()
	if err != nil {
		return err
	}
	defer nf.close()
	c, err := nf.conn()
	if err != nil {
		return err
	}
	insideTable(c, s)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("write the rules of the namespace: %w", err)
	}
	return nil
}

func addAddr(h *netlink.Handle, l netlink.Link, a netip.Addr, bits int) error {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrAdd(l, addr); err != nil {
		return fmt.Errorf("give %s the address %v: %w", l.Attrs().Name, a, err)
	}
	return nil
}

// makeTAP makes the TAP of the namespace that the thread is in. Firecracker asks for
// the same flags (src/vmm/src/devices/virtio/net/tap.rs) and gets EINVAL otherwise.
func makeTAP(owner, group int) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun (modprobe tun): %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(TAP)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("make %s: %w", TAP, err)
	}
	if owner > 0 {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, owner); err != nil {
			return fmt.Errorf("give %s to user %d: %w", TAP, owner, err)
		}
	}
	if group > 0 {
		if err := unix.IoctlSetInt(fd, unix.TUNSETGROUP, group); err != nil {
			return fmt.Errorf("give %s to group %d: %w", TAP, group, err)
		}
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("keep %s: %w", TAP, err)
	}
	return nil
}

// setMTU makes the TAP's MTU the guest's: for what is too large for it the namespace
// sends the errors that a router does.
func setMTU(ns string, mtu int) error {
	err := netns.Inside(ns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		req, err := unix.NewIfreq(TAP)
		if err != nil {
			return err
		}
		req.SetUint32(uint32(mtu))
		return unix.IoctlIfreq(fd, unix.SIOCSIFMTU, req)
	})
	if err != nil {
		return fmt.Errorf("set the MTU of %s to %d: %w", TAP, mtu, err)
	}
	return nil
}

const defaultMTU = 1500

// sysctlsInside sets what the namespace needs; /proc/thread-self/net is the thread's
// own namespace's, and so is /proc/sys/net.
func sysctlsInside(six bool) error {
	set := [][2]string{
		{"ipv4/ip_forward", "1"},
		{"ipv4/conf/all/accept_redirects", "0"},
		{"ipv4/conf/all/accept_source_route", "0"}, // this and the next are as the host has them, else
		{"ipv4/conf/all/route_localnet", "0"},
		{"ipv4/conf/all/send_redirects", "0"},
		{"ipv4/conf/default/send_redirects", "0"},
	}
	if six {
		set = append(set, [2]string{"ipv6/conf/all/forwarding", "1"}, [2]string{"ipv6/conf/all/accept_ra", "0"})
	} else {
		set = append(set, [2]string{"ipv6/conf/all/disable_ipv6", "1"})
	}
	for _, kv := range set {
		err := os.WriteFile("/proc/sys/net/"+kv[0], []byte(kv[1]), 0)
		if err != nil && !(strings.HasPrefix(kv[0], "ipv6/") && !six && errors.Is(err, os.ErrNotExist)) {
			return fmt.Errorf("sysctl net.%s=%s in the namespace: %w", strings.ReplaceAll(kv[0], "/", "."), kv[1], err)
		}
	}
	return nil
}

// makeOutside gives the host's end its addresses.
func (m *Manager) makeOutside(s slotPlan) error {
	l, err := m.rt.LinkByName(s.link())
	if err != nil {
		return fmt.Errorf("find %s: %w", s.link(), err)
	}
	if err := m.rt.LinkSetAlias(l, m.alias()); err != nil {
		return fmt.Errorf("mark %s as ours: %w", s.link(), err)
	}
	for _, side := range s.sides() {
		width := 127
		if !side.six {
			width = 31
		}
		if err := addAddr(m.rt, l, side.host, width); err != nil {
			return err
		}
	}
	if err := m.rt.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", s.link(), err)
	}
	return nil
}

// unmake removes all that makeSlot makes; what is not there is no error. The link is
// removed by name and only if it is marked as ours, or the namespace was.
func (m *Manager) unmake(s slotPlan, path string) error {
	errs := []error{hideNetns(path, s.link())}
	l, err := m.rt.LinkByName(s.link())
	switch {
	case errors.As(err, new(netlink.LinkNotFoundError)):
	case err != nil:
		errs = append(errs, fmt.Errorf("find %s: %w", s.link(), err))
	case l.Attrs().Alias == m.alias() || l.Attrs().Alias == "" && netns.Is(path):
		if err := m.rt.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("remove %s: %w", s.link(), err))
		}
	}
	if err := netns.Unpin(path); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// netnsDir is where ip-netns(8) keeps namespaces.
const netnsDir = "/run/netns"

// showNetns shows a namespace to ip-netns(8).
func showNetns(path, name string) error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return fmt.Errorf("show the namespace: %w", err)
	}
	return netns.Pin(path, filepath.Join(netnsDir, name))
}

// hideNetns is showNetns' contrary. What has that name and is another namespace stays:
// it is somebody else's.
func hideNetns(path, name string) error {
	shown := filepath.Join(netnsDir, name)
	var here, there unix.Stat_t
	if unix.Stat(shown, &there) != nil || unix.Stat(path, &here) != nil || here.Dev != there.Dev || here.Ino != there.Ino {
		return nil
	}
	return netns.Unpin(shown)
}
