package network

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names within a VM's namespace.
const (
	TAP       = "tap0"
	uplink    = "eth0"
	tableName = "microvm"
)

// Counters within a namespace.
const (
	cntTx        = "tx"
	cntTxDropped = "tx_dropped"
	cntRx        = "rx"
	cntRxDropped = "rx_dropped"
	cntSpoofed   = "spoofed"
)

// insideTable is the ruleset of a VM's namespace, closed: everything but the policy,
// which has chains and sets of its own.
func insideTable(c *nftables.Conn, s slotPlan) {
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName})
	for _, name := range []string{cntTx, cntTxDropped, cntRx, cntRxDropped} {
		c.AddObj(&nftables.CounterObj{Table: t, Name: name})
	}
	add := func(ch *nftables.Chain, parts ...match) {
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: rule(parts...)})
	}
	closed := nftables.ChainPolicyDrop
	base := func(name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
		ch := &nftables.Chain{Table: t, Name: name, Type: kind, Hooknum: hook, Priority: prio}
		if kind == nftables.ChainTypeFilter {
			ch.Policy = &closed
		}
		return c.AddChain(ch)
	}
	regular := func(name string) *nftables.Chain { return c.AddChain(&nftables.Chain{Table: t, Name: name}) }

	// These are filled by setPolicy.
	limit, policy, log := regular("limit"), regular("policy"), regular("log")
	shut := regular("shut") // see endFlows
	// Empty until there is a VM: an answer to what has come in would pass any policy.
	gate := regular("gate")

	txOK, txNo, rxOK, rxNo := regular("tx_ok"), regular("tx_no"), regular("rx_ok"), regular("rx_no")
	add(txOK, count(cntTx), accept())
	add(txNo, jump(log.Name))
	add(txNo, count(cntTxDropped), drop())
	add(rxOK, count(cntRx), accept())
	add(rxNo, count(cntRxDropped), drop())

	out, into := regular("out"), regular("in")
	add(out, established(), goTo(txOK.Name))
	for _, m := range icmpErrors() {
		add(out, m, goTo(txOK.Name))
	}
	add(out, jump(limit.Name))
	// A rule whose packet ends before its ports does not match, be it one that closes:
	// only what has something in their place is asked about.
	add(out, dport(reg0), jump(policy.Name))
	add(out, goTo(txNo.Name))

	add(into, established(), goTo(rxOK.Name))
	for _, m := range icmpErrors() {
		add(into, m, goTo(rxOK.Name))
	}
	add(into, ctState(expr.CtStateBitRELATED), goTo(rxNo.Name))
	// Only a SYN begins a connection here: what belongs to one that conntrack was made
	// to forget would begin it anew in the wrong direction, past the policy.
	add(into, l4proto(unix.IPPROTO_TCP), payload(expr.PayloadBaseTransportHeader, 13, 1, reg0),
		match{&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 1, Mask: []byte{0x17}, Xor: []byte{0}}}, // FIN, SYN, RST, ACK
		isNot(0x02), goTo(rxNo.Name))
	add(into, jump(shut.Name))
	add(into, jump(limit.Name))
	add(into, jump(gate.Name))
	add(into, drop())

	forward := base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	add(forward, ctState(expr.CtStateBitINVALID), iif(TAP), goTo(txNo.Name))
	add(forward, ctState(expr.CtStateBitINVALID), goTo(rxNo.Name))
	add(forward, iif(TAP), oif(uplink), goTo(out.Name))
	add(forward, iif(uplink), oif(TAP), goTo(into.Name))

	input := base("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	add(input, established(), accept())
	for _, proto := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
		add(input, iif(TAP), l4proto(proto), dport(reg0), is(be16(53)...), accept())
	}
	add(input, iif(TAP), l4proto(unix.IPPROTO_ICMP), icmpType(8), accept())
	for _, kind := range []byte{128, 135, 136} { // echo, neighbours
		add(input, l4proto(unix.IPPROTO_ICMPV6), icmpType(kind), accept())
	}
	add(input, iif(TAP), goTo(txNo.Name))

	// Nothing in the namespace speaks for itself: not even a VMM that was taken over.
	output := base("output", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter)
	add(output, established(), accept())
	for _, kind := range []byte{3, 11, 12} { // errors
		add(output, l4proto(unix.IPPROTO_ICMP), icmpType(kind), accept())
	}
	for _, kind := range []byte{1, 2, 3, 4, 135, 136} { // errors, neighbours
		add(output, l4proto(unix.IPPROTO_ICMPV6), icmpType(kind), accept())
	}

	pre := base("dnat", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	post := base("snat", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	for _, side := range s.sides() {
		add(pre, iif(uplink), family(side.six), dnatTo(side.guest))
		add(post, oif(uplink), family(side.six), snatTo(side.vm))
	}
	s.guardTAP(c)
}

// seal lets nothing pass a namespace any more, whoever may still be in it.
func seal(c *nftables.Conn) error {
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName})
	closed := nftables.ChainPolicyDrop
	for name, hook := range map[string]*nftables.ChainHook{"sealed_in": nftables.ChainHookPrerouting, "sealed_out": nftables.ChainHookOutput} {
		c.AddChain(&nftables.Chain{Table: t, Name: name, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityRaw, Policy: &closed})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("close the namespace: %w", err)
	}
	return nil
}

// guardTAP drops frames that are not the guest's own, before anything else sees them.
func (s slotPlan) guardTAP(c *nftables.Conn) {
	t := c.AddTable(&nftables.Table{Family: nftables.TableFamilyNetdev, Name: tableName})
	c.AddObj(&nftables.CounterObj{Table: t, Name: cntSpoofed})
	closed := nftables.ChainPolicyDrop
	ch := c.AddChain(&nftables.Chain{Table: t, Name: "guard", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookIngress,
		Priority: nftables.ChainPriorityRef(0), Policy: &closed, Device: TAP})
	add := func(parts ...match) {
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: rule(parts...)})
	}
	link := func(offset, size uint32) match {
		return payload(expr.PayloadBaseLLHeader, offset, size, reg0)
	}
	add(link(6, 6), isNot(s.mac...), count(cntSpoofed), drop())
	for _, side := range s.sides() {
		if side.six {
			add(etherType(unix.ETH_P_IPV6), saddr(true, reg0), is(side.guest.AsSlice()...), accept())
			add(etherType(unix.ETH_P_IPV6), saddr(true, reg0), is(linkLocal(s.mac).AsSlice()...), accept())
			// Duplicate address detection has no address yet.
			add(etherType(unix.ETH_P_IPV6), saddr(true, reg0), is(make([]byte, 16)...), meta(expr.MetaKeyL4PROTO, reg0), is(unix.IPPROTO_ICMPV6), accept())
			continue
		}
		add(etherType(unix.ETH_P_IP), saddr(false, reg0), is(side.guest.AsSlice()...), accept())
		// Sender's hardware and protocol address of RFC 826.
		add(etherType(unix.ETH_P_ARP), payload(expr.PayloadBaseNetworkHeader, 8, 6, reg0), is(s.mac...),
			payload(expr.PayloadBaseNetworkHeader, 14, 4, reg0), is(side.guest.AsSlice()...), accept())
	}
	if s.v6 == nil {
		add(etherType(unix.ETH_P_IPV6), drop()) // every kernel tries
	}
	add(count(cntSpoofed), drop())
}

func etherType(t uint16) match {
	return rule(meta(expr.MetaKeyPROTOCOL, reg0), is(be16(t)...))
}

// icmpErrors match errors that belong to a flow, but for redirects. What else is
// related to one would be what a conntrack helper expects, at the word of a guest.
func icmpErrors() []match {
	return []match{
		rule(ctState(expr.CtStateBitRELATED), l4proto(unix.IPPROTO_ICMP), payload(expr.PayloadBaseTransportHeader, 0, 1, reg0), isNot(5)),
		rule(ctState(expr.CtStateBitRELATED), l4proto(unix.IPPROTO_ICMPV6)),
	}
}

func icmpType(t byte) match {
	return rule(payload(expr.PayloadBaseTransportHeader, 0, 1, reg0), is(t))
}
