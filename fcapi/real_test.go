package fcapi_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/tinyguest"
)

// realVMM starts the Firecracker that MICROVM_TEST_FIRECRACKER names and connects
// to it. Its working directory is dir.
func realVMM(t *testing.T, dir string) (*fcapi.Client, <-chan struct{}) {
	t.Helper()
	path := os.Getenv("MICROVM_TEST_FIRECRACKER")
	if path == "" {
		t.Skip("it needs a real Firecracker (make test-real FIRECRACKER=path)")
	}
	cmd := exec.Command(path, "--api-sock", "a.sock", "--log-path", "log", "--id", "real")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ends is not the matter here
		close(done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-done
	})
	c := fcapi.New(filepath.Join(dir, "a.sock"))
	t.Cleanup(func() { c.Close() })
	end := time.Now().Add(20 * time.Second)
	for {
		_, err := c.Version(t.Context())
		if err == nil {
			return c, done
		}
		if time.Now().After(end) {
			t.Fatalf("the API did not come up: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

func ok(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// The whole way of a VM through the typed client, and back from its snapshot.
func TestARealFirecrackerUnderstandsTheClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ok(t, "write the guest", tinyguest.Write(filepath.Join(dir, "vmlinux")))
	ok(t, "write the disk", os.WriteFile(filepath.Join(dir, "disk"), make([]byte, 1<<20), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, _ := realVMM(t, dir)
	info, err := c.Describe(ctx)
	ok(t, "Describe", err)
	if info.ID != "real" || info.State != fcapi.StateNotStarted {
		t.Errorf("Describe: %+v", info)
	}
	v, err := fcapi.ParseVersion(info.VMMVersion)
	ok(t, "parse its version", err)
	c.CheckVersion(v)

	machine := fcapi.MachineConfig{VCPUCount: 1, MemSizeMiB: 16, TrackDirtyPages: true}
	ok(t, "PutMachineConfig", c.PutMachineConfig(ctx, machine))
	got, err := c.GetMachineConfig(ctx)
	ok(t, "GetMachineConfig", err)
	if got.VCPUCount != 1 || got.MemSizeMiB != 16 || !got.TrackDirtyPages {
		t.Errorf("GetMachineConfig: %+v", got)
	}
	args := "reboot=k panic=1"
	ok(t, "PutBootSource", c.PutBootSource(ctx, fcapi.BootSource{KernelImagePath: "vmlinux", BootArgs: &args}))
	ok(t, "PutDrive", c.PutDrive(ctx, fcapi.Drive{DriveID: "disk", PathOnHost: "disk"}))
	ok(t, "PutVsock", c.PutVsock(ctx, fcapi.Vsock{GuestCID: 3, UDSPath: "v.sock"}))
	ok(t, "PutEntropy", c.PutEntropy(ctx, fcapi.EntropyDevice{}))
	ok(t, "PutMetrics", c.PutMetrics(ctx, fcapi.Metrics{MetricsPath: "metrics"}))
	ok(t, "StartInstance", c.StartInstance(ctx))
	// What it refuses comes back as a typed error, and it goes on.
	var fault *fcapi.Error
	if err := c.StartInstance(ctx); !errors.As(err, &fault) || fault.Status != 400 || fault.Fault == "" {
		t.Errorf("a second start: %v", err)
	}
	ok(t, "FlushMetrics", c.FlushMetrics(ctx))
	ok(t, "Pause", c.Pause(ctx))
	for _, kind := range []fcapi.SnapshotType{fcapi.SnapshotFull, fcapi.SnapshotDiff} {
		ok(t, "CreateSnapshot "+string(kind), c.CreateSnapshot(ctx, fcapi.SnapshotCreate{
			SnapshotType: kind, SnapshotPath: "state-" + string(kind), MemFilePath: "memory-" + string(kind),
		}))
	}
	ok(t, "Resume", c.Resume(ctx))
	config, err := c.VMConfig(ctx)
	ok(t, "VMConfig", err)
	if len(config.Drives) != 1 || config.Vsock == nil || config.Vsock.UDSPath != "v.sock" {
		t.Errorf("VMConfig: %+v", config)
	}
	b, err := os.ReadFile(filepath.Join(dir, "metrics"))
	if err != nil || !strings.HasPrefix(string(b), "{") {
		t.Errorf("the metrics file begins %.20q, %v", b, err)
	}

	// The sockets are the other one's.
	ok(t, "remove the vsock's socket", os.Remove(filepath.Join(dir, "v.sock")))
	ok(t, "remove the API's socket", os.Remove(filepath.Join(dir, "a.sock")))
	clone, ended := realVMM(t, dir)
	ok(t, "LoadSnapshot", clone.LoadSnapshot(ctx, fcapi.SnapshotLoad{
		SnapshotPath: "state-Full", ResumeVM: true,
		MemBackend: &fcapi.MemoryBackend{BackendType: fcapi.MemoryFile, BackendPath: "memory-Full"},
	}))
	info, err = clone.Describe(ctx)
	ok(t, "Describe the clone", err)
	if info.State != fcapi.StateRunning {
		t.Errorf("the clone is %s", info.State)
	}
	ok(t, "SendCtrlAltDel", clone.SendCtrlAltDel(ctx))
	select {
	case <-ended:
	case <-ctx.Done():
		t.Error("Ctrl-Alt-Del did not end the clone")
	}
}

// More than Firecracker reads at a time (1 KiB), and a refusal among them.
func TestARealVMMAnswersRequestsThatComeTogetherInOrder(t *testing.T) {
	t.Parallel()
	c, _ := realVMM(t, t.TempDir())
	var all []fcapi.Request
	for i := range 40 {
		all = append(all, fcapi.PutMachineConfigRequest(fcapi.MachineConfig{VCPUCount: 1, MemSizeMiB: 128 + i}))
	}
	if n, err := c.DoAll(t.Context(), time.Minute, all); n != len(all) || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if got, err := c.GetMachineConfig(t.Context()); err != nil || got.MemSizeMiB != 128+39 {
		t.Errorf("%+v, %v", got, err)
	}
	all[7] = fcapi.PutMachineConfigRequest(fcapi.MachineConfig{VCPUCount: 77, MemSizeMiB: 128})
	n, err := c.DoAll(t.Context(), time.Minute, all)
	var fault *fcapi.Error
	if n != 7 || !errors.As(err, &fault) || fault.Status != 400 {
		t.Errorf("%d, %v", n, err)
	}
}
