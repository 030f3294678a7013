//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file in place of the device opens, but makes no VM.
func TestTheKindOfKVMIsToldFromWhatIsSeen(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		facts []string
	}{
		"nothing":          {nil, []string{"no such file", "neither vmx nor svm", "none of the modules"}},
		"a file":           {map[string]string{"dev/kvm": "", "proc/cpuinfo": "flags : fpu svm\n", "sys/module/kvm_amd/x": ""}, []string{"KVM_CREATE_VM", "the CPU has svm", "loaded: kvm_amd"}},
		"flags of nothing": {map[string]string{"proc/cpuinfo": "model : vmx\nflags : fpu\n", "sys/module/kvm_pvm/x": ""}, []string{"neither vmx nor svm", "loaded: kvm_pvm"}},
	} {
		root := t.TempDir()
		for f, text := range c.files {
			if err := os.MkdirAll(filepath.Join(root, filepath.Dir(f)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, f), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got := probeKVM(root)
		if got.opens || got.kind != "not usable" {
			t.Errorf("%s: %+v", name, got)
		}
		for _, f := range c.facts {
			if !strings.Contains(got.facts, f) {
				t.Errorf("%s: the facts are %q, without %q", name, got.facts, f)
			}
		}
	}
}
