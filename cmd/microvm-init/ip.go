//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ipConfig is one ip= word, as Documentation/admin-guide/nfs/nfsroot.rst in Linux
// has it: CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF:DNS0:DNS1:NTP0.
type ipConfig struct {
	address     netip.Prefix
	gateway     netip.Addr // invalid if none
	hostname    string
	device      string // empty: the first that isn't lo
	nameServers []netip.Addr
}

var errNoAddress = errors.New("no address to set")

// parseIP reads an ip= word. It returns errNoAddress for the forms that ask for
// nothing (off, none), and another error for those that ask for what isn't here
// (DHCP, BOOTP, IPv6).
func parseIP(word string) (ipConfig, error) {
	switch word {
	case "", "off", "none":
		return ipConfig{}, errNoAddress
	case "on", "any", "dhcp", "bootp", "rarp", "both":
		return ipConfig{}, fmt.Errorf("ip=%s: only fixed addresses are supported", word)
	}
	fields := strings.Split(word, ":")
	field := func(i int) string {
		if i < len(fields) {
			return fields[i]
		}
		return ""
	}
	var c ipConfig
	client, err := netip.ParseAddr(field(0))
	if err != nil || !client.Is4() {
		return c, fmt.Errorf("ip=%s: client address %q is not IPv4", word, field(0))
	}
	bits, err := parseMask(field(3), client)
	if err != nil {
		return c, fmt.Errorf("ip=%s: %w", word, err)
	}
	c.address = netip.PrefixFrom(client, bits)
	if g := field(2); g != "" {
		if c.gateway, err = netip.ParseAddr(g); err != nil || !c.gateway.Is4() {
			return c, fmt.Errorf("ip=%s: gateway %q is not IPv4", word, g)
		}
	}
	c.hostname, c.device = field(4), field(5)
	switch a := field(6); a {
	case "", "off", "none", "static":
	default:
		return c, fmt.Errorf("ip=%s: autoconf %q is not supported, only off", word, a)
	}
	for _, i := range []int{7, 8} {
		if s := field(i); s != "" {
			dns, err := netip.ParseAddr(s)
			if err != nil {
				return c, fmt.Errorf("ip=%s: name server %q is not an address", word, s)
			}
			c.nameServers = append(c.nameServers, dns)
		}
	}
	return c, nil
}

// parseMask returns the length of a netmask. Without one the kernel goes by the
// old classes, and so do we.
func parseMask(mask string, client netip.Addr) (int, error) {
	if mask == "" {
		switch b := client.As4()[0]; {
		case b < 128:
			return 8, nil
		case b < 192:
			return 16, nil
		default:
			return 24, nil
		}
	}
	m, err := netip.ParseAddr(mask)
	if err != nil || !m.Is4() {
		return 0, fmt.Errorf("netmask %q is not IPv4", mask)
	}
	b := m.As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	bits := 0
	for ; v&(1<<31) != 0; v <<= 1 {
		bits++
	}
	if v != 0 {
		return 0, fmt.Errorf("netmask %q has holes", mask)
	}
	return bits, nil
}
