package microvmtest

import (
	"context"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
)

// Options fit the suite to a provider. The zero value suits one that is fast and
// needs no spec. A function that is not given leaves out its section, which says
// so as it is skipped.
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
	// each. Defaults: 100 and 30; with Slow 1 and 12. More than 100 checks need
	// the flag -rapid.checks too.
	Checks, Steps int
	// Budget is the time after which no further random history is begun; the
	// first always runs. Default 10 s. How much the suite tries depends on it,
	// never what it calls an error: no assertion depends on speed. With 15 ms a
	// verb the rest of the suite takes another 10 s.
	Budget time.Duration
	// VMs is how many VMs live at once where there are many; default 16, with
	// Slow 3.
	VMs int
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
	// Fail makes the next call of a verb (as for Hold) fail half-way with an
	// error that is err.
	Fail func(rt microvm.Runtime, verb string, err error)
	// EndGuest makes the guest of a running VM end by itself.
	EndGuest func(ctx context.Context, rt microvm.Runtime, id string) error
	// Kill ends the VMM of a running or paused VM from outside, as SIGKILL to
	// View.PID does; it need not wait until the runtime has seen it.
	Kill func(ctx context.Context, rt microvm.Runtime, id string) error
	// Another opens a second runtime on the state of rt, as another process
	// would, while rt stays open.
	Another func(t *testing.T, rt microvm.Runtime) microvm.Runtime
	// Reopen closes rt and opens a runtime on its state, as a program that is
	// started anew would.
	Reopen func(t *testing.T, rt microvm.Runtime) microvm.Runtime
	// Leftovers lists what the VMs of rt still hold on the host: processes,
	// sockets, mounts, links, files other than those of snapshots and
	// tombstones. It is called when all of them are destroyed, and whatever it
	// returns is an error.
	Leftovers func(rt microvm.Runtime) []string
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
	pick(&o.VMs, 16, 3)
	if o.Budget <= 0 {
		o.Budget = 10 * time.Second
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
