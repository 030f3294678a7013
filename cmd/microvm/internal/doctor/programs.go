package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/tangle-network/microvm/vmm"
)

const (
	engineNull = "null"
	engineQEMU = "qemu"

	installFcemu       = "make build, in a checkout, which makes bin/fcemu; and " + installQEMU
	installFirecracker = "install a release from https://github.com/firecracker-microvm/firecracker/releases"
	installQEMU        = "apt-get install qemu-system-x86"

	// programTime bounds each program that is asked for its version.
	programTime = 5 * time.Second
)

// examineVMMs asks each VMM what it is, and finds the one that commands use.
func examineVMMs(ctx context.Context, o Options, kvm KVM) (*VMM, []Check) {
	firecracker := probeVMM(ctx, o.Find, "firecracker", "production", installFirecracker)
	if firecracker.Status == OK && !kvm.BootsLinux() {
		firecracker.Status = Limited
		firecracker.Detail += "; KVM can't run Linux for it here"
	}
	jailer := probeVMM(ctx, o.Find, "jailer", "isolation of firecracker", installFirecracker)
	fcemu := probeVMM(ctx, o.Find, "fcemu", "guests without usable KVM; tests", installFcemu)
	qemu := checkProgram(ctx, o.Find, qemuProgram(), "fcemu's engine qemu: real guests in the emulator", installQEMU)
	vsock := checkProgram(ctx, o.Find, "vhost-device-vsock", "vsock in fcemu's engine qemu", "make guest fetches it from Debian sid, whose .deb also works on 12; or cargo install vhost-device-vsock")
	checks := []Check{firecracker, jailer, fcemu, qemu, vsock}
	if o.VMM == "" {
		return nil, checks
	}
	b, err := vmm.Probe(ctx, o.VMM, o.Env...)
	if err != nil {
		return nil, append(checks, Check{Name: "chosen VMM", Status: Missing, Detail: err.Error(), For: "everything", Remedy: "name a working one by --firecracker or MICROVM_FIRECRACKER_BIN"})
	}
	v := &VMM{Path: o.VMM, Version: b.Version, Emulator: b.Emulator, SnapshotFormat: b.SnapshotVersion}
	v.describe()
	if c, ok := v.findJailer(ctx); ok {
		checks = append(checks, c)
	}
	if b.Emulator {
		v.Engine = o.variable("FCEMU_ENGINE")
		if v.Engine == "" || v.Engine == "auto" {
			v.Engine = engineNull
			if qemu.Status == OK {
				v.Engine = engineQEMU
			}
		}
	}
	return v, checks
}

// variable is what the VMM finds in its environment.
func (o Options) variable(name string) string {
	for _, e := range slices.Backward(o.Env) {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}

// findJailer looks for the jailer beside the VMM. One of another release is told
// of: the two belong together.
func (v *VMM) findJailer(ctx context.Context) (Check, bool) {
	path := filepath.Join(filepath.Dir(v.Path), "jailer")
	if _, err := os.Stat(path); err != nil || v.Emulator {
		return Check{}, false
	}
	c := Check{Name: "jailer of the VMM", For: "isolation of firecracker"}
	b, err := vmm.Probe(ctx, path)
	switch {
	case err != nil:
		c.Status, c.Detail, c.Remedy = Missing, err.Error(), installFirecracker
	case b.Version != v.Version:
		c.Status, c.Remedy = Limited, installFirecracker
		c.Detail = fmt.Sprintf("%s: %s %s, and firecracker is %s", path, b.Name, b.Version, v.Version)
	default:
		c.Status, c.Detail = OK, fmt.Sprintf("%s: %s %s", path, b.Name, b.Version)
	}
	v.Jailer, v.JailerVersion = path, b.Version
	return c, true
}

func qemuProgram() string {
	if runtime.GOARCH == "arm64" {
		return "qemu-system-aarch64"
	}
	return "qemu-system-x86_64"
}

// probeVMM describes what answers to the name of a VMM. A file called
// firecracker may well be an emulator.
func probeVMM(ctx context.Context, find func(string) (string, bool), name, use, remedy string) Check {
	c := Check{Name: name, Status: Missing, For: use, Remedy: remedy}
	path, ok := find(name)
	if !ok {
		c.Detail = "neither beside microvm nor on PATH"
		return c
	}
	b, err := vmm.Probe(ctx, path)
	if err != nil {
		c.Detail = err.Error()
		return c
	}
	c.Status, c.Remedy = OK, ""
	c.Detail = fmt.Sprintf("%s: %s %s", path, b.Name, b.Version)
	if b.SnapshotVersion != "" {
		c.Detail += ", snapshot format " + b.SnapshotVersion
	}
	if b.Emulator {
		c.Detail += ": an EMULATOR, not Firecracker"
	}
	return c
}

func checkProgram(ctx context.Context, find func(string) (string, bool), name, use, remedy string) Check {
	c := Check{Name: name, Status: Missing, For: use, Remedy: remedy}
	path, ok := find(name)
	if !ok {
		c.Detail = "neither beside microvm nor on PATH"
		return c
	}
	line, err := firstLine(ctx, path, "--version")
	if err != nil {
		c.Detail = err.Error()
		return c
	}
	c.Status, c.Detail, c.Remedy = OK, path+": "+line, ""
	return c
}

func checkMkfs(ctx context.Context, find func(string) (string, bool)) Check {
	c := Check{Name: "mkfs.ext4", Status: Missing, For: "microvm image build", Remedy: "apt-get install e2fsprogs"}
	path, ok := find("mkfs.ext4")
	if !ok {
		// Debian has it where ordinary users don't look.
		if path, ok = find("/usr/sbin/mkfs.ext4"); !ok {
			c.Detail = "not on PATH"
			return c
		}
	}
	line, err := firstLine(ctx, path, "-V")
	if err != nil {
		c.Detail = err.Error()
		return c
	}
	c.Status, c.Detail, c.Remedy = OK, path+": "+line, ""
	return c
}

// firstLine runs a program for its version and returns the first line that it
// writes, on either output.
func firstLine(ctx context.Context, path string, arg string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, programTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, arg)
	var out firstBytes
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w", path, arg, err)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out.kept)), "\n")
	if line == "" {
		return "", fmt.Errorf("%s %s: %w", path, arg, errors.New("it said nothing"))
	}
	return line, nil
}

// firstBytes keeps the first 4 KiB and drops the rest.
type firstBytes struct{ kept []byte }

func (f *firstBytes) Write(p []byte) (int, error) {
	f.kept = append(f.kept, p[:min(len(p), 4096-len(f.kept))]...)
	return len(p), nil
}
