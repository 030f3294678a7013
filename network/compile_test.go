package network

import (
	"net/netip"
	"testing"

	"github.com/tangle-network/microvm"
)

var around = surroundings{
	pools:  []netip.Prefix{netip.MustParsePrefix("10.111.0.0/16"), netip.MustParsePrefix("fd6d:7670:6e65::/64")},
	guests: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/30")},
}

func rules(t testing.TB, ss ...string) (out []microvm.EgressRule) {
	t.Helper()
	for _, s := range ss {
		r, err := microvm.ParseEgressRule(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func TestAPolicyDecides(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy microvm.Egress
		group  bool
		pass   []string // ADDRESS PROTOCOL PORT
		stop   []string
	}{
		"the zero value is closed": {stop: []string{"1.1.1.1:tcp:443", "10.111.0.3:tcp:80", "[2606:4700::1111]:tcp:443"}},
		"a rule opens what it names and nothing else": {
			policy: microvm.Egress{Allow: rules(t, "1.1.1.1/32:tcp:443,8000-8010", "[2001:db8::]/32:udp")},
			pass:   []string{"1.1.1.1:tcp:443", "1.1.1.1:tcp:8000", "1.1.1.1:tcp:8010", "[2001:db8::9]:udp:1"},
			stop:   []string{"1.1.1.1:tcp:444", "1.1.1.1:udp:443", "1.1.1.2:tcp:443", "1.1.1.1:tcp:8011", "[2001:db8::9]:tcp:1"},
		},
		"an open default leaves closed what is never open": {
			policy: microvm.Egress{Default: microvm.EgressAllow},
			pass:   []string{"1.1.1.1:tcp:443", "8.8.8.8:udp:53", "[2606:4700::1111]:tcp:443"},
			stop: []string{"169.254.169.254:tcp:80", "127.0.0.1:tcp:80", "10.111.3.4:tcp:22", "172.30.0.1:tcp:22", "0.0.0.0:tcp:80", "224.0.0.1:udp:5353", "255.255.255.255:udp:67",
				"[fe80::1]:tcp:80", "[64:ff9b::a9fe:a9fe]:tcp:80", "[2002:a9fe:a9fe::1]:tcp:80", "[::a9fe:a9fe]:tcp:80", "[fd00:ec2::254]:tcp:80", "[::1]:tcp:80"},
		},
		"a wide rule names nothing closed": {
			policy: microvm.Egress{Allow: rules(t, "0.0.0.0/0", "[::]/0", "169.0.0.0/8", "10.0.0.0/8", "[64:ff9b::]/64")},
			pass:   []string{"1.1.1.1:tcp:443", "169.1.1.1:tcp:80", "10.110.0.1:tcp:1"},
			stop:   []string{"169.254.169.254:tcp:80", "10.111.0.3:tcp:1", "[64:ff9b::a9fe:a9fe]:tcp:80"},
		},
		"an exact rule opens what is closed": {
			policy: microvm.Egress{Allow: rules(t, "169.254.169.254/32:tcp:80", "10.111.0.3/32", "[64:ff9b::]/96")},
			pass:   []string{"169.254.169.254:tcp:80", "10.111.0.3:tcp:1", "[64:ff9b::a9fe:a9fe]:tcp:80"},
			stop:   []string{"169.254.169.254:tcp:81", "169.254.169.253:tcp:80", "10.111.0.5:tcp:1"},
		},
		"deny goes before allow": {
			policy: microvm.Egress{Default: microvm.EgressAllow, Allow: rules(t, "10.0.0.0/8", "169.254.169.254/32"), Deny: rules(t, "10.1.0.0/16:tcp", "169.254.0.0/16")},
			pass:   []string{"10.1.0.1:udp:1", "10.2.0.1:tcp:1"},
			stop:   []string{"10.1.0.1:tcp:1", "169.254.169.254:tcp:80"},
		},
		"a group opens the pool, and the host says to whom": {
			policy: microvm.Egress{}, group: true,
			pass: []string{"10.111.0.3:tcp:1"},
			stop: []string{"10.112.0.3:tcp:1"},
		},
		"who is bound to names has no other resolver": {
			policy: microvm.Egress{Default: microvm.EgressAllow, Allow: rules(t, "*.example.org", "8.8.8.8/32")},
			pass:   []string{"8.8.8.8:tcp:443", "1.1.1.1:udp:443"},
			stop:   []string{"8.8.8.8:udp:53", "1.1.1.1:tcp:53", "1.1.1.1:tcp:853", "1.1.1.1:udp:853", "[2001:db8::1]:udp:53"},
		},
		"overlapping rules": {
			policy: microvm.Egress{Allow: rules(t, "10.0.0.0/8:tcp:80", "10.1.0.0/16", "10.1.2.3/32:tcp:80-90", "0.0.0.0/0:tcp:85")},
			pass:   []string{"10.9.0.1:tcp:80", "10.1.0.1:udp:1", "10.1.2.3:tcp:90", "9.9.9.9:tcp:85"},
			stop:   []string{"10.9.0.1:tcp:81", "9.9.9.9:tcp:80"},
		},
	} {
		s := around
		s.group = c.group
		got, err := compile(c.policy, s)
		must(t, err)
		for want, list := range map[bool][]string{true: c.pass, false: c.stop} {
			for _, dest := range list {
				r, err := microvm.ParseEgressRule(dest)
				if err != nil {
					t.Fatal(err)
				}
				if pass := got.passes(r.CIDR.Addr(), protocolOf(r)[0], r.Ports[0].First); pass != want {
					t.Errorf("%s: %s passes: %v", name, dest, pass)
				}
			}
		}
	}
}

func TestDomainsWithTheSamePortsShareASet(t *testing.T) {
	t.Parallel()
	c, err := compile(microvm.Egress{Allow: rules(t, "a.example.org:tcp:443", "b.example.org:tcp:443", "c.example.org")}, around)
	must(t, err)
	if len(c.domains) != 2 || len(c.domains[0].domains) != 2 {
		t.Errorf("%+v", c.domains)
	}
}
