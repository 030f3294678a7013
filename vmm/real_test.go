package vmm

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"
)

// A real Firecracker under this package alone: started, ready, adopted by another
// watcher, asked what it is, ended.
func TestARealFirecrackerIsWatched(t *testing.T) {
	t.Parallel()
	path := os.Getenv("MICROVM_TEST_FIRECRACKER")
	if path == "" {
		t.Skip("it needs a real Firecracker (make test-real FIRECRACKER=path)")
	}
	b, err := Probe(t.Context(), path)
	if err != nil || b.Name != "Firecracker" || b.Emulator || b.SnapshotVersion == "" {
		t.Fatalf("Probe: %+v, %v", b, err)
	}
	w, other := newWatcher(t), newWatcher(t)
	dir := t.TempDir()
	c := Command{Path: path, Args: []string{"--api-sock", "a.sock", "--log-path", "log"}, Dir: dir}
	began := time.Now()
	p := start(t, w, c)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := WaitReady(ctx, p, dir, "a.sock"); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s %s is ready after %v", b.Name, b.Version, time.Since(began))
	if in, err := p.WorksIn(dir); err != nil || !in {
		t.Errorf("it works in %s: %v, %v", dir, in, err)
	}
	if pid, err := SocketOwner(dir, "a.sock"); err != nil || pid != p.PID() {
		t.Errorf("the socket belongs to %d, %v; the process is %d", pid, err, p.PID())
	}
	if err := RemoveSocket(dir, "a.sock"); err == nil {
		t.Error("the socket of a living VMM was removed")
	}
	adopted, err := other.Open(p.Identity())
	if err != nil {
		t.Fatal(err)
	}
	if step, err := adopted.Stop(ctx, patience); err != nil || step != StepTerm {
		t.Errorf("Stop: %v, %v", step, err)
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		t.Fatal("its starter has not seen its end")
	}
	if s, known := p.Exit(); !known || s.Signal != syscall.SIGTERM {
		t.Errorf("it ended by %v, %v", s, known)
	}
	// It leaves its socket, and the next one would refuse it.
	if err := RemoveSocket(dir, "a.sock"); err != nil {
		t.Error(err)
	}
	if err := WaitReady(ctx, start(t, w, c), dir, "a.sock"); err != nil {
		t.Error(err)
	}
}
