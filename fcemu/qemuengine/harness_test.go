//go:build linux

package qemuengine

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tangle-network/microvm/fcemu"
)

// guestFiles is the directory with vmlinux, initrd and rootfs.ext4 for the
// tests with a real guest; its console prints "tick N" and has a shell.
func guestFiles(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("MICROVM_GUEST_DIR")
	if dir == "" {
		dir = filepath.Join("..", "..", "build", "guest")
	}
	for _, name := range []string{"vmlinux", "initrd", "rootfs.ext4"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Skipf("no guest for this test (make guest; or MICROVM_GUEST_DIR): %v", err)
		}
	}
	return dir
}

// vsockProgram finds vhost-device-vsock, which few distributions have, in PATH
// or beside the guest.
func vsockProgram(files string) (string, error) {
	if path, err := exec.LookPath("vhost-device-vsock"); err == nil {
		return path, nil
	}
	return exec.LookPath(filepath.Join(files, "vhost-device-vsock"))
}

// guest is an engine with a console.
type guest struct {
	*Engine
	t       *testing.T
	console *consoleReader
	keys    *os.File
	dir     string
	net     *namespace // where its TAPs are
	cfg     *fcemu.Config
	close   func()
}

// newGuest makes an engine whose serial port is two pipes of ours.
func newGuest(t *testing.T) *guest {
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
	g := &guest{Engine: e.(*Engine), t: t, console: newConsoleReader(outR), keys: inW, dir: t.TempDir()}
	g.close = sync.OnceFunc(func() {
		if err := g.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		inR.Close()
		inW.Close()
		outW.Close()
		<-g.console.done
	})
	t.Cleanup(g.close)
	return g
}

func copyFile(t *testing.T, from, to string) string {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	return to
}

// bootConfig is a guest with its own copy of the root disk.
func bootConfig(t *testing.T, files, dir string) *fcemu.Config {
	t.Helper()
	root := copyFile(t, filepath.Join(files, "rootfs.ext4"), filepath.Join(dir, "rootfs.ext4"))
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

// attach does what the PUTs do.
func (g *guest) attach(section, id string) {
	g.t.Helper()
	err := g.net.do(func() error { return g.Attach(testContext(g.t), g.cfg, section, id) })
	if err != nil {
		g.t.Fatal(err)
	}
}

// boot starts the guest and waits for its shell.
func (g *guest) boot(cfg *fcemu.Config) {
	g.t.Helper()
	g.cfg = cfg
	g.attach("boot-source", "")
	for _, d := range cfg.Drives {
		g.attach("drives", d.DriveID)
	}
	for _, n := range cfg.NetworkInterfaces {
		g.attach("network-interfaces", n.IfaceID)
	}
	if cfg.Vsock != nil {
		g.attach("vsock", "")
	}
	if cfg.Balloon != nil {
		g.attach("balloon", "")
	}
	if cfg.Entropy != nil {
		g.attach("entropy", "")
	}
	began := time.Now()
	if err := g.Start(testContext(g.t), cfg); err != nil {
		g.t.Fatal(err)
	}
	g.t.Logf("started in %v", time.Since(began))
	g.expect("GUEST-READY")
	g.expect("Please press Enter")
	g.typeLine("")
	g.expect("# ")
	g.t.Logf("a shell after %v", time.Since(began))
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

// shell runs a command and wants it to print a text, which is not in the
// command itself: that is echoed.
func (g *guest) shell(command, want string) {
	g.t.Helper()
	g.typeLine(command)
	g.expect(want)
}

// nextTick waits for a whole line of the guest's counter.
func (g *guest) nextTick() int {
	g.t.Helper()
	g.expect("\ntick ")
	ctx := testContext(g.t)
	for {
		if line, _, ok := strings.Cut(g.console.text(), "\n"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				g.t.Fatalf("counter: %v", err)
			}
			return n
		}
		select {
		case <-g.console.grown:
		case <-ctx.Done():
			g.t.Fatal("half a line of the counter")
		}
	}
}

func (g *guest) mustPause() {
	g.t.Helper()
	if err := g.Pause(testContext(g.t)); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) mustResume() {
	g.t.Helper()
	if err := g.Resume(testContext(g.t)); err != nil {
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
