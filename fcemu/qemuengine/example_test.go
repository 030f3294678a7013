package qemuengine_test

import (
	"fmt"

	"github.com/tangle-network/microvm/fcemu"
	"github.com/tangle-network/microvm/fcemu/qemuengine"
)

// Without QEMU there is no engine, and the error names the program.
func ExampleNew() {
	_, err := qemuengine.New(qemuengine.Options{EngineOptions: fcemu.EngineOptions{}, QEMU: "/no/such/qemu"})
	fmt.Println(err != nil)
	// Output: true
}
