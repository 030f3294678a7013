//go:build linux

package qemuengine

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// A client that is not ours, the crate fctools, drives fcemu through the life
// of a guest and of its clone.
func TestAClientThatIsNotOursDrivesAGuest(t *testing.T) {
	if os.Getenv("MICROVM_TEST_THIRDPARTY") != "1" {
		t.Skip("MICROVM_TEST_THIRDPARTY is not 1: no foreign client is downloaded, built and run")
	}
	cargo, err := exec.LookPath("cargo")
	if err != nil {
		t.Skipf("no Rust to build the foreign client with (https://rustup.rs): %v", err)
	}
	files, err := filepath.Abs(guestFiles(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath(defaultQEMU); err != nil {
		t.Skipf("no QEMU: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	fcemu, work, target := filepath.Join(t.TempDir(), "fcemu"), t.TempDir(), t.TempDir()
	out, err := exec.CommandContext(ctx, "go", "build", "-o", fcemu, "../../cmd/fcemu").CombinedOutput()
	if err != nil {
		t.Fatalf("build fcemu: %v\n%s", err, out)
	}
	run := exec.CommandContext(ctx, cargo, "run", "--quiet", "--locked",
		"--manifest-path", "testdata/fctools-client/Cargo.toml", "--target-dir", target, "--", fcemu, files, work)
	run.Env = append(os.Environ(), "FCEMU_ENGINE=qemu")
	out, err = run.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("the foreign client failed: %v", err)
	}
}
