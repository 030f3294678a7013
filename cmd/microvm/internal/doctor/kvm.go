package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// From linux/kvm.h: _IO(KVMIO, 0x00) and _IO(KVMIO, 0x01).
const (
	kvmGetAPIVersion = 0xAE00
	kvmCreateVM      = 0xAE01
	kvmAPIVersion    = 12
)

// KVM is what /dev/kvm was seen to do.
type KVM struct {
	// MakesVM says that a VM was made. With Hardware, the CPU's own
	// virtualisation stands behind it; without, it is something like PVM, which
	// runs no ordinary kernel.
	MakesVM  bool
	Hardware bool
	Detail   string
	Remedy   string
}

// BootsLinux says whether an ordinary kernel can be expected to boot.
func (k KVM) BootsLinux() bool { return k.MakesVM && k.Hardware }

// ProbeKVM makes a VM and closes it.
func ProbeKVM() KVM {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return KVM{Detail: "/dev/kvm does not exist", Remedy: "modprobe -a kvm_intel kvm_amd; in a cloud VM ask for nested virtualisation or bare metal"}
	case errors.Is(err, fs.ErrPermission):
		return KVM{Detail: "/dev/kvm may not be opened by this user", Remedy: "sudo usermod -aG kvm $USER, then log in anew"}
	case err != nil:
		return KVM{Detail: err.Error(), Remedy: "enable virtualisation in the firmware, or load the right KVM module"}
	}
	defer f.Close()
	version, err := unix.IoctlRetInt(int(f.Fd()), kvmGetAPIVersion)
	if err != nil {
		return KVM{Detail: "KVM_GET_API_VERSION: " + err.Error()}
	}
	if version != kvmAPIVersion {
		return KVM{Detail: fmt.Sprintf("KVM has API version %d, not %d", version, kvmAPIVersion)}
	}
	vm, err := unix.IoctlRetInt(int(f.Fd()), kvmCreateVM)
	if err != nil {
		return KVM{Detail: "KVM_CREATE_VM: " + err.Error(), Remedy: "see dmesg: another hypervisor may hold the CPU"}
	}
	if err := unix.Close(vm); err != nil {
		return KVM{Detail: "close of the VM: " + err.Error()}
	}
	k := KVM{MakesVM: true, Hardware: runtime.GOARCH == "arm64" || cpuVirtualises()}
	switch {
	case k.Hardware:
		k.Detail = "a VM could be made, with the CPU's own virtualisation"
	case loaded("kvm_pvm"):
		k.Detail = "PVM: VMs can be made, but the CPU has no vmx or svm, so ordinary Linux kernels do not boot"
	default:
		k.Detail = "VMs can be made, but the CPU has neither vmx nor svm, so ordinary Linux kernels do not boot"
	}
	if !k.Hardware {
		k.Remedy = "use fcemu here; for Firecracker use bare metal or a cloud VM with nested virtualisation"
	}
	return k
}

func (k KVM) check() Check {
	c := Check{Name: "kvm", Detail: k.Detail, For: "firecracker; speed of fcemu", Remedy: k.Remedy}
	switch {
	case k.BootsLinux():
		c.Status = OK
	case k.MakesVM:
		c.Status = Limited
	default:
		c.Status = Missing
	}
	return c
}

func loaded(module string) bool {
	_, err := os.Stat("/sys/module/" + module)
	return err == nil
}

// cpuVirtualises says whether the first CPU has the flag vmx or svm.
func cpuVirtualises() bool {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false
	}
	return hasVirtFlag(string(b))
}

func hasVirtFlag(cpuinfo string) bool {
	for line := range strings.Lines(cpuinfo) {
		name, flags, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) != "flags" {
			continue
		}
		for _, f := range strings.Fields(flags) {
			if f == "vmx" || f == "svm" {
				return true
			}
		}
		return false
	}
	return false
}
