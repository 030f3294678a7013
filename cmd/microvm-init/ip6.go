//go:build linux

package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ip6Config is what microvm.ip6=ADDRESS/LENGTH[,GATEWAY] asks for: ip= has no form for
// IPv6.
type ip6Config struct {
	address netip.Prefix
	gateway netip.Addr // invalid if none
}

func parseIP6(word string) (c ip6Config, err error) {
	address, gateway, has := strings.Cut(word, ",")
	if c.address, err = netip.ParsePrefix(address); err != nil || !c.address.Addr().Is6() {
		return c, fmt.Errorf("microvm.ip6=%s: %q is no IPv6 address with a length", word, address)
	}
	if !has {
		return c, nil
	}
	if c.gateway, err = netip.ParseAddr(gateway); err != nil || !c.gateway.Is6() || c.gateway.Zone() != "" {
		return c, fmt.Errorf("microvm.ip6=%s: gateway %q is not IPv6", word, gateway)
	}
	return c, nil
}

// in6Ifreq and in6Rtmsg are those of Linux' include/uapi/linux/ipv6.h and
// ipv6_route.h.
type (
	in6Ifreq struct {
		addr   [16]byte
		length uint32
		index  int32
	}
	in6Rtmsg struct {
		dst, src, gateway    [16]byte
		kind                 uint32
		dstLength, srcLength uint16
		metric               uint32
		info                 uint64
		flags                uint32
		index                int32
	}
)

// applyIP6 gives the first device the address. Nobody else has it, on a link of our
// own: it need not be asked for first.
func applyIP6(c ip6Config) error {
	device, err := firstDevice()
	if err != nil {
		return err
	}
	link, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+device+"/accept_dad", []byte("0"), 0); err != nil {
		return fmt.Errorf("the kernel has no IPv6: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := linkUp(fd, device); err != nil {
		return err
	}
	ioctl := func(request uintptr, arg unsafe.Pointer) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 && errno != unix.EEXIST {
			return errno
		}
		return nil
	}
	a := in6Ifreq{c.address.Addr().As16(), uint32(c.address.Bits()), int32(link.Index)}
	if err := ioctl(unix.SIOCSIFADDR, unsafe.Pointer(&a)); err != nil {
		return fmt.Errorf("set address %s of %s: %w", c.address, device, err)
	}
	if !c.gateway.IsValid() {
		return nil
	}
	r := in6Rtmsg{gateway: c.gateway.As16(), metric: 1024, flags: unix.RTF_UP | unix.RTF_GATEWAY, index: int32(link.Index)}
	if err := ioctl(unix.SIOCADDRT, unsafe.Pointer(&r)); err != nil {
		return fmt.Errorf("default route by %s: %w", c.gateway, err)
	}
	return nil
}
