package microvm_test

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/tangle-network/microvm"
)

func TestARuleIsReadAndWritten(t *testing.T) {
	t.Parallel()
	pfx := netip.MustParsePrefix
	for s, want := range map[string]microvm.EgressRule{
		"1.1.1.1/32:tcp:443":                {CIDR: pfx("1.1.1.1/32"), Protocol: "tcp", Ports: []microvm.PortRange{{First: 443}}},
		"10.0.0.0/8":                        {CIDR: pfx("10.0.0.0/8")},
		"10.0.0.0/8:icmp":                   {CIDR: pfx("10.0.0.0/8"), Protocol: "icmp"},
		"[2001:db8::]/32:udp:53,5000-5100":  {CIDR: pfx("2001:db8::/32"), Protocol: "udp", Ports: []microvm.PortRange{{First: 53}, {5000, 5100}}},
		"[::]/0":                            {CIDR: pfx("::/0")},
		"*.example.org:tcp:443":             {Domain: "*.example.org", Protocol: "tcp", Ports: []microvm.PortRange{{First: 443}}},
		"api.example.com":                   {Domain: "api.example.com"},
		"xn--bcher-kva.example:udp:1-65535": {Domain: "xn--bcher-kva.example", Protocol: "udp", Ports: []microvm.PortRange{{1, 65535}}},
	} {
		r, err := microvm.ParseEgressRule(s)
		if err != nil || !reflect.DeepEqual(r, want) {
			t.Errorf("%s: %+v, %v", s, r, err)
		}
		if r.String() != s {
			t.Errorf("%s became %s", s, r)
		}
	}
	for s, want := range map[string]string{"1.1.1.1": "1.1.1.1/32", "1.1.1.1:any": "1.1.1.1/32", "[::1]:tcp:80": "[::1]/128:tcp:80"} {
		if r, err := microvm.ParseEgressRule(s); err != nil || r.String() != want {
			t.Errorf("%s: %s, %v", s, r, err)
		}
	}
}

func TestAWrongRuleNamesTheField(t *testing.T) {
	t.Parallel()
	for s, field := range map[string]string{
		"":                                      "rule.cidr",
		"10.0.0.1/8":                            "rule.cidr",
		"10.0.0.0/33":                           "cidr",
		"10.0.0.0/8:":                           "rule",
		"10.0.0.0/8:sctp":                       "rule.protocol",
		"10.0.0.0/8:tcp:":                       "ports",
		"10.0.0.0/8:tcp:0":                      "ports",
		"10.0.0.0/8:tcp:65536":                  "ports",
		"10.0.0.0/8:tcp:90-80":                  "ports",
		"10.0.0.0/8:tcp:80,":                    "ports",
		"10.0.0.0/8:icmp:1":                     "rule.ports",
		"10.0.0.0/8:any:80":                     "rule.ports",
		"10.0.0.0/8:tcp:1:2":                    "rule",
		"2001:db8::/32":                         "rule",
		"[2001:db8::1]/32":                      "rule.cidr",
		"[::ffff:10.0.0.0]/104":                 "rule.cidr",
		"[fe80::1%eth0]/128":                    "cidr",
		"localhost":                             "rule.domain",
		"*":                                     "rule.domain",
		"*.com":                                 "rule.domain",
		"a.*.example.org":                       "rule.domain",
		"exa mple.org":                          "rule.domain",
		"-a.example.org":                        "rule.domain",
		"a..example.org":                        "rule.domain",
		"bücher.example":                        "rule.domain",
		strings.Repeat("a", 2000):               "rule",
		"a." + strings.Repeat("b", 64) + ".org": "rule.domain",
	} {
		_, err := microvm.ParseEgressRule(s)
		var f *microvm.FieldError
		if !errors.As(err, &f) || f.Field != field {
			t.Errorf("%.80q: %v", s, err)
		}
	}
}

func FuzzParseEgressRule(f *testing.F) {
	for _, s := range []string{"1.1.1.1/32:tcp:443", "[2001:db8::]/32:udp:53,5000-5100", "*.example.org", "[::]", "a:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := microvm.ParseEgressRule(s)
		if err != nil {
			return
		}
		again, err := microvm.ParseEgressRule(r.String())
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Errorf("%q: %+v became %q: %+v, %v", s, r, r, again, err)
		}
		if err := (microvm.Egress{Allow: []microvm.EgressRule{r}}).Validate(); err != nil {
			t.Errorf("%q was read, and is refused: %v", s, err)
		}
	})
}

func ExampleParseEgressRule() {
	for _, text := range []string{"*.example.org:tcp:443", "10.0.0.1/8"} {
		rule, err := microvm.ParseEgressRule(text)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(rule.Domain, rule.Protocol, rule.Ports)
	}
	// Output:
	// *.example.org tcp [{443 0}]
	// rule.cidr: "10.0.0.1/8" is not allowed: no bits behind the prefix: 10.0.0.0/8, or 10.0.0.1/32 for the one address
}
