package firecracker

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/tangle-network/microvm"
)

// exampleConfig is what an operator would write, or read with FromEnv: here with
// the VMM and the kernel of the tests.
func exampleConfig(stateDir string) Config {
	return Config{
		StateDir: stateDir,
		Binary:   under.binary, Env: []string{"FCEMU_ENGINE=null"},
		Kernel: under.kernel, Rootfs: under.rootfs,
		VCPUs: 1, MemoryMiB: 16,
	}
}

// A VM, a snapshot of it while it runs, and a clone that goes on from there.
func Example() {
	dir, err := os.MkdirTemp("", "microvm-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	rt, err := Open(ctx, exampleConfig(dir))
	if err != nil {
		log.Fatal(err)
	}
	defer rt.Close()
	steps := []error{
		rt.CreateVM(ctx, "web"),
		rt.StartVM(ctx, "web"),
		rt.SnapshotVM(ctx, "web", "warm"),
		rt.CreateVMWithSpec(ctx, "web-2", microvm.Spec{
			RestoreFrom: &microvm.RestoreFrom{VMID: "web", SnapshotID: "warm", ResumeImmediately: true},
		}),
	}
	for _, err := range steps {
		if err != nil {
			log.Fatal(err)
		}
	}
	views, err := rt.ListVMs(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range views {
		fmt.Println(v.ID, v.Status, v.Snapshots)
		if err := rt.DestroyVM(ctx, v.ID); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// web running [warm]
	// web-2 running []
}

// Errors say what a program needs to decide what to do.
func ExampleRuntime_StartVM() {
	dir, err := os.MkdirTemp("", "microvm-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	rt, err := Open(ctx, exampleConfig(dir))
	if err != nil {
		log.Fatal(err)
	}
	defer rt.Close()
	fmt.Println(rt.StartVM(ctx, "nobody"))
	// Output: start VM "nobody": no such VM
}
