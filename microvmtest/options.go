package microvmtest

import (
	"context"
	"time"

	"github.com/tangle-network/microvm"
)

// Options fit the suite to a provider. The zero value suits one that is fast and
// needs no spec.
type Options struct {
	// Spec is what every VM is made with; Labels and RestoreFrom are the suite's
	// to set. With the zero Spec, CreateVM is used too.
	Spec microvm.Spec
	// Timeout bounds each call; default 30 s, with Slow 2 minutes.
	Timeout time.Duration
	// Slow is for verbs that cost seconds: everything is tried once, with few
	// VMs, and there is one short random history.
	Slow bool
	// Checks is the number of random histories, Steps the number of verbs in
	// each. Defaults: 100 and 30; with Slow 1 and 12.
	Checks, Steps int
	// Budget is the time after which no further random history is begun; the
	// first always runs. Default 20 s. What the suite finds depends on it,
	// never what it calls an error.
	Budget time.Duration
	// Parallel runs the sections beside each other, each on a runtime of its own.
	Parallel bool
	// Lacks says what the provider leaves out, and why. The suite then checks
	// that it is refused as ErrUnsupported, where that can be seen, and skips the
	// rest with this reason.
	Lacks map[Feature]string
	// Hold stops the next call of a verb ("create", "start", "stop", "snapshot",
	// "destroy" or "rename") half-way: entered is closed when a call
	// has come there, and it stays until release is called or its context ends.
	// Without Hold, what happens during a verb is tested only by chance.
	Hold func(rt microvm.Runtime, verb string) (entered <-chan struct{}, release func())
	// EndGuest makes the guest of a running VM end by itself. Without it the
	// section about it is skipped.
	EndGuest func(ctx context.Context, rt microvm.Runtime, id string) error
}

// Feature is a part of the contract that a provider may leave out.
type Feature string

// What can be left out.
const (
	// Specs: CreateVMWithSpec ignores the spec, as UnimplementedProvider's does.
	Specs Feature = "specs"
	// Renames: RenameVM is ErrUnsupported.
	Renames Feature = "renames"
	// Restores: CreateVMWithSpec with RestoreFrom is ErrUnsupported.
	Restores Feature = "restores"
	// Hibernation: StopModeHibernate is ErrUnsupported, from CreateVMWithSpec.
	Hibernation Feature = "hibernation"
	// Shutdown: StopModeShutdown is ErrUnsupported, from CreateVMWithSpec.
	Shutdown Feature = "shutdown"
)

func (o Options) withDefaults() Options {
	pick := func(n *int, fast, slow int) {
		switch {
		case *n > 0:
		case o.Slow:
			*n = slow
		default:
			*n = fast
		}
	}
	pick(&o.Checks, 100, 1)
	pick(&o.Steps, 30, 12)
	if o.Budget <= 0 {
		o.Budget = 20 * time.Second
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
		if o.Slow {
			o.Timeout = 2 * time.Minute
		}
	}
	return o
}

// some is fast, or slow for a slow provider.
func (o Options) some(fast, slow int) int {
	if o.Slow {
		return slow
	}
	return fast
}

func (o Options) zeroSpec() bool { return o.Spec.Digest() == microvm.Spec{}.Digest() }
