package fcemu

import (
	"strconv"
	"strings"
)

// defaultMMDSAddress is where the metadata service answers unless told
// otherwise.
const defaultMMDSAddress = "169.254.169.254"

// setMAC takes six pairs of hex digits with colons, and keeps them in lower
// case.
func setMAC(to *string) func(*node) error {
	return func(n *node) error {
		var s string
		if err := setString(&s)(n); err != nil {
			return err
		}
		parts := strings.Split(s, ":")
		ok := len(parts) == 6
		for _, p := range parts {
			_, err := strconv.ParseUint(p, 16, 8)
			ok = ok && len(p) == 2 && err == nil
		}
		if !ok {
			return &jsonError{"Invalid MAC address: " + s, n.end}
		}
		*to = strings.ToLower(s)
		return nil
	}
}

func parseIPv4(s string) (addr [4]byte, ok bool) {
	parts := strings.Split(s, ".")
	if len(parts) != 4 {
		return addr, false
	}
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 8)
		if err != nil || len(p) > 1 && p[0] == '0' || p[0] == '+' {
			return addr, false
		}
		addr[i] = byte(v)
	}
	return addr, true
}

func setIPv4(to *string) func(*node) error {
	return func(n *node) error {
		var s string
		if err := setString(&s)(n); err != nil {
			return err
		}
		if _, ok := parseIPv4(s); !ok {
			return &jsonError{"invalid IPv4 address syntax", n.end}
		}
		*to = s
		return nil
	}
}

// linkLocal is the range of RFC 3927 that may be assigned: 169.254.1.0 to
// 169.254.254.255.
func linkLocal(s string) bool {
	a, ok := parseIPv4(s)
	return ok && a[0] == 169 && a[1] == 254 && a[2] >= 1 && a[2] <= 254
}
