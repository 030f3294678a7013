package doctor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func nothing(string) (string, bool) { return "", false }

func TestExamineTriesEverythingAndLeavesNothing(t *testing.T) {
	state := t.TempDir()
	r := Examine(t.Context(), Options{StateDir: filepath.Join(state, "not", "made"), Find: nothing})
	names := map[string]Check{}
	for _, c := range r.Checks {
		if c.Name == "" || c.Status == "" || c.Detail == "" || c.For == "" {
			t.Errorf("check %+v says too little", c)
		}
		if c.Status == Missing && c.Remedy == "" {
			t.Errorf("%s is missing, and nothing is said of what mends it", c.Name)
		}
		names[c.Name] = c
	}
	for _, want := range []string{"kvm", "firecracker", "jailer", "fcemu", "guest", "state directory", "reflink", "userfaultfd", "netns", "nftables", "tap", "managed network", "cgroup v2", "mkfs.ext4"} {
		if _, ok := names[want]; !ok {
			t.Errorf("%s is not tried", want)
		}
	}
	if r.CanRun || r.Remedy == "" {
		t.Errorf("without a VMM: can run %v, remedy %q", r.CanRun, r.Remedy)
	}
	left, err := os.ReadDir(state)
	if err != nil || len(left) != 0 {
		t.Errorf("left in the state directory: %v, %v", left, err)
	}
}

func TestTheVerdictNeverTakesAnEmulatorForFirecracker(t *testing.T) {
	t.Parallel()
	with, without := KVM{MakesVM: true, Hardware: true}, KVM{MakesVM: true, Detail: "PVM"}
	for _, c := range []struct {
		name   string
		vmm    *VMM
		kvm    KVM
		canRun bool
		says   string
	}{
		{"none", nil, with, false, "no VMM"},
		{"firecracker", &VMM{Version: "1.16.1"}, with, true, "Firecracker 1.16.1 on KVM"},
		{"firecracker on PVM", &VMM{Version: "1.16.1"}, without, false, "KVM can't run Linux"},
		{"null engine", &VMM{Version: "1.16.1-fcemu", Emulator: true, Engine: engineNull}, with, false, "NO guest"},
		{"qemu on KVM", &VMM{Version: "1.16.1-fcemu", Emulator: true, Engine: engineQEMU}, with, true, "an EMULATOR of Firecracker, in QEMU with KVM"},
		{"qemu", &VMM{Version: "1.16.1-fcemu", Emulator: true, Engine: engineQEMU}, without, true, "an EMULATOR of Firecracker, in QEMU slowly"},
	} {
		r := Report{VMM: c.vmm}
		r.judge(c.kvm, true)
		if r.CanRun != c.canRun || !strings.Contains(r.Verdict, c.says) {
			t.Errorf("%s: can run %v, %q", c.name, r.CanRun, r.Verdict)
		}
		if !r.CanRun && r.Remedy == "" {
			t.Errorf("%s: no remedy", c.name)
		}
	}
}

func TestVirtualisationIsReadFromTheFlags(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"processor\t: 0\nflags\t\t: fpu vmx sse\n": true,
		"flags : svm\n":              true,
		"flags : fpu vmxnet nosvm\n": false,
		"vmx flags\t: vnmi\n":        false,
		"":                           false,
	} {
		if got := hasVirtFlag(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestProgramsThatFailOrHangAreReported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := firstLine(t.Context(), write("fails", "#!/bin/sh\nexit 3\n"), "--version"); err == nil {
		t.Error("a program that fails is no error")
	}
	if _, err := firstLine(t.Context(), write("silent", "#!/bin/sh\n"), "--version"); err == nil {
		t.Error("a program that says nothing is no error")
	}
	loud := write("loud", "#!/bin/sh\necho one\nhead -c 1000000 /dev/zero\n")
	if line, err := firstLine(t.Context(), loud, "--version"); err != nil || line != "one" {
		t.Errorf("%q, %v", line, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := firstLine(ctx, loud, "--version"); err == nil {
		t.Error("a cancelled call is no error")
	}
}
