//go:build linux

package qemuengine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/fcemu"
)

// newEngine is one that runs nothing.
func newEngine() *Engine {
	e := &Engine{accel: accelerator{name: "tcg"}, files: newResources(), ended: make(chan fcemu.End, 1)}
	e.opt.Log = func(fcemu.Level, string) {}
	e.opt.VhostDeviceVsock = "vhost-device-vsock"
	return e
}

func TestWhatIsNotEmulatedIsRefusedByName(t *testing.T) {
	t.Parallel()
	limit := &fcemu.RateLimiter{
		Bandwidth: &fcemu.TokenBucket{Size: 1, RefillTime: 1}, Ops: &fcemu.TokenBucket{Size: 1, RefillTime: 1},
	}
	socket := "socket"
	for _, c := range []struct {
		section, id string
		cfg         fcemu.Config
		want        string
	}{
		{"pmem", "p", fcemu.Config{}, "pmem"},
		{"hotplug/memory", "", fcemu.Config{}, "memory hotplug"},
		{"cpu-config", "", fcemu.Config{}, "cpu-config"},
		{"mmds/config", "", fcemu.Config{}, "MMDS"},
		{"something", "", fcemu.Config{}, `"something"`},
		{"machine-config", "", fcemu.Config{Machine: fcemu.MachineConfig{HugePages: "2M"}}, "huge_pages 2M"},
		{"machine-config", "", fcemu.Config{Machine: fcemu.MachineConfig{CPUTemplate: ptr("T2")}}, "cpu_template T2"},
		{"balloon", "", fcemu.Config{Balloon: &fcemu.Balloon{FreePageHinting: true}}, "free_page_hinting"},
		{"entropy", "", fcemu.Config{Entropy: &fcemu.Entropy{RateLimiter: limit}}, "operations"},
		{"drives", "d", fcemu.Config{Drives: []fcemu.Drive{{DriveID: "d", Socket: &socket}}}, "vhost-user"},
		{"network-interfaces", "n", fcemu.Config{NetworkInterfaces: []fcemu.NetworkInterface{{IfaceID: "n", TxRateLimiter: limit}}}, "rate limit"},
	} {
		e := newEngine()
		err := e.Attach(t.Context(), &c.cfg, c.section, c.id)
		if !errors.Is(err, errUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.section, err, c.want)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestVsockWithoutItsProgramNamesThePackage(t *testing.T) {
	t.Parallel()
	e := newEngine()
	e.opt.VhostDeviceVsock = filepath.Join(t.TempDir(), "vhost-device-vsock")
	path := filepath.Join(t.TempDir(), "v.sock")
	err := e.Attach(t.Context(), &fcemu.Config{Vsock: &fcemu.Vsock{GuestCID: 3, UDSPath: path}}, "vsock", "")
	if err == nil || !strings.Contains(err.Error(), "Debian package") || !strings.Contains(err.Error(), "vhost-device-vsock") {
		t.Errorf("error %v, want the package in it", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("uds_path is there all the same")
	}
}

func TestVsockPathThatCannotBeBound(t *testing.T) {
	t.Parallel()
	files := guestFiles(t)
	program, err := vsockProgram(files)
	if err != nil {
		t.Skipf("no vhost-device-vsock for this test: %v", err)
	}
	dir := t.TempDir()
	used := filepath.Join(dir, "used")
	if err := os.WriteFile(used, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	deep := filepath.Join(dir, strings.Repeat("deep/", 40))
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	e := newEngine()
	e.opt.VhostDeviceVsock = program
	defer e.Close()
	attach := func(path string) error {
		return e.Attach(t.Context(), &fcemu.Config{Vsock: &fcemu.Vsock{GuestCID: 3, UDSPath: path}}, "vsock", "")
	}
	if err := attach(used); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a path in use: %v", err)
	}
	if err := attach(filepath.Join(dir, "missing", "v.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
	if err := attach(dir + "/slash/"); err == nil {
		t.Error("a path that ends with a slash was taken")
	}
	// Twice: the second PUT replaces the first one's socket.
	for range 2 {
		if err := attach(filepath.Join(deep, "v.sock")); err != nil {
			t.Errorf("a deep path: %v", err)
		}
	}
	if left, err := os.ReadDir(deep); err != nil || len(left) != 1 {
		t.Errorf("beside the socket: %v, %v", left, err)
	}
}

func TestDriveThatIsNoDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	e := newEngine()
	defer e.Close()
	for _, path := range []string{dir, fifo, "/dev/null", filepath.Join(dir, "missing")} {
		cfg := &fcemu.Config{Drives: []fcemu.Drive{{DriveID: "d", PathOnHost: &path}}}
		if err := e.Attach(t.Context(), cfg, "drives", "d"); err == nil {
			t.Errorf("%s was taken", path)
		}
	}
	if len(e.files.drives) != 0 {
		t.Errorf("%d files are held", len(e.files.drives))
	}
}

func TestStartWithoutAKernelThatQEMUCanBoot(t *testing.T) {
	t.Parallel()
	e := newEngine()
	defer e.Close()
	cfg := &fcemu.Config{Machine: fcemu.MachineConfig{VCPUCount: 1, MemSizeMiB: 128}}
	if err := e.Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "boot-source") {
		t.Errorf("without a kernel: %v", err)
	}
	cfg.BootSource.KernelImagePath = filepath.Join(t.TempDir(), "vmlinux")
	for _, c := range []struct {
		kernel []byte
		want   string
	}{{elfWith(nil), "CONFIG_PVH"}, {[]byte("MZ"), "ELF"}} {
		if err := os.WriteFile(cfg.BootSource.KernelImagePath, c.kernel, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := e.Attach(t.Context(), cfg, "boot-source", ""); err != nil {
			t.Fatal(err)
		}
		if err := e.Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q in it", err, c.want)
		}
	}
	for _, step := range []error{e.Pause(t.Context()), e.Resume(t.Context()), e.CtrlAltDel(t.Context()), e.Update(t.Context(), cfg, "balloon", ""), e.CreateSnapshot(t.Context(), cfg, fcemu.SnapshotCreate{})} {
		if !errors.Is(step, errNotStarted) {
			t.Errorf("before the start: %v, want %v", step, errNotStarted)
		}
	}
}

func FuzzStateHeader(f *testing.F) {
	f.Add([]byte(`{"qemu":"7.2.22","accelerator":"tcg","macs":{"eth0":"02:00:00:00:00:01"}}` + "\nstream"))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, stream, err := newEngine().readState(strings.NewReader(string(b)))
		if (stream == nil) != (err != nil) {
			t.Fatalf("a stream %v with the error %v", stream, err)
		}
		if stream != nil {
			stream.Close()
		}
	})
}
