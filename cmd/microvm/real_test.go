package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tangle-network/microvm/internal/tinyguest"
)

// TestRealScripts runs the command line on a real Firecracker, with the tiny guest.
func TestRealScripts(t *testing.T) {
	path := os.Getenv("MICROVM_TEST_FIRECRACKER")
	if path == "" {
		t.Skip("it needs a real Firecracker (make test-real FIRECRACKER=path)")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/real",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			if err := setUp(env); err != nil {
				return err
			}
			kernel := filepath.Join(env.WorkDir, "vmlinux")
			env.Setenv("KERNEL", kernel)
			env.Setenv("MICROVM_EMULATOR", "")
			env.Setenv("MICROVM_FIRECRACKER_BIN", path)
			return tinyguest.Write(kernel)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"json":    jsonField,
			"lines":   lines,
			"killvmm": killVMM,
		},
	})
}
