package cli

import (
	"context"

	"github.com/tangle-network/microvm/firecracker"
)

// openFirecracker opens the provider on the state directory.
func openFirecracker(ctx context.Context, a *app) (runtime, error) {
	c, err := a.hostConfig()
	if err != nil {
		return nil, err
	}
	choice, err := a.chooseVMM(&c)
	if err != nil {
		return nil, err
	}
	a.vmm = choice
	c.NoRecovery = a.noRecovery
	rt, err := firecracker.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	return rt, nil
}
