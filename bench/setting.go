package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tangle-network/microvm/firecracker"
	"github.com/tangle-network/microvm/internal/tinyguest"
)

// setting is what all contenders run: one VMM and one guest.
type setting struct {
	vmm      string // its program
	env      []string
	kernel   string
	rootfs   string
	bootArgs string
	dir      string // scratch, of this run
}

const (
	memoryMiB = 128
	vcpus     = 1
)

// newSetting puts the guest's files into dir: the tiny guest, which a real VMM
// boots in microseconds and the emulator's null engine takes as well as any.
func newSetting(vmm string, emulated bool, dir string) (setting, error) {
	s := setting{vmm: vmm, dir: dir, kernel: filepath.Join(dir, "vmlinux"), rootfs: filepath.Join(dir, "rootfs"), bootArgs: firecracker.DefaultBootArgs}
	if emulated {
		s.env = []string{"FCEMU_ENGINE=null"}
	}
	if err := tinyguest.Write(s.kernel); err != nil {
		return s, err
	}
	return s, os.WriteFile(s.rootfs, make([]byte, 4<<20), 0o600)
}

// config of the provider.
func (s setting) config(state string) firecracker.Config {
	return firecracker.Config{
		StateDir: state, Binary: s.vmm, Env: s.env,
		Kernel: s.kernel, Rootfs: s.rootfs, RootfsReadOnly: true,
		BootArgs: s.bootArgs, VCPUs: vcpus, MemoryMiB: memoryMiB,
	}
}

// environ is what VMMs get that the provider does not start.
func (s setting) environ() []string { return append([]string{"PATH=" + os.Getenv("PATH")}, s.env...) }

// version is what the VMM says of itself.
func (s setting) version() (string, error) {
	cmd := exec.Command(s.vmm, "--version")
	cmd.Env = s.environ()
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", s.vmm, err)
	}
	first, _, _ := bytes.Cut(out, []byte("\n"))
	return strings.TrimSpace(string(first)), nil
}
