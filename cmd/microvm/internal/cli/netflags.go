package cli

import (
	"errors"
	"net/netip"

	"github.com/spf13/pflag"

	"github.com/tangle-network/microvm"
)

// netFlags are the flags of create, run and restore that describe a managed network.
type netFlags struct {
	net         bool
	allow       []string
	allowDomain []string
	deny        []string
	allowAll    bool
	dns         []string
	publish     []string
	group       string
	connections int
	logDropped  bool
}

func (f *netFlags) register(set *pflag.FlagSet) {
	set.BoolVar(&f.net, "net", false, "give the guest a network, closed but for what --allow opens; the other network flags imply it")
	set.StringArrayVar(&f.allow, "allow", nil, "let the guest reach this: CIDR or DOMAIN[:tcp|udp|icmp|any[:PORTS]], such as 1.1.1.1/32:tcp:443 (repeatable)")
	set.StringArrayVar(&f.allowDomain, "allow-domain", nil, "the same for a name, such as api.example.com or *.example.org:tcp:443 (repeatable)")
	set.StringArrayVar(&f.deny, "deny", nil, "never let the guest reach this CIDR[:PROTOCOL[:PORTS]] (repeatable)")
	set.BoolVar(&f.allowAll, "allow-all", false, "let the guest reach all but the host, other VMs and metadata services")
	set.StringArrayVar(&f.dns, "dns", nil, "name server that the guest's queries are passed to (repeatable; default: the host's)")
	set.StringArrayVarP(&f.publish, "publish", "p", nil, "lead a port of the host to the guest: [HOST-IP:]HOST-PORT:GUEST-PORT[/udp] (repeatable)")
	set.StringVar(&f.group, "net-group", "", "let VMs of this group reach each other")
	set.IntVar(&f.connections, "max-connections", 0, "flows that the guest may have at one time")
	set.BoolVar(&f.logDropped, "log-dropped", false, "log what the guest was not let through with, while the program runs")
}

// apply lays the flags over a spec's network.
func (f *netFlags) apply(set *pflag.FlagSet, n **microvm.Network) (faults []error) {
	given := set.Changed
	if given("net") && !f.net {
		*n = nil
		return nil
	}
	any := false
	for _, name := range []string{"net", "allow", "allow-domain", "deny", "allow-all", "dns", "publish", "net-group", "max-connections", "log-dropped"} {
		any = any || given(name)
	}
	if !any {
		return nil
	}
	if *n == nil {
		*n = &microvm.Network{}
	}
	e := &(*n).Egress
	rules := func(flag string, texts []string, to *[]microvm.EgressRule) {
		for _, text := range texts {
			r, err := microvm.ParseEgressRule(text)
			if err != nil {
				faults = append(faults, flagFault("--"+flag, text, ruleOf(err)))
				continue
			}
			if flag == "allow-domain" && r.Domain == "" {
				faults = append(faults, flagFault("--"+flag, text, "a name; a network is --allow"))
			}
			*to = append(*to, r)
		}
	}
	rules("allow", f.allow, &e.Allow)
	rules("allow-domain", f.allowDomain, &e.Allow)
	rules("deny", f.deny, &e.Deny)
	if given("allow-all") {
		e.Default = microvm.EgressDeny
		if f.allowAll {
			e.Default = microvm.EgressAllow
		}
	}
	if given("dns") {
		e.DNS = nil
	}
	for _, text := range f.dns {
		a, err := netip.ParseAddr(text)
		if err != nil {
			faults = append(faults, flagFault("--dns", text, "the address of a name server"))
			continue
		}
		e.DNS = append(e.DNS, a)
	}
	for _, text := range f.publish {
		p, err := microvm.ParsePublishedPort(text)
		if err != nil {
			faults = append(faults, flagFault("--publish", text, ruleOf(err)))
			continue
		}
		(*n).Publish = append((*n).Publish, p)
	}
	if given("net-group") {
		(*n).Group = f.group
	}
	if given("max-connections") {
		(*n).MaxConnections = f.connections
	}
	if given("log-dropped") {
		(*n).LogDropped = f.logDropped
	}
	return faults
}

// ruleOf is what a parser's error asks for; the flag says the rest.
func ruleOf(err error) string {
	var f *microvm.FieldError
	if errors.As(err, &f) {
		return f.Rule
	}
	return err.Error()
}
