package network

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
)

// Problem is something on the host that drops packets of VMs whatever our rules say.
type Problem struct {
	What   string
	Remedy string
}

// CheckHost finds what would keep VMs from the network beyond the host that the caller's
// thread is in: for IPv6 too if that is asked for. It changes nothing.
func CheckHost(ipv6 bool) ([]Problem, error) {
	s, err := openNF()
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	defer s.close()
	c, err := s.conn()
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	return checkHost(c, ipv6)
}

// checkHost is CheckHost with a connection to the nftables of the host that the thread
// is in.
func checkHost(c *nftables.Conn, ipv6 bool) ([]Problem, error) {
	var out []Problem
	forward := [][2]string{{"net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"}}
	if ipv6 {
		forward = append(forward, [2]string{"net.ipv6.conf.all.forwarding", "/proc/sys/net/ipv6/conf/all/forwarding"})
	}
	for _, f := range forward {
		b, err := os.ReadFile(f[1])
		if err != nil {
			return nil, fmt.Errorf("network: %w", err)
		}
		if strings.TrimSpace(string(b)) == "0" {
			out = append(out, Problem{f[0] + " is 0: the host passes no packets on", "sysctl -w " + f[0] + "=1, and a line in /etc/sysctl.d for the next boot"})
		}
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("network: list the chains of the host: %w", err)
	}
	for _, ch := range chains {
		if !dropsForward(ch, ipv6) {
			continue
		}
		ours, err := namesOurLinks(c, ch, chains)
		if err != nil {
			return nil, fmt.Errorf("network: %w", err)
		}
		if !ours {
			out = append(out, Problem{
				fmt.Sprintf("chain %s of the host's table %s %s has the policy drop, and no rule for our links", ch.Name, familyName(ch.Table.Family), ch.Table.Name),
				fmt.Sprintf("let them pass: iptables -I %s -i '%s+' -j ACCEPT; iptables -I %s -o '%s+' -j ACCEPT; or the same with nft, for iifname and oifname \"%s*\"", ch.Name, linkPrefix, ch.Name, linkPrefix, linkPrefix),
			})
		}
	}
	return out, nil
}

func dropsForward(ch *nftables.Chain, ipv6 bool) bool {
	if ch.Hooknum == nil || *ch.Hooknum != *nftables.ChainHookForward || ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop {
		return false
	}
	switch ch.Table.Family {
	case nftables.TableFamilyIPv4, nftables.TableFamilyINet:
		return true
	case nftables.TableFamilyIPv6:
		return ipv6
	}
	return false
}

// namesOurLinks says whether a chain, or one that it leads to, has a rule about links
// with our prefix: what it says about them is the administrator's business.
func namesOurLinks(c *nftables.Conn, ch *nftables.Chain, all []*nftables.Chain) (bool, error) {
	for _, other := range all {
		if other.Table.Name != ch.Table.Name || other.Table.Family != ch.Table.Family || other.Hooknum != nil && other != ch {
			continue
		}
		rules, err := c.GetRules(other.Table, other)
		if err != nil {
			return false, fmt.Errorf("read chain %s of table %s: %w", other.Name, other.Table.Name, err)
		}
		for _, r := range rules {
			for _, e := range r.Exprs {
				if cmp, ok := e.(*expr.Cmp); ok && bytes.HasPrefix(cmp.Data, []byte(linkPrefix)) {
					return true, nil
				}
			}
		}
	}
	return false, nil
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	}
	return "inet"
}

// checkHost refuses a VM whose packets would be dropped beyond our reach, and one
// whose names nobody could be asked for.
func (m *Manager) checkHost(o microvm.Network) error {
	e := o.Egress
	if len(e.DNS) == 0 && slices.ContainsFunc(e.Allow, func(r microvm.EgressRule) bool { return r.Domain != "" }) {
		if _, err := hostServers(m.cfg.ResolvConf); err != nil {
			return &microvm.FieldError{Field: "network.egress.dns", Value: "none", Rule: "name servers, since the host has none for the names that are allowed: " + err.Error(), Err: err}
		}
	}
	if e.Default != microvm.EgressAllow && len(e.Allow) == 0 && len(o.Publish) == 0 {
		return nil // nothing is to pass
	}
	c, done, err := m.nft()
	if err != nil {
		return err
	}
	defer done()
	var problems []Problem
	err = netns.Inside(m.hostPath(), func() (err error) {
		problems, err = checkHost(c, m.cfg.IPv6)
		return err
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range problems {
		errs = append(errs, fmt.Errorf("%w would drop the VM's packets: %s (%s)", microvm.ErrHost, p.What, p.Remedy))
	}
	return errors.Join(errs...)
}
