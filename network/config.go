package network

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"

	"github.com/tangle-network/microvm"
)

// Config says where a Manager keeps what it knows, and which addresses it hands out.
type Config struct {
	// Dir is where slots are recorded and their namespaces mounted. Programs that
	// share VMs share it; programs with different ones do not disturb each other, on
	// the same pool either.
	Dir string
	// Pool are the addresses of the VMs on the host, two for each; default
	// 10.111.0.0/16, for 32,768 VMs. /8 to /31.
	Pool netip.Prefix
	// Routed says that the network beyond the host knows the way to the pool: VMs
	// are seen there with their own addresses, and not with the host's.
	Routed bool
	// Guest is the address that each guest has inside, with its network; the first
	// address of that is the gateway. Default 172.30.0.2/30.
	Guest netip.Prefix
	// IPv6 gives VMs IPv6 too, from Pool6 and Guest6, masqueraded as IPv4 is.
	IPv6          bool
	Pool6, Guest6 netip.Prefix
	// IPNetns mounts each namespace in /run/netns too, named as its link, for
	// ip-netns(8): ip netns exec mv0a6f0001 …
	IPNetns bool
	// Slots are made ahead, for creations to be faster.
	Slots SlotPool
	// NoServe leaves it to another program to answer the VMs' name queries, and to log
	// what policies drop where they ask for it. A Manager does both for as long as it
	// is open; while none does, names do not resolve, and what is open stays open.
	NoServe    bool
	ResolvConf string // names the host's name servers; default /etc/resolv.conf
	// TAPOwner and TAPGroup own the TAPs, for a VMM that is not root; 0 is nobody.
	TAPOwner, TAPGroup int
	Log                *slog.Logger
}

// SlotPool bounds how many slots are ready for VMs to come. With Max 0 there are none.
type SlotPool struct {
	Min int // made ahead
	Max int // kept of those that VMs gave back; at least Min
}

func (c Config) withDefaults() (Config, error) {
	if c.Pool == (netip.Prefix{}) {
		c.Pool = defaultPool
	}
	if c.Guest == (netip.Prefix{}) {
		c.Guest = defaultGuest
	}
	if c.Pool6 == (netip.Prefix{}) {
		c.Pool6 = defaultPool6
	}
	if c.Guest6 == (netip.Prefix{}) {
		c.Guest6 = defaultGuest6
	}
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	var errs []error
	bad := func(field string, value any, rule string) {
		errs = append(errs, &microvm.FieldError{Field: "network." + field, Value: fmt.Sprint(value), Rule: rule})
	}
	if !filepath.IsAbs(c.Dir) {
		bad("dir", c.Dir, "an absolute path")
	}
	if !c.Pool.Addr().Is4() || c.Pool.Bits() < 8 || c.Pool.Bits() > 31 || c.Pool != c.Pool.Masked() {
		bad("pool", c.Pool, "an IPv4 network from /8 to /31, such as 10.111.0.0/16")
	}
	checkGuest := func(field string, guest, pool netip.Prefix, four bool) {
		gateway := guest.Masked().Addr().Next()
		if guest.Addr().Is4() != four || guest.Addr() == gateway || !guest.Contains(gateway) || guest.Addr() == guest.Masked().Addr() || four && guest.Addr() == lastOf(guest.Masked()) {
			bad(field, guest, "an address with its network, such as 172.30.0.2/30: not the first address, which is the gateway's")
		} else if guest.Overlaps(pool) {
			bad(field, guest, fmt.Sprintf("outside of the pool %v", pool))
		}
	}
	checkGuest("guest", c.Guest, c.Pool, true)
	if c.IPv6 {
		if !c.Pool6.Addr().Is6() || c.Pool6.Bits() > 127 || c.Pool6 != c.Pool6.Masked() || 128-c.Pool6.Bits() < 32-c.Pool.Bits() {
			bad("pool6", c.Pool6, fmt.Sprintf("an IPv6 network with as many addresses as %v", c.Pool))
		}
		checkGuest("guest6", c.Guest6, c.Pool6, false)
	}
	if c.Slots.Min < 0 || c.Slots.Max < 0 || c.Slots.Max > 0 && c.Slots.Max < c.Slots.Min {
		bad("slots", c.Slots, "Min and Max 0 or more, Max not below Min")
	}
	c.Slots.Max = max(c.Slots.Max, c.Slots.Min)
	return c, errors.Join(errs...)
}
