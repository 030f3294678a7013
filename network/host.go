package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
)

// hostTable is our table on the host: a fixed number of rules, and sets that have an
// element or two for each VM. All lookups are hashes.
//
// What it drops nobody else lets pass; what it accepts others may still drop.
type hostTable struct {
	t          *nftables.Table
	links      *nftables.Set    // host ends
	vms        [2]*nftables.Set // host end . VM's address
	addrs      [2]*nftables.Set // VMs' addresses
	named      [2]*nftables.Set // VM . address of the host or of another VM that its policy names
	published  [2]*nftables.Set // address . protocol . port → VM . port
	everywhere [2]*nftables.Set // protocol . port → VM . port, on every address of the host
	groups     [2]*nftables.Set // VM → its group's chain
	gateways   [2]*nftables.Set // the way to the world, where that is by a bridge
}

func newHostTable(name string) *hostTable {
	h := &hostTable{t: &nftables.Table{Family: nftables.TableFamilyINet, Name: name}}
	// Sets have numbers of our own: the library would count in a variable that it does
	// not lock, and two sets of one transaction could get one number.
	id := uint32(0)
	set := func(s nftables.Set) *nftables.Set {
		id++
		s.Table, s.ID = h.t, id
		return &s
	}
	h.links = set(nftables.Set{Name: "links", KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian}) // else nft prints empty names
	for i, six := range []bool{false, true} {
		v, a := version(six), addrKey(six)
		to := nftables.MustConcatSetType(a, nftables.TypeInetService)
		h.vms[i] = set(nftables.Set{Name: "vms" + v, KeyType: nftables.MustConcatSetType(nftables.TypeIFName, a), Concatenation: true})
		h.addrs[i] = set(nftables.Set{Name: "addrs" + v, KeyType: a})
		h.named[i] = set(nftables.Set{Name: "named" + v, KeyType: nftables.MustConcatSetType(a, a), Concatenation: true})
		h.published[i] = set(nftables.Set{Name: "published" + v, IsMap: true, KeyType: boxKey(six), DataType: to, Concatenation: true})
		h.everywhere[i] = set(nftables.Set{Name: "everywhere" + v, IsMap: true, KeyType: portKey, DataType: to, Concatenation: true})
		h.gateways[i] = set(nftables.Set{Name: "gateways" + v, KeyType: a})
		h.groups[i] = set(nftables.Set{Name: "groups" + v, IsMap: true, KeyType: a, DataType: nftables.TypeVerdict})
	}
	return h
}

// create makes the table if it is not there, in one transaction; another program's
// that is there already is the same.
func (h *hostTable) create(c *nftables.Conn, cfg Config) error {
	_, err := c.ListTableOfFamily(h.t.Name, h.t.Family)
	if err == nil {
		return nil
	}
	c.CreateTable(h.t)
	if err := c.AddSet(h.links, nil); err != nil {
		return err
	}
	for i := range 2 {
		for _, s := range []*nftables.Set{h.vms[i], h.addrs[i], h.named[i], h.published[i], h.everywhere[i], h.groups[i], h.gateways[i]} {
			if err := c.AddSet(s, nil); err != nil {
				return err
			}
		}
	}
	h.rules(c, cfg)
	err = c.Flush()
	if errors.Is(err, unix.EEXIST) {
		return nil // another program was faster
	}
	if err != nil {
		return fmt.Errorf("make the table %s: %w", h.t.Name, err)
	}
	return nil
}

func (h *hostTable) rules(c *nftables.Conn, cfg Config) {
	pass := nftables.ChainPolicyAccept
	base := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
		return c.AddChain(&nftables.Chain{Table: h.t, Name: name, Type: kind, Hooknum: hook, Priority: prio, Policy: &pass})
	}
	add := func(ch *nftables.Chain, parts ...match) {
		c.AddRule(&nftables.Rule{Table: h.t, Chain: ch, Exprs: rule(parts...)})
	}
	fromVM := rule(meta(expr.MetaKeyIIFNAME, reg0), in(h.links))
	toVM := rule(meta(expr.MetaKeyOIFNAME, reg0), in(h.links))
	sixes := []bool{false, true}

	// A packet from a VM has the VM's address, whoever in its namespace sent it.
	source := base("source", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	add(source, fromVM, family(false), daddr(false, reg0), loopback(), drop())
	for i, six := range sixes {
		// Neighbour discovery comes from link-local addresses and goes no further.
		add(source, fromVM, family(six), meta(expr.MetaKeyIIFNAME, reg0), saddr(six, reg4), notInLocal(six), notIn(h.vms[i]), drop())
	}

	// The host itself is closed to VMs, but for what their policies name: before an
	// address of its own is made into another by somebody's DNAT, and after.
	own := base("own", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle)
	add(own, established(), accept())
	for i, six := range sixes {
		add(own, fromVM, family(six), saddr(six, reg0), daddr(six, next(six)), in(h.named[i]), accept())
	}
	for _, kind := range []byte{135, 136} {
		add(own, fromVM, l4proto(unix.IPPROTO_ICMPV6), icmpType(kind), accept())
	}
	for _, m := range icmpErrors() {
		add(own, m, accept())
	}
	add(own, fromVM, local(), drop())

	input := base("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	add(input, established(), accept())
	for _, m := range icmpErrors() {
		add(input, m, accept())
	}
	for i, six := range sixes {
		add(input, fromVM, family(six), saddr(six, reg0), daddr(six, next(six)), in(h.named[i]), accept())
	}
	for _, kind := range []byte{135, 136} {
		add(input, fromVM, l4proto(unix.IPPROTO_ICMPV6), icmpType(kind), accept())
	}
	add(input, fromVM, drop())

	forward := base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	add(forward, established(), accept())
	for _, m := range icmpErrors() {
		add(forward, m, accept())
	}
	between := c.AddChain(&nftables.Chain{Table: h.t, Name: "between"})
	// Not by way of a published port, which need not be one that the policy names.
	add(between, dnatted(), drop())
	for i, six := range sixes {
		add(between, family(six), saddr(six, reg0), daddr(six, next(six)), in(h.named[i]), accept())
		add(between, family(six), saddr(six, reg0), verdictOf(h.groups[i]))
	}
	add(between, drop())
	add(forward, fromVM, toVM, goTo(between.Name))
	// What is no VM's of the pool is nobody's beyond the host either: policies mean VMs.
	add(forward, fromVM, family(false), daddr(false, reg0), inNet(cfg.Pool), drop())
	if cfg.IPv6 {
		add(forward, fromVM, family(true), daddr(true, reg0), inNet(cfg.Pool6), drop())
	}
	// Networks of containers and of other VMs; but a host may have its own way to the
	// world by a bridge, and then what goes on there from the gateway is not of these.
	for i, six := range sixes {
		add(forward, fromVM, meta(metaOIFKind, reg0), is(ifname("bridge")...), family(six), nextHop(six), in(h.gateways[i]), daddr(six, reg0), notIn(h.gateways[i]), accept())
		add(forward, fromVM, meta(metaOIFKind, reg0), is(ifname("bridge")...), family(six), saddr(six, reg0), daddr(six, next(six)), in(h.named[i]), accept())
	}
	add(forward, fromVM, meta(metaOIFKind, reg0), is(ifname("bridge")...), drop())
	// VMs of other directories.
	add(forward, toVM, meta(metaIIFKind, reg0), is(ifname("veth")...), meta(expr.MetaKeyIIFNAME, reg0), is([]byte(linkPrefix)...), drop())
	add(forward, toVM, dnatted(), accept())
	add(forward, toVM, drop())

	pre := base("published", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	out := base("published_local", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	// Only the host itself sends to its loopback addresses. The kernel drops what comes
	// from elsewhere, but not before it was sent on to a VM.
	add(pre, family(false), daddr(false, reg0), loopback(), accept())
	for _, ch := range []*nftables.Chain{pre, out} {
		for i, six := range sixes {
			add(ch, family(six), box4or6(six), into(h.published[i]), toMapped(six))
			add(ch, family(six), local(), meta(expr.MetaKeyL4PROTO, reg0), dport(reg1), into(h.everywhere[i]), toMapped(six))
		}
	}

	post := base("masquerade", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	for i, six := range sixes {
		if cfg.Routed {
			break
		}
		add(post, family(six), saddr(six, reg0), in(h.addrs[i]), meta(expr.MetaKeyOIFNAME, reg0), notIn(h.links), match{&expr.Masq{}})
	}
	// What was published on a loopback address has one as its source.
	add(post, family(false), toVM, saddr(false, reg0), loopback(), match{&expr.Masq{}})
}

// inNet matches an address in reg0 that lies in a network.
func inNet(p netip.Prefix) match {
	size := p.Addr().BitLen() / 8
	return rule(match{&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: uint32(size), Mask: net.CIDRMask(p.Bits(), 8*size), Xor: make([]byte, size)}}, is(p.Addr().AsSlice()...))
}

// loopback matches an IPv4 address in reg0.
func loopback() match { return inNet(netip.MustParsePrefix("127.0.0.0/8")) }

// next is the register behind an address that was loaded into reg0.
func next(six bool) uint32 {
	if six {
		return reg4
	}
	return reg1
}

// notInLocal leaves out link-local sources of IPv6.
func notInLocal(six bool) match {
	if !six {
		return nil
	}
	return match{
		&expr.Bitwise{SourceRegister: reg4, DestRegister: reg8, Len: 16, Mask: append([]byte{0xff, 0xc0}, make([]byte, 14)...), Xor: make([]byte, 16)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg8, Data: append([]byte{0xfe, 0x80}, make([]byte, 14)...)},
	}
}

// nextHop loads where a packet is sent to next: the destination itself, or a gateway.
func nextHop(six bool) match {
	if six {
		return match{&expr.Rt{Register: reg0, Key: expr.RtNexthop6}}
	}
	return match{&expr.Rt{Register: reg0, Key: expr.RtNexthop4}}
}

// local matches packets to one of the host's own addresses.
func local() match {
	return match{
		&expr.Fib{Register: reg0, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: native32(unix.RTN_LOCAL)},
	}
}

// dnatted matches flows that a published port has brought.
func dnatted() match {
	const ipsDstNAT = 1 << 5 // IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h
	return match{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: reg0},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: native32(ipsDstNAT), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: make([]byte, 4)},
	}
}

// toMapped sends a packet to the address and port that a map has put into reg0.
func toMapped(six bool) match {
	fam := uint32(unix.NFPROTO_IPV4)
	if six {
		fam = unix.NFPROTO_IPV6
	}
	return match{&expr.NAT{Type: expr.NATTypeDestNAT, Family: fam, RegAddrMin: reg0, RegAddrMax: reg0, RegProtoMin: next(six), RegProtoMax: next(six)}}
}

// entry is what the host's table has about one VM.
type entry struct {
	plan    slotPlan
	named   []netip.Addr // single addresses that the policy allows
	publish []microvm.PublishedPort
	group   string
	// Of the host; they stay when the VM goes.
	gateways []netip.Addr
}

type elements struct {
	set   *nftables.Set
	elems []nftables.SetElement
}

func (h *hostTable) elementsOf(e entry) []elements {
	var out []elements
	add := func(s *nftables.Set, elem nftables.SetElement) {
		if n := len(out); n > 0 && out[n-1].set == s {
			out[n-1].elems = append(out[n-1].elems, elem)
		} else {
			out = append(out, elements{s, []nftables.SetElement{elem}})
		}
	}
	add(h.links, nftables.SetElement{Key: ifname(e.plan.link())})
	for _, side := range e.plan.sides() {
		i := 0
		if side.six {
			i = 1
		}
		vm := side.vm.AsSlice()
		add(h.vms[i], nftables.SetElement{Key: key(ifname(e.plan.link()), vm)})
		add(h.addrs[i], nftables.SetElement{Key: vm})
		for _, a := range e.named {
			if a.Is6() == side.six {
				add(h.named[i], nftables.SetElement{Key: key(vm, a.AsSlice())})
			}
		}
		for _, p := range e.publish {
			to := key(vm, be16(p.GuestPort))
			proto := []byte{protocols[p.Proto()][0]}
			switch {
			case !p.HostIP.IsValid():
				add(h.everywhere[i], nftables.SetElement{Key: key(proto, be16(p.HostPort)), Val: to})
			case p.HostIP.Is6() == side.six:
				add(h.published[i], nftables.SetElement{Key: key(p.HostIP.AsSlice(), proto, be16(p.HostPort)), Val: to})
			}
		}
		if e.group != "" {
			add(h.groups[i], nftables.SetElement{Key: vm, VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: groupChain(e.group)}})
			add(h.groupSet(e.group, side.six), nftables.SetElement{Key: vm})
		}
	}
	return out
}

func groupChain(group string) string { return "group_" + group }

func (h *hostTable) groupSet(group string, six bool) *nftables.Set {
	id := uint32(100)
	if six {
		id++
	}
	return &nftables.Set{Table: h.t, ID: id, Name: "members" + version(six) + "_" + group, KeyType: addrKey(six)}
}

// add puts a VM's elements in, in one transaction.
func (h *hostTable) add(c *nftables.Conn, e entry) error {
	if err := h.fill(c, e); err != nil {
		return err
	}
	return c.Flush()
}

func (h *hostTable) fill(c *nftables.Conn, e entry) error {
	if e.group != "" {
		ch := c.AddChain(&nftables.Chain{Table: h.t, Name: groupChain(e.group)})
		c.FlushChain(ch)
		for _, six := range []bool{false, true} {
			set := h.groupSet(e.group, six)
			if err := c.AddSet(set, nil); err != nil {
				return err
			}
			c.AddRule(&nftables.Rule{Table: h.t, Chain: ch, Exprs: rule(family(six), daddr(six, reg0), in(set), accept())})
		}
		c.AddRule(&nftables.Rule{Table: h.t, Chain: ch, Exprs: drop()})
	}
	for _, el := range h.elementsOf(e) {
		if err := addElements(c, el.set, el.elems); err != nil {
			return err
		}
	}
	for _, a := range e.gateways {
		i := 0
		if a.Is6() {
			i = 1
		}
		if err := addElements(c, h.gateways[i], []nftables.SetElement{{Key: a.AsSlice()}}); err != nil {
			return err
		}
	}
	return nil
}

// remove takes a VM's elements out; one that is not there is no error. All are put in
// first: what is not there can't be removed, and a transaction that fails waits for a
// grace period of RCU.
func (h *hostTable) remove(c *nftables.Conn, e entry) error {
	err := h.take(c, e)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) {
		// A port that it was to have is another's.
		if e.publish, err = h.portsOf(c, e); err == nil {
			err = h.take(c, e)
		}
	}
	if errors.Is(err, unix.ENOENT) {
		if _, there := c.ListTableOfFamily(h.t.Name, h.t.Family); there != nil {
			return nil // nor is there anything in it
		}
	}
	if err != nil {
		return fmt.Errorf("remove from the host's table %s: %w", h.t.Name, err)
	}
	return nil
}

func (h *hostTable) take(c *nftables.Conn, e entry) error {
	if err := h.fill(c, e); err != nil {
		return err
	}
	for _, el := range h.elementsOf(e) {
		if err := deleteElements(c, el.set, el.elems); err != nil {
			return err
		}
	}
	return c.Flush()
}
