//go:build linux

package main

import (
	"cmp"
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/tangle-network/microvm/image/kernel"
	"github.com/tangle-network/microvm/image/rootfs"
)

// host is a Linux host that QEMU can boot.
type host struct {
	kernel, initrd, disk, console string
	release                       string // of the kernel
	size                          int64  // of the disk
}

// Where things are on the host's disk.
const (
	hostFirecracker = "/bin/firecracker"
	hostAgent       = "/bin/vsockagent"
	hostTests       = "/tests/firecracker.test"
	hostGuest       = "/guest"
)

// networkModules are what managed networks need: nobody loads modules on demand there.
var networkModules = []string{
	"veth", "nf_tables", "nf_conntrack", "nf_conntrack_netlink", "nf_nat", "nfnetlink_log",
	"nft_chain_nat", "nft_connlimit", "nft_ct", "nft_fib_inet", "nft_fib_ipv4", "nft_fib_ipv6",
	"nft_limit", "nft_log", "nft_masq", "nft_nat", "nft_objref", "bridge",
}

// makeHost makes the nested host out of the guest's own kernel package, this
// module's tests, and the Firecracker under test with the libraries that it needs.
func (s *session) makeHost(ctx context.Context) (host, error) {
	var h host
	if err := os.MkdirAll(s.work, 0o755); err != nil {
		return h, err
	}
	at := func(name string) string { return filepath.Join(s.work, name) }
	k, err := kernel.Import(ctx, kernel.Source{Packages: []string{filepath.Join(s.guest, "linux-image.deb")}}, at("host"), kernel.Options{
		Init: "bin/microvm-init", ExtraModules: append([]string{"kvm_amd", "tun"}, networkModules...),
	})
	if err != nil {
		return h, err
	}
	agent, err := s.buildAgent(ctx)
	if err != nil {
		return h, err
	}
	if err := build(ctx, "build", "-o", at("hostinit"), "./internal/testreal/hostinit"); err != nil {
		return h, err
	}
	if err := build(ctx, "test", "-c", "-o", at("firecracker.test"), "./firecracker"); err != nil {
		return h, err
	}
	h = host{kernel: k.Boot, initrd: k.Initrd, release: k.Version, disk: at("host.ext4"), console: at("console.log")}
	files := map[string]string{
		"/sbin/init":               at("hostinit"),
		hostTests:                  at("firecracker.test"),
		hostAgent:                  agent,
		hostFirecracker:            s.firecracker.Path,
		hostGuest + "/vmlinux":     filepath.Join(s.guest, "vmlinux"),
		hostGuest + "/initrd":      filepath.Join(s.guest, "initrd"),
		hostGuest + "/rootfs.ext4": filepath.Join(s.guest, "rootfs.ext4"),
	}
	libraries, err := libraries(ctx, s.firecracker.Path)
	if err != nil {
		return h, err
	}
	for _, l := range libraries {
		files[l] = l
	}
	r, err := disk(ctx, files, s.order(), h.disk)
	h.size = r
	return h, err
}

// order is what the host's init is to run, as it reads it.
func (s *session) order() any {
	return struct {
		Args, Env []string
		Dir       string
	}{
		Args: []string{hostTests, "-test.v=test2json", "-test.run=" + cmp.Or(s.pattern, nestedTests), "-test.timeout=" + s.bound.String()},
		Env: []string{
			"PATH=/bin:/sbin", "TMPDIR=/tmp", "HOME=/tmp",
			realVariable + "=" + hostFirecracker, linuxVariable + "=1", guestVariable + "=" + hostGuest, agentVariable + "=" + hostAgent,
		},
		Dir: "/tests",
	}
}

// hostDiskMiB leaves room beside some 120 MiB of files.
const hostDiskMiB = 512

// disk makes the host's root disk. Keys of files are where they go.
func disk(ctx context.Context, files map[string]string, order any, dst string) (size int64, err error) {
	t, err := rootfs.NewTree()
	if err != nil {
		return 0, err
	}
	defer t.Close()
	for _, d := range []string{"proc", "sys", "dev", "run", "tmp", "etc", "root"} {
		if err := t.AddDir(d, rootfs.Meta{Mode: 0o755}); err != nil {
			return 0, err
		}
	}
	for name, from := range files {
		if err := add(t, name, from); err != nil {
			return 0, err
		}
	}
	b, err := json.Marshal(order)
	if err != nil {
		return 0, err
	}
	if err := t.AddFile("etc/order.json", rootfs.Meta{Mode: 0o644}, strings.NewReader(string(b))); err != nil {
		return 0, err
	}
	if _, err := t.Build(ctx, dst, rootfs.Options{SizeMiB: hostDiskMiB}); err != nil {
		return 0, err
	}
	st, err := os.Stat(dst)
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// add copies a file, and makes the directories above it.
func add(t *rootfs.Tree, name, from string) error {
	name = strings.TrimPrefix(name, "/")
	dir := ""
	for _, part := range strings.Split(path.Dir(name), "/") {
		dir = path.Join(dir, part)
		if err := t.AddDir(dir, rootfs.Meta{Mode: 0o755}); err != nil {
			return err
		}
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return t.AddFile(name, rootfs.Meta{Mode: 0o755}, f)
}

// libraries are the files that a program needs beside itself: none if it is
// static, as Firecracker's releases are.
func libraries(ctx context.Context, program string) ([]string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	defer f.Close()
	section := f.Section(".interp")
	if section == nil {
		return nil, nil
	}
	b, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	loader := strings.TrimRight(string(b), "\x00")
	out, err := exec.CommandContext(ctx, loader, "--list", program).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s --list %s: %w: %s", loader, program, err, out)
	}
	files := []string{loader}
	for line := range strings.Lines(string(out)) {
		// "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)"
		_, at, found := strings.Cut(line, " => ")
		if !found {
			continue
		}
		file, _, _ := strings.Cut(strings.TrimSpace(at), " ")
		if !filepath.IsAbs(file) {
			return nil, fmt.Errorf("%s needs a library that is not here: %s", program, strings.TrimSpace(line))
		}
		files = append(files, file)
	}
	return files, nil
}

// build makes a static program.
func build(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(environment(), "CGO_ENABLED=0", "GOFLAGS=-trimpath")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
