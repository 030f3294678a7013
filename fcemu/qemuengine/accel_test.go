//go:build linux

package qemuengine

import "testing"

func TestOnlyVmxAndSvmAreVirtualization(t *testing.T) {
	t.Parallel()
	for info, want := range map[string]bool{
		"": false,
		"processor\t: 0\nflags\t\t: fpu vmx sse\n":            true,
		"processor\t: 0\nflags\t\t: fpu sse svm":              true,
		"flags\t\t: fpu vmcall vmmcall svm_lock hypervisor\n": false,
		"vmx flags\t: vnmi\nbugs\t: svm\n":                    false,
	} {
		if got := hasVirtualization([]byte(info)); got != want {
			t.Errorf("%q: %v, want %v", info, got, want)
		}
	}
}
