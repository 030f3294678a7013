//go:build linux

package qemuengine

import (
	"bytes"
	"fmt"
	"os"
)

// accelerator is how QEMU runs the guest's code.
type accelerator struct {
	name string // "kvm" or "tcg"
	why  string // one line for the log
}

// chooseAccelerator takes KVM where it can boot Linux. A /dev/kvm alone does
// not prove that: without vmx or svm it belongs to a software hypervisor (PVM)
// that runs no ordinary kernel.
func chooseAccelerator() (accelerator, error) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return accelerator{}, fmt.Errorf("look for virtualization extensions: %w", err)
	}
	if !hasVirtualization(info) {
		return accelerator{"tcg", "TCG: the CPU has neither vmx nor svm"}, nil
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return accelerator{"tcg", "TCG: " + err.Error()}, nil
	}
	f.Close()
	return accelerator{"kvm", "KVM"}, nil
}

// hasVirtualization looks into the text of /proc/cpuinfo.
func hasVirtualization(cpuinfo []byte) bool {
	for line := range bytes.Lines(cpuinfo) {
		key, flags, ok := bytes.Cut(line, []byte(":"))
		if !ok || string(bytes.TrimSpace(key)) != "flags" {
			continue
		}
		for _, f := range bytes.Fields(flags) {
			if string(f) == "vmx" || string(f) == "svm" {
				return true
			}
		}
	}
	return false
}
