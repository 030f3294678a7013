package inmem_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
)

// restart is a program's own code: it is written against microvm.Runtime.
func restart(ctx context.Context, rt microvm.Runtime, id string) error {
	if err := rt.StopVM(ctx, id); err != nil && !errors.Is(err, microvm.ErrInvalidTransition) {
		return err
	}
	return rt.StartVM(ctx, id)
}

// A test orders the failure that it wants to see handled.
func ExampleRuntime_FailNext() {
	ctx := context.Background()
	rt := inmem.New()
	if err := rt.CreateVM(ctx, "web-1"); err != nil {
		fmt.Println(err)
		return
	}
	rt.FailNext(inmem.VerbStart, fmt.Errorf("%w: no room on the disk", microvm.ErrHost))

	err := restart(ctx, rt, "web-1")
	fmt.Println(err)
	fmt.Println(errors.Is(err, microvm.ErrHost))
	fmt.Println(restart(ctx, rt, "web-1"))
	// Output:
	// start VM "web-1": host problem: no room on the disk
	// true
	// <nil>
}

func ExampleRuntime_GuestExits() {
	ctx := context.Background()
	rt := inmem.New()
	if err := errors.Join(rt.CreateVM(ctx, "job"), rt.StartVM(ctx, "job")); err != nil {
		fmt.Println(err)
		return
	}
	code := 0
	if err := rt.GuestExits("job", microvm.StopReason{ExitCode: &code}); err != nil {
		fmt.Println(err)
		return
	}
	v, err := rt.WaitVM(ctx, "job", microvm.StatusStopped)
	fmt.Println(v.StopReason, err)
	// Output: guest (exit code 0) <nil>
}
