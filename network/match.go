package network

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The words that rules are written with: each is a piece of a rule, and rule puts
// pieces together.

type match = []expr.Any

func rule(parts ...match) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// Registers of 4 bytes, in which concatenated keys are put together.
const (
	reg0 = unix.NFT_REG32_00
	reg1 = unix.NFT_REG32_01
	reg2 = unix.NFT_REG32_02
	reg4 = unix.NFT_REG32_04
	reg5 = unix.NFT_REG32_05
)

func meta(key expr.MetaKey, reg uint32) match {
	return match{&expr.Meta{Key: key, Register: reg}}
}

func is(data ...byte) match {
	return match{&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: data}}
}

func isNot(data ...byte) match {
	return match{&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: data}}
}

func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func iif(name string) match { return rule(meta(expr.MetaKeyIIFNAME, reg0), is(ifname(name)...)) }
func oif(name string) match { return rule(meta(expr.MetaKeyOIFNAME, reg0), is(ifname(name)...)) }

func family(six bool) match {
	if six {
		return rule(meta(expr.MetaKeyNFPROTO, reg0), is(unix.NFPROTO_IPV6))
	}
	return rule(meta(expr.MetaKeyNFPROTO, reg0), is(unix.NFPROTO_IPV4))
}

func l4proto(p uint8) match { return rule(meta(expr.MetaKeyL4PROTO, reg0), is(p)) }

func payload(base expr.PayloadBase, offset, size, reg uint32) match {
	return match{&expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: size}}
}

// saddr and daddr load the packet's addresses: RFC 791, RFC 8200.
func saddr(six bool, reg uint32) match {
	if six {
		return payload(expr.PayloadBaseNetworkHeader, 8, 16, reg)
	}
	return payload(expr.PayloadBaseNetworkHeader, 12, 4, reg)
}

func daddr(six bool, reg uint32) match {
	if six {
		return payload(expr.PayloadBaseNetworkHeader, 24, 16, reg)
	}
	return payload(expr.PayloadBaseNetworkHeader, 16, 4, reg)
}

func dport(reg uint32) match { return payload(expr.PayloadBaseTransportHeader, 2, 2, reg) }

func ctState(bits uint32) match {
	return match{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg0},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: make([]byte, 4)},
	}
}

func established() match { return ctState(expr.CtStateBitESTABLISHED) }

// in looks the key that begins in reg0 up in a set; notIn is its contrary.
func in(s *nftables.Set) match {
	return match{&expr.Lookup{SourceRegister: reg0, SetName: s.Name, SetID: s.ID}}
}

func notIn(s *nftables.Set) match {
	return match{&expr.Lookup{SourceRegister: reg0, SetName: s.Name, SetID: s.ID, Invert: true}}
}

// into looks the key in reg0 up in a map and puts what it finds into reg0.
func into(s *nftables.Set) match {
	return match{&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: s.Name, SetID: s.ID}}
}

// verdictOf does what a verdict map says about the key in reg0.
func verdictOf(s *nftables.Set) match {
	return match{&expr.Lookup{SourceRegister: reg0, DestRegister: 0, IsDestRegSet: true, SetName: s.Name, SetID: s.ID}}
}

func accept() match { return match{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() match   { return match{&expr.Verdict{Kind: expr.VerdictDrop}} }

func jump(chain string) match { return match{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}} }
func goTo(chain string) match { return match{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}} }

// count adds the packet to a named counter.
func count(name string) match {
	return match{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: name}}
}

// dnatTo and snatTo rewrite an address to a fixed one.
func dnatTo(a netip.Addr) match { return natTo(expr.NATTypeDestNAT, a) }
func snatTo(a netip.Addr) match { return natTo(expr.NATTypeSourceNAT, a) }

func natTo(kind expr.NATType, a netip.Addr) match {
	return match{
		&expr.Immediate{Register: reg0, Data: a.AsSlice()},
		&expr.NAT{Type: kind, Family: nfFamily(a), RegAddrMin: reg0, RegAddrMax: reg0},
	}
}

func nfFamily(a netip.Addr) uint32 {
	if a.Is6() {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

func be16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

// key puts the parts of a concatenated key together: each is padded to 4 bytes.
func key(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
		for len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	return out
}

// Keys and registers that the nftables package has no names for: linux/netfilter/nf_tables.h.
const (
	metaIIFKind expr.MetaKey = 26
	metaOIFKind expr.MetaKey = 27
	reg8                     = unix.NFT_REG32_08
)

func native32(n uint32) []byte { return binaryutil.NativeEndian.PutUint32(n) }
