package vmm

import (
	"os"
	"testing"
)

// BenchmarkStartUntilReady starts the VMM that MICROVM_TEST_FIRECRACKER names,
// or else a small Go program, waits for its API socket and kills it.
func BenchmarkStartUntilReady(b *testing.B) {
	w, err := NewWatcher()
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	c := Command{Path: self, Env: []string{helperEnv + "=serve a.sock 0s"}}
	if path := os.Getenv("MICROVM_TEST_FIRECRACKER"); path != "" {
		c = Command{Path: path, Args: []string{"--api-sock", "a.sock", "--log-path", "log"}}
	}
	for b.Loop() {
		b.StopTimer()
		c.Dir = b.TempDir()
		b.StartTimer()
		p, err := w.Start(c)
		if err != nil {
			b.Fatal(err)
		}
		if err := WaitReady(b.Context(), p, c.Dir, "a.sock"); err != nil {
			b.Error(err)
		}
		b.StopTimer()
		if err := p.Kill(); err != nil {
			b.Error(err)
		}
		<-p.Done()
		b.StartTimer()
	}
}
