package network_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"
	"os"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/network"
)

// A network for a VM, with a policy that is replaced while it is in use.
func ExampleManager() {
	dir, err := os.MkdirTemp("", "networks-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	m, err := network.Open(network.Config{Dir: dir, Pool: netip.MustParsePrefix("10.99.0.0/31")})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	ctx := context.Background()
	s, err := m.Acquire(ctx, "vm1", microvm.Network{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the host reaches the VM at", s.Address)
	fmt.Println("its guest has", s.Guest, "behind", s.TAP)

	allowed, err := microvm.ParseEgressRule("192.0.2.0/24:tcp:443")
	if err != nil {
		log.Fatal(err)
	}
	if err := m.UpdateEgress(ctx, "vm1", microvm.Egress{Allow: []microvm.EgressRule{allowed}}); err != nil {
		log.Fatal(err)
	}
	if s, err = m.Find("vm1"); err != nil {
		log.Fatal(err)
	}
	fmt.Println("it may reach", s.Options.Egress.Allow)

	if err := m.Release(ctx, "vm1"); err != nil {
		log.Fatal(err)
	}
	// Output:
	// the host reaches the VM at 10.99.0.1
	// its guest has 172.30.0.2/30 behind tap0
	// it may reach [192.0.2.0/24:tcp:443]
}
