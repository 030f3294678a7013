package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/microvmtest"
)

// linuxConfig runs the demo's Linux guest: in a real Firecracker where
// MICROVM_TEST_LINUX says that KVM boots it, else in the emulator's QEMU engine.
func linuxConfig(t *testing.T) Config {
	t.Helper()
	if under.real && os.Getenv("MICROVM_TEST_LINUX") == "" {
		t.Skip("MICROVM_TEST_LINUX does not say that KVM boots Linux here")
	}
	if testing.Short() {
		t.Skip("-short: a Linux guest takes seconds to boot")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil && !under.real {
		t.Skipf("no QEMU: %v (apt install qemu-system-x86)", err)
	}
	dir := os.Getenv("MICROVM_TEST_GUEST")
	if dir == "" {
		dir = "../build/guest"
	}
	dir, err := filepath.Abs(dir)
	must(t, err)
	if _, err := os.Stat(filepath.Join(dir, "vmlinux")); err != nil {
		t.Skipf("no guest: %v (make guest)", err)
	}
	c := testConfig(t)
	if !under.real {
		// vhost-device-vsock may lie beside the guest.
		c.Env = []string{"FCEMU_ENGINE=qemu", "PATH=" + dir + ":" + os.Getenv("PATH")}
	}
	c.Kernel, c.Initrd, c.Rootfs = filepath.Join(dir, "vmlinux"), filepath.Join(dir, "initrd"), filepath.Join(dir, "rootfs.ext4")
	c.BootArgs = ""
	c.MemoryMiB = 128
	c.ShutdownGrace = 3 * time.Second // most guests of the suite are deaf still
	c.APITimeout, c.SocketReadyTimeout = patience/4, patience/4
	return c
}

func TestTheProviderKeepsTheLawWithLinuxGuests(t *testing.T) {
	linuxConfig(t) // skips
	microvmtest.TestRuntime(t, func(t *testing.T) microvm.Runtime { return open(t, linuxConfig(t)) }, microvmtest.Options{
		Slow: true, Timeout: patience,
		EndGuest: func(ctx context.Context, rt microvm.Runtime, id string) error {
			// Before its user space is up, the guest is deaf to keys.
			waitTicks(t, rt.(*Runtime), id, 1)
			return pressKeys(ctx, rt.(*Runtime), id)
		},
		Leftovers: func(rt microvm.Runtime) []string { return leftovers(rt.(*Runtime).cfg.StateDir) },
	})
}

// ticks are the lines "tick N" of the demo's guest.
func ticks(t *testing.T, r *Runtime, id string) []int {
	t.Helper()
	b, err := r.ConsoleTail(bg, id, -1)
	must(t, err)
	var out []int
	for line := range strings.Lines(string(b)) {
		var n int
		if _, err := fmt.Sscanf(strings.TrimSpace(line), "tick %d", &n); err == nil {
			out = append(out, n)
		}
	}
	return out
}

func waitTicks(t *testing.T, r *Runtime, id string, n int) []int {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		got := ticks(t, r, id)
		if len(got) >= n {
			return got
		}
		if v := mustGet(t, r, id); v.Status != microvm.StatusRunning || time.Now().After(end) {
			b, err := r.ConsoleTail(bg, id, 20)
			must(t, err)
			t.Fatalf("%s has %d ticks and is %s, %v:\n%s", id, len(got), v.Status, v.StopReason, b)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestALinuxGuestLivesThroughEverything(t *testing.T) {
	r := open(t, linuxConfig(t))
	const args = DefaultBootArgs + ` console=ttyS0 microvm.test="a  b" -- --for-init`
	start(t, r, "a", microvm.Spec{BootArgs: args, Console: &microvm.Console{Input: true}})
	first := waitTicks(t, r, "a", 2)
	must(t, r.StopVM(bg, "a"))
	must(t, r.SnapshotVM(bg, "a", "s"))
	must(t, r.StartVM(bg, "a"))
	for _, id := range []string{"b", "c"} {
		clone(t, r, id, "a", "s")
	}
	must(t, r.RenameVM(bg, "b", "renamed"))
	for _, id := range []string{"renamed", "c"} {
		if got := waitTicks(t, r, id, 2); got[0] < first[len(first)-1] {
			t.Errorf("%s goes on at tick %d, the snapshot was taken at %d or later", id, got[0], first[len(first)-1])
		}
	}
	b, err := r.ConsoleTail(bg, "a", -1)
	must(t, err)
	// What is ours stands before the tail, which is init's.
	line := ""
	for l := range strings.Lines(string(b)) {
		if strings.Contains(l, "Kernel command line:") {
			line = l
		}
	}
	if !strings.Contains(line, `microvm.test="a  b"`) || !strings.Contains(line, " -- --for-init") || strings.Contains(line[strings.Index(line, " -- "):], "root=") {
		t.Errorf("the command line is %q", line)
	}
	// A guest that powers off ends its VM too.
	must(t, typeIn(r, "a", "\n")) // brings the shell
	eventually(t, "a prompt", func() bool {
		b, err := r.ConsoleTail(bg, "a", -1)
		must(t, err)
		return strings.Contains(string(b), "microvm:")
	})
	must(t, typeIn(r, "a", "poweroff\n"))
	ctx, cancel := context.WithTimeout(bg, patience)
	defer cancel()
	v, err := r.WaitVM(ctx, "a", microvm.StatusStopped)
	if errors.Is(err, context.DeadlineExceeded) {
		b, _ := r.ConsoleTail(bg, "a", 20)
		t.Fatalf("it did not power off:\n%s", b)
	}
	must(t, err)
	if v.StopReason == nil || v.StopReason.Cause != microvm.StopGuest {
		t.Errorf("reason %v", v.StopReason)
	}
}
