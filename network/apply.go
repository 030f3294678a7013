package network

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// nflogGroup is where dropped packets are logged to, within the namespace.
const nflogGroup = 1

// occasion is when a policy is set.
type occasion int

const (
	noVM   occasion = iota // nothing is in the namespace that could send
	mended                 // the rules were lost
	update                 // the limits, in which connections are counted, stay
)

// setPolicy makes the sets and the chain of a policy and, when they are whole,
// switches over to them. It is two transactions where a VM may run: a set that is
// filled in the one that begins to use it is seen empty for an instant, and no packet may
// meet half a policy. What an earlier call has left behind goes too.
func setPolicy(c *nftables.Conn, p compiled, when occasion) error {
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	old, err := oldPolicies(c, t)
	if err != nil {
		return err
	}
	gen := "_" + strconv.FormatInt(time.Now().UnixNano(), 36)
	resolved, err := stillAllowed(c, old, p.domains)
	if err != nil {
		return err
	}

	ch := c.AddChain(&nftables.Chain{Table: t, Name: "policy" + gen})
	add := func(ch *nftables.Chain, parts ...match) {
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: rule(parts...)})
	}
	id := uint32(0) // see newHostTable
	addSet := func(s *nftables.Set, elems []nftables.SetElement) error {
		id++
		s.Table, s.Name, s.ID = t, s.Name+gen, id
		return makeSet(c, s, elems)
	}
	for _, s := range p.steps {
		for _, six := range []bool{false, true} {
			boxes := s.v4
			if six {
				boxes = s.v6
			}
			if len(boxes) == 0 {
				continue
			}
			set := &nftables.Set{Name: s.name + version(six), KeyType: boxKey(six), Interval: true, Concatenation: true}
			if err := addSet(set, boxElements(boxes)); err != nil {
				return err
			}
			to := goTo("tx_no")
			if s.pass {
				to = goTo("tx_ok")
			}
			add(ch, family(six), box4or6(six), in(set), to)
		}
	}
	for i, s := range p.domains {
		ports := &nftables.Set{Name: "ports" + s.id, KeyType: portKey, Interval: true, Concatenation: true}
		if err := addSet(ports, portElements(s.ports)); err != nil {
			return err
		}
		for _, six := range []bool{false, true} {
			set := &nftables.Set{Name: s.resolvedIn(six), KeyType: addrKey(six), HasTimeout: true, Size: uint32(maxResolved / len(p.domains))}
			elems := resolved[i][six]
			if err := addSet(set, elems[:min(len(elems), int(set.Size))]); err != nil {
				return err
			}
			add(ch, family(six), daddr(six, reg0), in(set), meta(expr.MetaKeyL4PROTO, reg0), dport(reg1), in(ports), goTo("tx_ok"))
		}
	}
	if p.open {
		add(ch, goTo("tx_ok"))
	}
	if when != noVM {
		if err := c.Flush(); err != nil {
			return fmt.Errorf("write the policy's sets: %w", err)
		}
	}

	chain := func(name string) *nftables.Chain { return &nftables.Chain{Table: t, Name: name} }
	c.FlushChain(chain("policy"))
	add(chain("policy"), goTo(ch.Name))
	c.FlushChain(chain("shut"))
	if when != update {
		// What is taken away costs ten milliseconds, so new slots have nothing in these.
		limit, log, gate := chain("limit"), chain("log"), chain("gate")
		for _, ch := range []*nftables.Chain{limit, log, gate} {
			c.FlushChain(ch)
		}
		if !p.shut {
			add(gate, goTo("rx_ok"))
		}
		if p.conns > 0 {
			add(limit, match{&expr.Connlimit{Count: p.conns, Flags: expr.NFT_CONNLIMIT_F_INV}}, count(cntTxDropped), drop())
		}
		if p.log {
			add(log, match{
				&expr.Limit{Type: expr.LimitTypePkts, Rate: 10, Unit: expr.LimitTimeSecond, Burst: 20},
				&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN, Group: nflogGroup, Snaplen: 96},
			})
		}
	}
	for _, ch := range old.chains {
		c.FlushChain(ch)
		c.DelChain(ch)
	}
	for _, set := range old.sets {
		c.DelSet(set)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("switch to the new policy: %w", err)
	}
	return nil
}

// policies are the chains and sets of policies that are in a namespace.
type policies struct {
	chains []*nftables.Chain
	sets   []*nftables.Set
}

// resolvedSet begins the names of sets of resolved addresses. They go on by what the
// addresses are opened for, so that nobody who has seen another policy takes one for
// another.
const resolvedSet = "resolved"

func (s shape) resolvedIn(six bool) string { return resolvedSet + s.id + version(six) }

// maxResolved bounds the resolved addresses of a VM, of either family.
const maxResolved = 8192

func oldPolicies(c *nftables.Conn, t *nftables.Table) (policies, error) {
	var out policies
	chains, err := c.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return out, fmt.Errorf("list chains: %w", err)
	}
	for _, ch := range chains {
		if ch.Table.Name == t.Name && strings.HasPrefix(ch.Name, "policy_") {
			out.chains = append(out.chains, ch)
		}
	}
	if out.sets, err = c.GetSets(t); err != nil {
		return out, fmt.Errorf("list sets: %w", err)
	}
	return out, nil
}

// stillAllowed are the resolved addresses that go over into a new policy: for each
// shape those of the domains that it names, with the time that they have left.
func stillAllowed(c *nftables.Conn, old policies, domains []shape) ([]map[bool][]nftables.SetElement, error) {
	out := make([]map[bool][]nftables.SetElement, len(domains))
	for i := range out {
		out[i] = map[bool][]nftables.SetElement{}
	}
	if len(domains) == 0 {
		return out, nil
	}
	for _, set := range old.sets {
		if !strings.HasPrefix(set.Name, resolvedSet) {
			continue
		}
		elems, err := c.GetSetElements(set)
		if err != nil {
			return nil, fmt.Errorf("read set %s: %w", set.Name, err)
		}
		for _, e := range elems {
			for i, s := range domains {
				six := len(e.Key) == 16
				if !s.names(e.Comment) || slices.ContainsFunc(out[i][six], func(o nftables.SetElement) bool { return string(o.Key) == string(e.Key) }) {
					continue
				}
				out[i][six] = append(out[i][six], nftables.SetElement{Key: e.Key, Timeout: max(e.Expires, time.Second), Comment: e.Comment})
			}
		}
	}
	return out, nil
}

func version(six bool) string {
	if six {
		return "6"
	}
	return "4"
}

func addrKey(six bool) nftables.SetDatatype {
	if six {
		return nftables.TypeIP6Addr
	}
	return nftables.TypeIPAddr
}

func boxKey(six bool) nftables.SetDatatype {
	return nftables.MustConcatSetType(addrKey(six), nftables.TypeInetProto, nftables.TypeInetService)
}

// portKey is what domains are opened for.
var portKey = nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)

// box4or6 loads a packet's address, protocol and port as boxes have them. Of what has
// no ports the bytes in their place are loaded, and a box for it has all of them.
func box4or6(six bool) match {
	if six {
		return rule(daddr(true, reg0), meta(expr.MetaKeyL4PROTO, reg4), dport(reg5))
	}
	return rule(daddr(false, reg0), meta(expr.MetaKeyL4PROTO, reg1), dport(reg2))
}

func boxElements(boxes []box) []nftables.SetElement {
	out := make([]nftables.SetElement, 0, len(boxes))
	for _, b := range boxes {
		end := func(i int) []byte {
			return key(b.addr[i].AsSlice(), []byte{b.proto[i]}, be16(b.port[i]))
		}
		out = append(out, nftables.SetElement{Key: end(0), KeyEnd: end(1)})
	}
	return out
}

func portElements(boxes []box) []nftables.SetElement {
	out := make([]nftables.SetElement, 0, len(boxes))
	for _, b := range boxes {
		end := func(i int) []byte { return key([]byte{b.proto[i]}, be16(b.port[i])) }
		out = append(out, nftables.SetElement{Key: end(0), KeyEnd: end(1)})
	}
	return out
}

// errTooManyResolved means that what a VM may have open by name is full.
var errTooManyResolved = errors.New("too many addresses are resolved: some must expire")

// openResolved lets the policy pass addresses that a domain was resolved to. It asks
// for the policy after it has seen the sets: a policy is written down before it is in
// the kernel, so that what it says of the domain is no older than the sets. It begins
// again if they are replaced meanwhile.
func openResolved(c *nftables.Conn, policy func() (compiled, error), domain string, addrs []netip.Addr, ttl time.Duration) error {
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	for {
		sets, err := c.GetSets(t)
		if err != nil {
			return fmt.Errorf("list sets: %w", err)
		}
		p, err := policy()
		if err != nil {
			return err
		}
		for _, s := range p.domains {
			if !s.names(domain) {
				continue
			}
			for _, six := range []bool{false, true} {
				var elems []nftables.SetElement
				for _, a := range addrs {
					if a.Is6() == six {
						elems = append(elems, nftables.SetElement{Key: a.AsSlice(), Timeout: ttl, Comment: domain})
					}
				}
				i := slices.IndexFunc(sets, func(set *nftables.Set) bool { return strings.HasPrefix(set.Name, s.resolvedIn(six)+"_") })
				if len(elems) == 0 || i < 0 {
					continue
				}
				// An element that is there keeps its old time: it goes first.
				if err := errors.Join(addElements(c, sets[i], elems), deleteElements(c, sets[i], elems), addElements(c, sets[i], elems)); err != nil {
					return err
				}
			}
		}
		err = c.Flush()
		if errors.Is(err, unix.ENFILE) {
			return errTooManyResolved
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		now, lerr := c.GetSets(t)
		if lerr != nil {
			return fmt.Errorf("list sets: %w", lerr)
		}
		if slices.EqualFunc(sets, now, func(a, b *nftables.Set) bool { return a.Name == b.Name }) {
			return err
		}
	}
}

// names says whether one of the shape's domains is the name, or the name lies below
// one that begins with "*.".
func (s shape) names(name string) bool {
	return slices.ContainsFunc(s.domains, func(d string) bool { return domainMatches(d, name) })
}

func domainMatches(pattern, name string) bool {
	pattern, name = strings.ToLower(pattern), strings.ToLower(name)
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return len(name) > len(suffix) && strings.HasSuffix(name, suffix)
	}
	return pattern == name
}
