//go:build linux

package qemuengine

import (
	"fmt"
	"os"
	"testing"

	"github.com/tangle-network/microvm/internal/leaktest"
)

// asVMM makes the test program a VMM with a guest, to be killed.
const asVMM = "FCEMU_TEST_VMM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asVMM); dir != "" {
		if err := runVMM(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(leaktest.Run(m))
}
