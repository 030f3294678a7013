package microvm_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
)

// A program is written against Runtime; which provider stands behind it is
// chosen in one place.
func Example() {
	ctx := context.Background()
	var rt microvm.Runtime = inmem.New() // or firecracker.Open

	spec := microvm.Spec{VCPUs: 2, MemoryMiB: 256, Labels: map[string]string{"owner": "me"}}
	if err := rt.CreateVMWithSpec(ctx, "web-1", spec); err != nil {
		fmt.Println(err)
		return
	}
	if err := errors.Join(rt.StartVM(ctx, "web-1"), rt.SnapshotVM(ctx, "web-1", "warm")); err != nil {
		fmt.Println(err)
		return
	}
	// A clone that goes on from the snapshot at once.
	clone := microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "web-1", SnapshotID: "warm", ResumeImmediately: true}}
	if err := rt.CreateVMWithSpec(ctx, "web-2", clone); err != nil {
		fmt.Println(err)
		return
	}
	views, err := rt.ListVMs(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, v := range views {
		fmt.Println(v.ID, v.Status, v.Snapshots)
	}
	// Output:
	// web-1 running [warm]
	// web-2 running []
}

func ExampleTransitionError() {
	ctx := context.Background()
	rt := inmem.New()
	if err := rt.CreateVM(ctx, "a"); err != nil {
		fmt.Println(err)
		return
	}
	err := rt.StopVM(ctx, "a")
	var e *microvm.TransitionError
	if errors.As(err, &e) {
		fmt.Println(e.VMID, "is", e.From)
	}
	fmt.Println(errors.Is(err, microvm.ErrInvalidTransition))
	// Output:
	// a is created
	// true
}

func ExampleSpec_Validate() {
	err := microvm.Spec{VCPUs: 33, StopMode: "nap"}.Validate()
	fmt.Println(err)
	// Output:
	// vcpus: 33 is not allowed: 1 to 32
	// stop_mode: "nap" is not allowed: "pause", "hibernate" or "shutdown"
}
