//go:build linux

// Package testhost gives the tests of a package a host of their own: they run again in
// a network and a mount namespace that is theirs alone.
package testhost

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/internal/netns"
)

const inside = "MICROVM_TEST_HOST"

// lacks says why there is no such host. Programs that a test starts learn it from the
// environment.
func lacks() string {
	switch v := os.Getenv(inside); v {
	case "":
		return "needs root: network namespaces, TAPs and nftables"
	case there:
		return ""
	default:
		return v
	}
}

const there = "1"

// Run runs the tests of run in such a host, if that can be had: root makes it. It is
// what TestMain exits with.
func Run(run func() int) int {
	if os.Geteuid() != 0 {
		return run()
	}
	if os.Getenv(inside) != "" {
		return run()
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inside+"="+there)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		if err := os.Setenv(inside, "namespaces can't be had: "+err.Error()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return run()
	}
	if err := cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		fmt.Fprintln(os.Stderr, "run the tests in namespaces of their own:", err)
		return 1
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code
	}
	return 1
}

// Up makes the new host one that has a loopback and passes packets on, and finds out
// whether networks can be made in it. Run's function calls it once.
func Up() {
	if !Have() {
		return
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err == nil {
		err = os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
	}
	if err == nil {
		err = netns.New(func(string) error { return try() })
	}
	if err != nil {
		err = os.Setenv(inside, "networks can't be made here: "+err.Error())
	}
	if err != nil {
		panic(err) // the value can be in an environment
	}
}

// try makes one of each thing that a network is made of.
func try() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "try"})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "peer"}
	veth.Name = "try"
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// Have says whether there is such a host.
func Have() bool { return lacks() == "" }

// Need skips a test that there is no such host for.
func Need(t testing.TB) {
	t.Helper()
	if !Have() {
		t.Skip(lacks())
	}
}
