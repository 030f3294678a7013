package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tangle-network/microvm/internal/netns"
)

// forks is the usual way: programs are forked that make a TAP, put it into a bridge, and
// give it a chain with four rules. It keeps no account of addresses, publishes nothing,
// counts nothing, and all VMs see one network.
type forks struct {
	ns   string
	vms  int
	next int
}

// newForks makes the host on which they work.
func newForks(ns string) (*forks, error) {
	err := netns.New(func(path string) error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		if err := netlink.LinkAdd(br); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(br); err != nil {
			return err
		}
		return netns.Pin(path, ns)
	})
	if err != nil {
		return nil, fmt.Errorf("a host for forks: %w", err)
	}
	return &forks{ns: ns}, nil
}

func (f *forks) close() error { return netns.Unpin(f.ns) }

// names of a VM's TAP and chain.
func names(vm string) (tap, chain string) { return "tap" + vm, "VM-" + vm }

func rulesOf(chain string) [][]string {
	return [][]string{
		{"-A", chain, "-d", server + "/32", "-p", "tcp", "-j", "ACCEPT"},
		{"-A", chain, "-d", "1.1.1.1/32", "-p", "tcp", "--dport", "443", "-j", "ACCEPT"},
		{"-A", chain, "-d", "8.8.8.0/24", "-p", "udp", "--dport", "53", "-j", "ACCEPT"},
		{"-A", chain, "-j", "DROP"},
	}
}

func jumpOf(how, tap, chain string) []string {
	return []string{how, "FORWARD", "-m", "physdev", "--physdev-in", tap, "-j", chain}
}

func attachForks(vm string) [][]string {
	tap, chain := names(vm)
	out := [][]string{
		{"ip", "tuntap", "add", "dev", tap, "mode", "tap"},
		{"ip", "link", "set", tap, "master", "br0"},
		{"ip", "link", "set", tap, "up"},
		{"iptables", "-N", chain},
	}
	for _, r := range rulesOf(chain) {
		out = append(out, append([]string{"iptables"}, r...))
	}
	return append(out, append([]string{"iptables"}, jumpOf("-A", tap, chain)...))
}

func detachForks(vm string) [][]string {
	tap, chain := names(vm)
	return [][]string{
		append([]string{"iptables"}, jumpOf("-D", tap, chain)...),
		{"iptables", "-F", chain},
		{"iptables", "-X", chain},
		{"ip", "link", "del", tap},
	}
}

// run runs programs one after the other, on the host of the forks.
func (f *forks) run(commands [][]string) (took time.Duration, err error) {
	err = netns.Inside(f.ns, func() error {
		began := time.Now()
		for _, c := range commands {
			if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", strings.Join(c, " "), err, bytes.TrimSpace(out))
			}
		}
		took = time.Since(began)
		return nil
	})
	return took, err
}

// have makes or removes VMs until there are n: many in one program, which the usual way
// would not do.
func (f *forks) have(n int) error {
	var links, rules bytes.Buffer
	fmt.Fprintln(&rules, "*filter")
	write := func(to *bytes.Buffer, words []string) { fmt.Fprintln(to, strings.Join(words, " ")) }
	change := func(commands [][]string) {
		for _, c := range commands {
			if c[0] == "ip" {
				write(&links, c[1:])
			} else {
				write(&rules, c[1:])
			}
		}
	}
	for ; f.vms < n; f.vms++ {
		change(attachForks(fmt.Sprint(f.vms)))
	}
	for ; f.vms > n; f.vms-- {
		change(detachForks(fmt.Sprint(f.vms - 1)))
	}
	fmt.Fprintln(&rules, "COMMIT")
	return netns.Inside(f.ns, func() error {
		var errs []error
		for _, p := range []struct {
			in   *bytes.Buffer
			args []string
		}{{&links, []string{"ip", "-batch", "-"}}, {&rules, []string{"iptables-restore", "--noflush"}}} {
			cmd := exec.Command(p.args[0], p.args[1:]...)
			cmd.Stdin = p.in
			if out, err := cmd.CombinedOutput(); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w: %s", strings.Join(p.args, " "), err, bytes.TrimSpace(out)))
			}
		}
		return errors.Join(errs...)
	})
}

// turn attaches a VM and detaches it.
func (f *forks) turn(vms int, s *samples) error {
	f.next++
	vm := fmt.Sprint("t", f.next)
	took, err := f.run(attachForks(vm))
	if err != nil {
		return err
	}
	s.time(1, took, "Attach", "vms", vms, "by", "forks")
	time.Sleep(settle)
	if took, err = f.run(detachForks(vm)); err != nil {
		return err
	}
	s.time(1, took, "Detach", "vms", vms, "by", "forks")
	time.Sleep(2 * settle)
	return nil
}
