package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
	"github.com/tangle-network/microvm/network"
)

// checkNetwork makes a network namespace, and in it an nftables table and a
// TAP, all of which vanish with the thread that is in it; then a VM's whole network in
// another; and looks at what the host does with packets that are passed on.
func checkNetwork(ctx context.Context) []Check {
	ns := Check{Name: "netns", Status: Missing, For: "a network of each VM's own", Remedy: "run as root, or with CAP_SYS_ADMIN and CAP_NET_ADMIN"}
	nft := Check{Name: "nftables", Status: Missing, For: "NAT, published ports and egress policy", Remedy: "modprobe nf_tables, as root"}
	tap := Check{Name: "tap", Status: Missing, For: "network interfaces of VMs", Remedy: "modprobe tun, as root"}
	managed := Check{Name: "managed network", Status: Missing, For: "microvm run --net", Remedy: "modprobe -a veth nf_tables nf_nat nf_conntrack nf_conntrack_netlink, as root; Linux 5.6 or newer"}
	const untried = "not tried: it needs a network namespace"
	nft.Detail, tap.Detail, managed.Detail = untried, untried, untried
	var table, device error
	made := false
	unshare := netns.New(func(string) error {
		made = true
		table = makeTable()
		device = makeTAP()
		return nil
	})
	if !made {
		ns.Detail = unshare.Error()
		return []Check{ns, nft, tap, managed}
	}
	ns.Status, ns.Detail, ns.Remedy = OK, "a namespace could be made", ""
	settle := func(c *Check, err error, detail string) {
		if err != nil {
			c.Detail = err.Error()
			return
		}
		c.Status, c.Detail, c.Remedy = OK, detail, ""
	}
	settle(&nft, table, "a table could be made, in a namespace of its own")
	settle(&tap, device, "a TAP could be made, in a namespace of its own")
	settle(&managed, makeNetwork(ctx), "a VM's network could be made: veth pair, TAP, address, policy")
	return append([]Check{ns, nft, tap, managed}, checkForwarding()...)
}

// checkForwarding is a check for each thing that keeps VMs from other hosts.
func checkForwarding() []Check {
	c := Check{Name: "forwarding", Status: OK, Detail: "the host passes packets of VMs on", For: "VMs' way to other hosts"}
	problems, err := network.CheckHost(false)
	if err != nil {
		c.Status, c.Detail, c.Remedy = Limited, err.Error(), "run as root"
		return []Check{c}
	}
	var out []Check
	for _, p := range problems {
		c.Status, c.Detail, c.Remedy = Limited, p.What, p.Remedy
		out = append(out, c)
	}
	if len(out) == 0 {
		return []Check{c}
	}
	return out
}

// makeTable makes an nftables table in the thread's namespace.
func makeTable() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "microvm_doctor"})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("make an nftables table: %w", err)
	}
	return nil
}

// makeTAP makes a TAP that goes when its descriptor is closed.
func makeTAP() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/dev/net/tun: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("microvm-doctor")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("TUNSETIFF: %w", err)
	}
	return nil
}

// makeNetwork makes a VM's network, with all that one can have, and takes it back. A
// namespace of its own stands in for the host.
func makeNetwork(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "microvm-doctor-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return netns.New(func(string) error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
			return err
		}
		m, err := network.Open(network.Config{Dir: dir, NoServe: true})
		if err != nil {
			return err
		}
		_, err = m.Acquire(ctx, "doctor", microvm.Network{
			Egress: microvm.Egress{Allow: []microvm.EgressRule{
				{CIDR: netip.MustParsePrefix("192.0.2.1/32"), Protocol: "tcp", Ports: []microvm.PortRange{{First: 443}}},
				{Domain: "microvm.example.org"},
			}, DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}},
			Publish:        []microvm.PublishedPort{{HostPort: 1, GuestPort: 1}},
			Group:          "doctor",
			MaxConnections: 1,
			LogDropped:     true,
		})
		return errors.Join(err, m.Release(context.WithoutCancel(ctx), "doctor"), m.Close())
	})
}
