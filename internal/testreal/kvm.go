//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// kvm is what /dev/kvm is, as far as it can be told without booting anything.
type kvm struct {
	opens       bool
	kind, facts string
}

func (k kvm) String() string { return k.kind + ": " + k.facts }

// kvmModules are those that give KVM its hardware, and one that does without.
var kvmModules = []string{"kvm_amd", "kvm_intel", "kvm_pvm"}

// probeKVM tells facts, not conclusions: whether the device opens and makes a VM,
// which flags the CPU has, which module is loaded. root is "/" but in tests.
func probeKVM(root string) kvm {
	var facts []string
	opens := true
	if err := makeVM(filepath.Join(root, "dev/kvm")); err != nil {
		opens = false
		facts = append(facts, err.Error())
	} else {
		facts = append(facts, "makes a VM")
	}
	flags := "the CPU has neither vmx nor svm"
	if have := cpuFlags(filepath.Join(root, "proc/cpuinfo")); have != "" {
		flags = "the CPU has " + have
	}
	facts = append(facts, flags)
	var modules []string
	for _, m := range kvmModules {
		if _, err := os.Stat(filepath.Join(root, "sys/module", m)); err == nil {
			modules = append(modules, m)
		}
	}
	if len(modules) == 0 {
		facts = append(facts, "none of the modules "+strings.Join(kvmModules, ", ")+" is loaded")
	} else {
		facts = append(facts, "loaded: "+strings.Join(modules, ", "))
	}
	kind := "KVM of an unknown kind"
	switch {
	case !opens:
		kind = "not usable"
	case strings.Contains(flags, "svm") && slices.Contains(modules, "kvm_amd"):
		kind = "KVM on AMD's SVM"
	case strings.Contains(flags, "vmx") && slices.Contains(modules, "kvm_intel"):
		kind = "KVM on Intel's VMX"
	case slices.Contains(modules, "kvm_pvm"):
		kind = "PVM"
	}
	return kvm{opens, kind, strings.Join(facts, "; ")}
}

// makeVM is KVM_CREATE_VM.
func makeVM(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	const kvmCreateVM = 0xAE01 // linux/kvm.h
	vm, err := unix.IoctlRetInt(int(f.Fd()), kvmCreateVM)
	if err != nil {
		return fmt.Errorf("KVM_CREATE_VM: %w", err)
	}
	return unix.Close(vm)
}

// cpuFlags are those of vmx and svm that the first CPU has.
func cpuFlags(cpuinfo string) string {
	b, err := os.ReadFile(cpuinfo)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		have := strings.Fields(value)
		have = slices.DeleteFunc(have, func(f string) bool { return f != "vmx" && f != "svm" })
		return strings.Join(have, " and ")
	}
	return ""
}
