//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const newRoot = "/newroot"

// boot is the life as /init of the initrd. It returns only on failure.
func boot() error {
	if err := mountKernelFS(); err != nil {
		return err
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	c := parseConfig(string(line))
	for _, word := range c.unknown {
		say("unknown on the command line: %s", word)
	}
	if err := loadModules(moduleDir, splitCmdline(string(line))); err != nil {
		return fmt.Errorf("load modules: %w", err)
	}
	servers := network(c.ip, c.ip6)
	if c.root == "" {
		return fmt.Errorf("no root= on the command line, and this initrd has no other system; disks here: %s", describeDisks())
	}
	disk, err := waitForDisk(c.root, c.waitForEver)
	if err != nil {
		return err
	}
	if err := mountRoot(disk, c); err != nil {
		return err
	}
	if err := resolver(servers); err != nil {
		say("name servers of ip= were not written: %v", err)
	}
	init, err := findInit(newRoot, c.init)
	if err != nil {
		return err
	}
	if err := switchRoot(newRoot); err != nil {
		return fmt.Errorf("switch to the root disk: %w", err)
	}
	if c.supervise {
		return supervise("/", init, os.Args[1:])
	}
	// The kernel has split the arguments for init (behind "--", and words that it
	// doesn't know) and given them to us.
	argv := append([]string{init}, os.Args[1:]...)
	return fmt.Errorf("run %s: %w", init, unix.Exec(init, argv, os.Environ()))
}

// mountKernelFS mounts what everything else here reads.
func mountKernelFS() error {
	for _, m := range []struct {
		kind, dir string
		flags     uintptr
	}{
		{"proc", "/proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sysfs", "/sys", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"devtmpfs", "/dev", unix.MS_NOSUID},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, m.flags, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.dir, err)
		}
	}
	return nil
}

// network brings the loopback and every ip= up, and microvm.ip6=, and returns the name servers. A
// guest without its network is still worth booting, so failures are only told.
func network(words []string, ip6 string) []netip.Addr {
	if err := loopbackUp(); err != nil {
		say("loopback: %v", err)
	}
	var servers []netip.Addr
	for _, word := range words {
		c, err := parseIP(word)
		if errors.Is(err, errNoAddress) {
			continue
		}
		if err == nil {
			err = applyIP(c)
		}
		if err != nil {
			say("network: %v", err)
			continue
		}
		servers = append(servers, c.nameServers...)
	}
	if ip6 != "" {
		c, err := parseIP6(ip6)
		if err == nil {
			err = applyIP6(c)
		}
		if err != nil {
			say("network: %v", err)
		}
	}
	return servers
}

func resolver(servers []netip.Addr) error {
	if len(servers) == 0 {
		return nil
	}
	root, err := os.OpenRoot(newRoot)
	if err != nil {
		return err
	}
	defer root.Close()
	return writeResolvConf(root, servers)
}

// findInit returns the program to run: init= if it was given (and then nothing
// else), or the first of the kernel's own list.
func findInit(root, wanted string) (string, error) {
	candidates := []string{"/sbin/init", "/etc/init", "/bin/init", "/bin/sh"}
	if wanted != "" {
		candidates = []string{wanted}
	}
	for _, c := range candidates {
		// Lstat: an absolute symlink points into the new root, not ours.
		st, err := os.Lstat(path.Join(root, c))
		if err == nil && !st.IsDir() {
			return c, nil
		}
	}
	return "", fmt.Errorf("the root disk has no init: none of %s is there", strings.Join(candidates, ", "))
}
