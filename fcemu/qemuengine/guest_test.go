//go:build linux

package qemuengine

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tangle-network/microvm/fcemu"
)

// guestFiles is the directory with vmlinux, initrd and rootfs.ext4 for the
// tests with a real guest; its console prints "tick N" and has a shell.
func guestFiles(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("MICROVM_TEST_GUEST")
	if dir == "" {
		t.Skip("MICROVM_TEST_GUEST names no directory with vmlinux, initrd and rootfs.ext4: no real guest is booted")
	}
	return dir
}

// guest is an engine with a console.
type guest struct {
	*Engine
	t       *testing.T
	console *consoleReader
	keys    *os.File
	dir     string
	cfg     *fcemu.Config
}

// newGuest makes an engine whose serial port is two pipes of ours.
func newGuest(t *testing.T, dir string) *guest {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// A test's end waits for the engine's Close, so nothing is logged after it.
	log := func(_ fcemu.Level, msg string) { t.Log(msg) }
	e, err := New(Options{EngineOptions: fcemu.EngineOptions{Log: log, Stdin: int(inR.Fd()), Stdout: int(outW.Fd())}})
	if err != nil {
		t.Skipf("no QEMU: %v", err)
	}
	g := &guest{Engine: e.(*Engine), t: t, console: newConsoleReader(outR), keys: inW, dir: dir}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		inR.Close()
		inW.Close()
		outW.Close()
		<-g.console.done
	})
	return g
}

// bootConfig is a guest with its own copy of the root disk.
func bootConfig(t *testing.T, files, dir string) *fcemu.Config {
	t.Helper()
	root := filepath.Join(dir, "rootfs.ext4")
	b, err := os.ReadFile(filepath.Join(files, "rootfs.ext4"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root, b, 0o600); err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(files, "initrd")
	return &fcemu.Config{
		BootSource: fcemu.BootSource{
			KernelImagePath: filepath.Join(files, "vmlinux"), InitrdPath: &initrd,
			BootArgs: ptr("console=ttyS0 reboot=k panic=1 quiet pci=off"),
		},
		Machine: fcemu.MachineConfig{VCPUCount: 1, MemSizeMiB: 128, HugePages: "None"},
		Drives:  []fcemu.Drive{{DriveID: "rootfs", IsRootDevice: true, PathOnHost: &root, CacheType: "Unsafe"}},
	}
}

func ptr[T any](v T) *T { return &v }

// boot starts the guest and waits for its shell.
func (g *guest) boot(cfg *fcemu.Config) {
	g.t.Helper()
	g.cfg = cfg
	ctx := testContext(g.t)
	if err := g.Attach(ctx, cfg, "boot-source", ""); err != nil {
		g.t.Fatal(err)
	}
	for _, d := range cfg.Drives {
		if err := g.Attach(ctx, cfg, "drives", d.DriveID); err != nil {
			g.t.Fatal(err)
		}
	}
	if err := g.Start(ctx, cfg); err != nil {
		g.t.Fatal(err)
	}
	g.expect("GUEST-READY")
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func (g *guest) expect(marker string) {
	g.t.Helper()
	if err := g.console.wait(testContext(g.t), marker); err != nil {
		g.t.Fatalf("%q did not appear: %v; console:\n%s", marker, err, g.console.text())
	}
}

func (g *guest) typeLine(line string) {
	g.t.Helper()
	if _, err := g.keys.WriteString(line + "\n"); err != nil {
		g.t.Fatal(err)
	}
}

// end waits for the end of the guest.
func (g *guest) end() fcemu.End {
	g.t.Helper()
	select {
	case end := <-g.Ended():
		return end
	case <-testContext(g.t).Done():
		g.t.Fatalf("the guest did not end; console:\n%s", g.console.text())
	}
	panic("unreachable")
}

// consoleReader collects what a guest prints.
type consoleReader struct {
	mu    sync.Mutex
	all   []byte
	grown chan struct{}
	done  chan struct{}
}

func newConsoleReader(f *os.File) *consoleReader {
	c := &consoleReader{grown: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		defer f.Close()
		buf := make([]byte, 4096)
		for {
			n, err := f.Read(buf)
			c.mu.Lock()
			c.all = append(c.all, buf[:n]...)
			c.mu.Unlock()
			notify(c.grown, struct{}{})
			if err != nil {
				return
			}
		}
	}()
	return c
}

func (c *consoleReader) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.all)
}

// wait consumes the console up to and with the marker.
func (c *consoleReader) wait(ctx context.Context, marker string) error {
	for {
		c.mu.Lock()
		if i := bytes.Index(c.all, []byte(marker)); i >= 0 {
			c.all = c.all[i+len(marker):]
			c.mu.Unlock()
			return nil
		}
		c.mu.Unlock()
		select {
		case <-c.grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestGuestBootsAndRebootEndsIt(t *testing.T) {
	t.Parallel()
	files := guestFiles(t)
	g := newGuest(t, t.TempDir())
	g.boot(bootConfig(t, files, g.dir))
	g.typeLine("reboot -f")
	if end := g.end(); end.ExitCode != 0 {
		t.Errorf("end = %+v, want exit code 0", end)
	}
}

func TestPanicEndsTheGuestWithCodeZero(t *testing.T) {
	t.Parallel()
	files := guestFiles(t)
	g := newGuest(t, t.TempDir())
	g.boot(bootConfig(t, files, g.dir))
	g.typeLine("echo c > /proc/sysrq-trigger")
	if end := g.end(); end.ExitCode != 0 {
		t.Errorf("end = %+v, want exit code 0", end)
	}
	g.expect("Kernel panic")
}

func TestTripleFaultEndsTheGuestWithCodeOne(t *testing.T) {
	t.Parallel()
	files := guestFiles(t)
	g := newGuest(t, t.TempDir())
	cfg := bootConfig(t, files, g.dir)
	cfg.BootSource.BootArgs = ptr("console=ttyS0 reboot=t quiet")
	g.boot(cfg)
	g.typeLine("reboot -f")
	if end := g.end(); g.accel.name == "tcg" && end.ExitCode != 1 {
		t.Errorf("end = %+v, want exit code 1", end)
	}
}

// A power-off leaves the VMM running, and pausing, resuming and keys are no
// errors then.
func TestPowerOffIsNoEnd(t *testing.T) {
	t.Parallel()
	files := guestFiles(t)
	g := newGuest(t, t.TempDir())
	g.boot(bootConfig(t, files, g.dir))
	g.typeLine("poweroff -f")
	ctx := testContext(t)
	for !g.vm.isHalted() {
		select {
		case end := <-g.Ended():
			t.Fatalf("the guest ended: %+v", end)
		case <-ctx.Done():
			t.Fatalf("no power-off; console:\n%s", g.console.text())
		case <-time.After(5 * time.Millisecond):
		}
	}
	for _, step := range []func(context.Context) error{g.Pause, g.Pause, g.Resume, g.Resume, g.CtrlAltDel} {
		if err := step(ctx); err != nil {
			t.Error(err)
		}
	}
	select {
	case end := <-g.Ended():
		t.Errorf("the guest ended: %+v", end)
	default:
	}
}

func TestCtrlAltDelReboots(t *testing.T) {
	t.Parallel()
	files := guestFiles(t)
	g := newGuest(t, t.TempDir())
	g.boot(bootConfig(t, files, g.dir))
	g.typeLine("echo 1 > /proc/sys/kernel/ctrl-alt-del; echo arm''ed")
	g.expect("armed")
	ctx := testContext(t)
	// Pressed while the guest stands still, seen when it goes on.
	if err := g.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.CtrlAltDel(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	if end := g.end(); end.ExitCode != 0 {
		t.Errorf("end = %+v, want exit code 0", end)
	}
}
