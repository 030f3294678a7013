//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// applyIP does what a kernel with CONFIG_IP_PNP would have done; distributions'
// kernels for VMs are built without. Doing it twice does no harm.
func applyIP(c ipConfig) (err error) {
	device := c.device
	if device == "" {
		if device, err = firstDevice(); err != nil {
			return err
		}
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := setInet4(fd, unix.SIOCSIFADDR, device, c.address.Addr()); err != nil {
		return fmt.Errorf("set address %s of %s: %w", c.address.Addr(), device, err)
	}
	if err := setInet4(fd, unix.SIOCSIFNETMASK, device, maskAddr(c.address.Bits())); err != nil {
		return fmt.Errorf("set netmask /%d of %s: %w", c.address.Bits(), device, err)
	}
	if err := linkUp(fd, device); err != nil {
		return err
	}
	if c.gateway.IsValid() {
		if err := defaultRoute(fd, device, c.gateway, c.address); err != nil {
			return fmt.Errorf("default route by %s: %w", c.gateway, err)
		}
	}
	if c.hostname != "" {
		if err := unix.Sethostname([]byte(c.hostname)); err != nil {
			return fmt.Errorf("set host name %q: %w", c.hostname, err)
		}
	}
	return nil
}

func firstDevice() (string, error) {
	devices, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for _, d := range devices {
		if d.Flags&net.FlagLoopback == 0 {
			return d.Name, nil
		}
	}
	return "", errors.New("the VM has no network interface")
}

func loopbackUp() (err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	return linkUp(fd, "lo")
}

func linkUp(fd int, device string) error {
	req, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("flags of %s: %w", device, err)
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring %s up: %w", device, err)
	}
	return nil
}

func setInet4(fd int, request uint, device string, addr netip.Addr) error {
	req, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	if err := req.SetInet4Addr(addr.AsSlice()); err != nil {
		return err
	}
	return unix.IoctlIfreq(fd, request, req)
}

func maskAddr(bits int) netip.Addr {
	m := net.CIDRMask(bits, 32)
	return netip.AddrFrom4([4]byte(m))
}

// rtentry is struct rtentry of Linux' include/uapi/linux/route.h.
type rtentry struct {
	_                     uint64
	dst, gateway, genmask unix.RawSockaddrInet4
	flags                 uint16
	_                     int16
	_                     uint64
	_                     uintptr
	metric                int16
	dev                   *byte
	mtu, window           uint64
	irtt                  uint16
}

// defaultRoute adds the default route. A gateway outside the interface's own
// network (a /32 address, as clouds give) first gets a route of its own.
func defaultRoute(fd int, device string, gateway netip.Addr, own netip.Prefix) error {
	if !own.Contains(gateway) {
		host := rtentry{dst: inet4(gateway), genmask: inet4(maskAddr(32)), flags: unix.RTF_UP | unix.RTF_HOST}
		if err := addRoute(fd, device, host); err != nil {
			return err
		}
	}
	zero := netip.IPv4Unspecified()
	return addRoute(fd, device, rtentry{dst: inet4(zero), gateway: inet4(gateway), genmask: inet4(zero), flags: unix.RTF_UP | unix.RTF_GATEWAY})
}

func addRoute(fd int, device string, rt rtentry) error {
	name, err := unix.BytePtrFromString(device)
	if err != nil {
		return err
	}
	rt.dev = name
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCADDRT, uintptr(unsafe.Pointer(&rt)))
	if errno != 0 && errno != unix.EEXIST {
		return errno
	}
	return nil
}

func inet4(a netip.Addr) unix.RawSockaddrInet4 {
	return unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.As4()}
}

// writeResolvConf puts the name servers of ip= where the guest's resolver looks.
// Whatever is there (often a symlink into /run) is replaced, not followed.
func writeResolvConf(root *os.Root, servers []netip.Addr) error {
	var b strings.Builder
	b.WriteString("# from the kernel's command line (ip=)\n")
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if err := root.Mkdir("etc", 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	const tmp, name = "etc/.resolv.conf.microvm", "etc/resolv.conf"
	if err := root.WriteFile(tmp, []byte(b.String()), 0o644); err != nil {
		return err
	}
	return root.Rename(tmp, name)
}
