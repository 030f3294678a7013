package microvm

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
)

// Limits of a network. They bound what one VM can cost the host in kernel memory.
const (
	MaxEgressRules = 1024 // of each of Egress.Allow and Egress.Deny
	MaxPortRanges  = 64   // of one rule
	MaxNameServers = 3    // Egress.DNS, as many as resolv.conf(5) takes
	MaxPublished   = 256  // ports of one VM
)

// Network gives the guest a network that the provider makes: an interface "eth0" with
// an address that is the same in every VM, behind an address of the VM's own on the
// host. It is closed: the host reaches the VM, and the VM reaches nothing but what
// Egress opens. The address of a VM is in its View.
type Network struct {
	// Mode is NetworkManaged (the default) or NetworkNone, for none. A restore can't
	// change it: the guest has the interface, or has not.
	Mode    NetworkMode     `json:"mode,omitempty"`
	Egress  Egress          `json:"egress,omitzero"`
	Publish []PublishedPort `json:"publish,omitempty"` // at most 256
	// Group lets VMs reach those of the same group, at their own addresses: 1 to 64
	// letters, digits, '.', '_' and '-'. Without, no VM reaches another.
	Group string `json:"group,omitempty"`
	// MaxConnections bounds the flows that the VM has at one time, in both directions;
	// 0 is no bound.
	MaxConnections int `json:"max_connections,omitempty"` // to 1,000,000
	// LogDropped reports what Egress drops, at most ten packets a second, to the log of
	// the program that has the VM.
	LogDropped  bool       `json:"log_dropped,omitempty"`
	MTU         int        `json:"mtu,omitempty"` // 68 to 1,500, which is the default
	RxRateLimit *RateLimit `json:"rx_rate_limit,omitempty"`
	TxRateLimit *RateLimit `json:"tx_rate_limit,omitempty"`
}

// NetworkMode is what makes a guest's network.
type NetworkMode string

// The modes. A TAP or bridge of the caller's own is a NetworkInterface, without a
// Network.
const (
	NetworkManaged NetworkMode = "managed"
	NetworkNone    NetworkMode = "none"
)

// ManagedNetwork is the spec's Network, or nil if the provider is to make none.
func (s Spec) ManagedNetwork() *Network {
	if s.Network == nil || s.Network.Mode == NetworkNone {
		return nil
	}
	return s.Network
}

// ManagedInterface is the id that the managed network's interface has in the VMM.
const ManagedInterface = "eth0"

// EgressAction is what happens to a packet that no rule names.
type EgressAction string

// The actions. The zero value is EgressDeny.
const (
	EgressDeny  EgressAction = "deny"
	EgressAllow EgressAction = "allow"
)

// Egress says what a VM may reach. The zero value is nothing at all.
//
// Deny is looked at first, then the rules of Allow that name something closed (below)
// exactly, then what is closed, then the rest of Allow, then Default. Flows that are
// established, and ICMP errors that belong to them, pass always.
//
// Closed, whatever Default says, are link-local addresses with the metadata services
// among them (169.254.0.0/16, fe80::/10), those of clouds that have them elsewhere,
// loopback, multicast and reserved addresses, the forms in which IPv6 carries IPv4
// addresses, the host's own addresses, networks of its bridges, and other VMs. A rule opens one of those when its CIDR lies within it:
// 169.254.169.254/32 opens that address, 0.0.0.0/0 does not. An address of the host, or
// of another VM, is opened by a rule for that one address.
type Egress struct {
	Default EgressAction `json:"default,omitempty"`
	Allow   []EgressRule `json:"allow,omitempty"`
	Deny    []EgressRule `json:"deny,omitempty"` // of CIDRs
	// DNS are the servers that names are asked of; by default the host's. The guest
	// itself asks its gateway, whatever is here.
	DNS []netip.Addr `json:"dns,omitempty"`
}

// EgressRule names destinations: a network, or a domain whose addresses are opened as
// they are resolved, for as long as the answer says. In JSON it is a string: see
// ParseEgressRule.
type EgressRule struct {
	CIDR     netip.Prefix // or
	Domain   string       // "api.example.com", or "*.example.org" for all names below it
	Protocol string       // "tcp", "udp", "icmp" or "" for any
	Ports    []PortRange  // none: all; with tcp and udp only
}

// PortRange has both ends in it; a single port has Last 0.
type PortRange struct{ First, Last uint16 }

// End is the last port of the range.
func (p PortRange) End() uint16 {
	if p.Last == 0 {
		return p.First
	}
	return p.Last
}

// PublishedPort is a port of the host that leads to one of the guest. In JSON it is a
// string: see ParsePublishedPort.
type PublishedPort struct {
	HostIP    netip.Addr // default: every address of the host
	HostPort  uint16
	GuestPort uint16
	Protocol  string // "tcp" (the default) or "udp"
}

// Proto is the protocol, with the default in its place.
func (p PublishedPort) Proto() string {
	if p.Protocol == "" {
		return "tcp"
	}
	return p.Protocol
}

// Validate returns every fault of the policy at once, joined: each is a *FieldError.
func (e Egress) Validate() error {
	v := &faults{}
	e.validate(v, "egress")
	return errors.Join(v.errs...)
}

// Validate returns every fault of the network at once, joined: each is a *FieldError.
func (n Network) Validate() error {
	v := &faults{}
	n.validate(v, nil)
	return errors.Join(v.errs...)
}

var groupName = regexp.MustCompile(`^[A-Za-z0-9._-]{0,64}$`)

func (n *Network) validate(v *faults, interfaces []NetworkInterface) {
	switch n.Mode {
	case "", NetworkManaged, NetworkNone:
	default:
		v.add("network.mode", n.Mode, `"managed" or "none"; for a TAP of your own: network_interfaces`)
	}
	n.Egress.validate(v, "network.egress")
	for i, p := range n.Publish {
		at := fmt.Sprintf("network.publish[%d]", i)
		p.validate(v, at)
		for j, q := range n.Publish[:min(i, MaxPublished)] {
			if p.HostPort == q.HostPort && p.Proto() == q.Proto() && (p.HostIP == q.HostIP || !p.HostIP.IsValid() || !q.HostIP.IsValid()) {
				v.add(at, p.String(), fmt.Sprintf("a host port once: publish[%d] has it", j))
				break
			}
		}
		if i == MaxPublished {
			v.add("network.publish", len(n.Publish), fmt.Sprintf("at most %d ports", MaxPublished))
			break
		}
	}
	if !groupName.MatchString(n.Group) {
		v.add("network.group", n.Group, "1 to 64 letters, digits, '.', '_' and '-'")
	}
	if n.MaxConnections < 0 || n.MaxConnections > 1_000_000 {
		v.add("network.max_connections", n.MaxConnections, "0 (no bound) to 1,000,000")
	}
	if n.MTU != 0 && (n.MTU < 68 || n.MTU > 1500) {
		v.add("network.mtu", n.MTU, "68 to 1,500")
	}
	v.rate("network.rx_rate_limit", n.RxRateLimit)
	v.rate("network.tx_rate_limit", n.TxRateLimit)
	if n.Mode != NetworkNone && len(interfaces) > 0 {
		v.add("network_interfaces", len(interfaces), "none beside a managed network, whose namespace has no TAPs of yours: leave one of the two out")
	}
}

func (p PublishedPort) validate(v *faults, at string) {
	if p.HostPort == 0 {
		v.add(at+".host_port", p.HostPort, "1 to 65,535")
	}
	if p.GuestPort == 0 {
		v.add(at+".guest_port", p.GuestPort, "1 to 65,535")
	}
	if p.Protocol != "" && p.Protocol != "tcp" && p.Protocol != "udp" {
		v.add(at+".protocol", p.Protocol, `"tcp" or "udp"`)
	}
	if ip := p.HostIP; ip.IsValid() && (ip.IsMulticast() || ip.IsUnspecified() || ip.Zone() != "" || ip.Is4In6()) {
		v.add(at+".host_ip", ip.String(), "one address of the host; left out: all of them")
	}
}

func (e Egress) validate(v *faults, at string) {
	switch e.Default {
	case "", EgressDeny, EgressAllow:
	default:
		v.add(at+".default", e.Default, `"deny" or "allow"`)
	}
	v.egressRules(at+".allow", e.Allow)
	v.egressRules(at+".deny", e.Deny)
	for i, r := range e.Deny {
		if r.Domain != "" {
			v.add(fmt.Sprintf("%s.deny[%d].domain", at, i), r.Domain, "a cidr: a name that is not allowed does not resolve, and needs no rule")
		}
	}
	if len(e.DNS) > MaxNameServers {
		v.add(at+".dns", len(e.DNS), fmt.Sprintf("at most %d servers", MaxNameServers))
	}
	for i, a := range e.DNS {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
			v.add(fmt.Sprintf("%s.dns[%d]", at, i), a.String(), "the address of a name server")
		}
	}
}
