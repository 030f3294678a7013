package microvm

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

func (v *faults) egressRules(list string, rules []EgressRule) {
	if len(rules) > MaxEgressRules {
		v.add(list, len(rules), fmt.Sprintf("at most %d rules", MaxEgressRules))
		return
	}
	for i, r := range rules {
		v.egressRule(fmt.Sprintf("%s[%d]", list, i), r)
	}
}

func (v *faults) egressRule(at string, r EgressRule) {
	switch {
	case r.Domain != "" && r.CIDR.IsValid():
		v.add(at, r.Domain, "a cidr or a domain, not both")
	case r.Domain != "":
		if why := checkDomain(r.Domain); why != "" {
			v.add(at+".domain", r.Domain, why)
		}
	case !r.CIDR.IsValid():
		v.add(at+".cidr", r.CIDR.String(), "a network such as 10.0.0.0/8, 1.1.1.1/32 or 2001:db8::/32")
	case r.CIDR.Addr().Is4In6():
		v.add(at+".cidr", r.CIDR.String(), "an IPv4 network is written as one: 10.0.0.0/8")
	case r.CIDR != r.CIDR.Masked():
		one := netip.PrefixFrom(r.CIDR.Addr(), r.CIDR.Addr().BitLen())
		v.add(at+".cidr", r.CIDR.String(), fmt.Sprintf("no bits behind the prefix: %v, or %v for the one address", r.CIDR.Masked(), one))
	}
	switch r.Protocol {
	case "", "tcp", "udp", "icmp":
	default:
		v.add(at+".protocol", r.Protocol, `"tcp", "udp", "icmp", or nothing for any`)
	}
	if len(r.Ports) > 0 && r.Protocol != "tcp" && r.Protocol != "udp" {
		v.add(at+".ports", len(r.Ports), "ports need the protocol tcp or udp")
	}
	if len(r.Ports) > MaxPortRanges {
		v.add(at+".ports", len(r.Ports), fmt.Sprintf("at most %d ranges", MaxPortRanges))
		return
	}
	for i, p := range r.Ports {
		if p.First == 0 || p.End() < p.First {
			v.add(fmt.Sprintf("%s.ports[%d]", at, i), fmt.Sprintf("%d-%d", p.First, p.Last), "1 to 65,535, the first not above the last")
		}
	}
}

// checkDomain says what is wrong with a name, or "". RFC 1123, with a first label "*"
// for all names below. A single label is no public name, and a lone "*" would be all.
func checkDomain(d string) string {
	const rule = `a name such as "api.example.com", or "*.example.org" for all names below it`
	name := strings.TrimPrefix(d, "*.")
	if len(name) > 253 || !strings.Contains(name, ".") {
		return rule
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "a name: an address is a cidr, " + name + "/32"
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return rule
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return rule + "; names with other letters in their xn-- form"
			}
		}
	}
	return ""
}

// ParseEgressRule reads what EgressRule.String writes: DESTINATION[:PROTOCOL[:PORTS]].
// The destination is a network, an address or a domain; ports are numbers and ranges
// with commas between them. An IPv6 network stands in brackets. Errors are *FieldError.
//
//	1.1.1.1/32:tcp:443
//	10.0.0.0/8
//	[2001:db8::]/32:udp:53,5000-5100
//	*.example.org:tcp:443
func ParseEgressRule(s string) (EgressRule, error) {
	bad := func(field, value, rule string) (EgressRule, error) {
		return EgressRule{}, &FieldError{Field: field, Value: fmt.Sprintf("%.80q", value), Rule: rule}
	}
	if len(s) > 1024 {
		return bad("rule", s, "at most 1,024 bytes")
	}
	var r EgressRule
	dest, rest := s, ""
	if inner, after, ok := strings.Cut(strings.TrimPrefix(s, "["), "]"); ok && strings.HasPrefix(s, "[") {
		bits, more, cut := strings.Cut(after, ":")
		dest, rest = inner+bits, more
		if cut && more == "" {
			return bad("protocol", "", `"tcp", "udp" or "icmp" after the colon`)
		}
	} else if before, after, cut := strings.Cut(s, ":"); cut {
		if strings.Count(s, ":") > 2 || after == "" {
			return bad("rule", s, "DESTINATION[:PROTOCOL[:PORTS]]; an IPv6 network stands in brackets, as [2001:db8::]/32")
		}
		dest, rest = before, after
	}
	switch p, err := netip.ParsePrefix(dest); {
	case err == nil:
		r.CIDR = p
	case !strings.Contains(dest, "/"):
		if a, aerr := netip.ParseAddr(dest); aerr == nil && a.Zone() == "" {
			r.CIDR = netip.PrefixFrom(a, a.BitLen())
		} else {
			r.Domain = dest
		}
	default:
		return bad("cidr", dest, "a network such as 10.0.0.0/8")
	}
	proto, ports, hasPorts := strings.Cut(rest, ":")
	if r.Protocol = proto; proto == "any" {
		r.Protocol = ""
	}
	if hasPorts {
		for part := range strings.SplitSeq(ports, ",") {
			p, err := parsePorts(part)
			if err != nil {
				return EgressRule{}, err
			}
			r.Ports = append(r.Ports, p)
		}
	}
	v := &faults{}
	v.egressRule("rule", r)
	if len(v.errs) > 0 {
		return EgressRule{}, v.errs[0]
	}
	return r, nil
}

func parsePorts(s string) (PortRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	a, err := strconv.ParseUint(first, 10, 16)
	var b uint64
	if err == nil && isRange {
		b, err = strconv.ParseUint(last, 10, 16)
	}
	if err != nil || a == 0 || isRange && b < a {
		return PortRange{}, &FieldError{Field: "ports", Value: fmt.Sprintf("%.80q", s), Rule: "1 to 65,535, or a range such as 5000-5100"}
	}
	return PortRange{uint16(a), uint16(b)}, nil
}

// String is the rule as ParseEgressRule reads it.
func (r EgressRule) String() string {
	var b strings.Builder
	switch {
	case r.Domain != "":
		b.WriteString(r.Domain)
	case r.CIDR.Addr().Is6():
		fmt.Fprintf(&b, "[%v]/%d", r.CIDR.Addr(), r.CIDR.Bits())
	default:
		b.WriteString(r.CIDR.String())
	}
	if r.Protocol != "" {
		b.WriteString(":" + r.Protocol)
	}
	for i, p := range r.Ports {
		sep := ","
		if i == 0 {
			sep = ":"
		}
		fmt.Fprintf(&b, "%s%d", sep, p.First)
		if p.Last != 0 {
			fmt.Fprintf(&b, "-%d", p.Last)
		}
	}
	return b.String()
}

// ParsePublishedPort reads [HOST-IP:]HOST-PORT:GUEST-PORT[/PROTOCOL], with an IPv6
// address in brackets. Errors are *FieldError.
func ParsePublishedPort(s string) (PublishedPort, error) {
	bad := func(rule string) (PublishedPort, error) {
		return PublishedPort{}, &FieldError{Field: "publish", Value: fmt.Sprintf("%.80q", s), Rule: rule}
	}
	const form = "[HOST-IP:]HOST-PORT:GUEST-PORT[/tcp or /udp], such as 8080:80 or 127.0.0.1:5353:53/udp"
	if len(s) > 256 {
		return bad(form)
	}
	var p PublishedPort
	rest, proto, ok := strings.Cut(s, "/")
	if p.Protocol = proto; ok && proto == "" {
		return bad(form)
	}
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return bad(form)
	}
	host, guest := rest[:i], rest[i+1:]
	if j := strings.LastIndexByte(host, ':'); j >= 0 {
		ip, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host[:j], "["), "]"))
		if err != nil || ip.Is6() != strings.HasPrefix(host, "[") {
			return bad(form)
		}
		p.HostIP, host = ip, host[j+1:]
	}
	a, err := strconv.ParseUint(host, 10, 16)
	b, err2 := strconv.ParseUint(guest, 10, 16)
	if err != nil || err2 != nil {
		return bad(form)
	}
	p.HostPort, p.GuestPort = uint16(a), uint16(b)
	v := &faults{}
	p.validate(v, "publish")
	if len(v.errs) > 0 {
		return PublishedPort{}, v.errs[0]
	}
	return p, nil
}

// String is the port as ParsePublishedPort reads it.
func (p PublishedPort) String() string {
	ports := fmt.Sprintf("%d:%d", p.HostPort, p.GuestPort)
	if p.HostIP.IsValid() {
		ports = netip.AddrPortFrom(p.HostIP, p.HostPort).String() + fmt.Sprintf(":%d", p.GuestPort)
	}
	if p.Protocol != "" {
		ports += "/" + p.Protocol
	}
	return ports
}

// MarshalText is String.
func (p PublishedPort) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is ParsePublishedPort.
func (p *PublishedPort) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePublishedPort(string(b))
	return err
}

// MarshalText is String.
func (r EgressRule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseEgressRule.
func (r *EgressRule) UnmarshalText(b []byte) (err error) {
	*r, err = ParseEgressRule(string(b))
	return err
}
