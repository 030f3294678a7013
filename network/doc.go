// Package network gives each microVM a network of its own: a namespace with a TAP
// in it, an address on the host's side, a policy for what leaves, ports that are
// published, and counters.
//
// Inside, every VM looks alike (same TAP name, guest address, gateway and MAC), so
// that a snapshot can be restored any number of times. What tells VMs apart is the
// address that the namespace has on its veth pair, which is the kernel's to hand
// out: the pair's host end is named by it, and no two links have one name.
//
// Everything is closed until a policy opens it. The policy is nftables rules and
// sets inside the VM's own namespace, so that the cost of a packet does not grow with
// the number of VMs, and sets make it independent of the number of rules. The host has
// one table with a fixed number of rules. No program is forked, and nothing that is
// not ours is written.
package network
