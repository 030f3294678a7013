package microvmtest_test

import (
	"testing"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
	"github.com/tangle-network/microvm/microvmtest"
)

// The whole test of a provider.
func ExampleTestRuntime() {
	_ = func(t *testing.T) { // func TestRuntime(t *testing.T)
		microvmtest.TestRuntime(t, func(t *testing.T) microvm.Runtime {
			return inmem.New() // yours, on a directory from t.TempDir
		}, microvmtest.Options{
			Spec: microvm.Spec{Kernel: "testdata/vmlinux", MemoryMiB: 16},
		})
	}
}
