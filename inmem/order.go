package inmem

import (
	"context"
	"fmt"

	"github.com/tangle-network/microvm"
)

// Verb names a call that FailNext and HoldNext can act on.
type Verb string

// The verbs. VerbRestore is CreateVMWithSpec with RestoreFrom.
const (
	VerbCreate         Verb = "create"
	VerbRestore        Verb = "restore"
	VerbStart          Verb = "start"
	VerbStop           Verb = "stop"
	VerbSnapshot       Verb = "snapshot"
	VerbDestroy        Verb = "destroy"
	VerbRename         Verb = "rename"
	VerbFork           Verb = "fork"
	VerbDeleteSnapshot Verb = "delete snapshot of"
	VerbPrune          Verb = "prune"
	VerbEgress         Verb = "egress"
)

// order is what the next call of a verb has to do before it may go on.
type order struct {
	err     error
	entered chan struct{} // closed on arrival
	release chan struct{} // waited for
}

// FailNext makes the next calls of a verb fail with errs, one call each, in
// this order; a nil lets its call through. Only calls that would otherwise
// succeed count: an illegal one gives its own error and uses nothing up. The VM
// stays as it was, and the caller finds err by errors.Is and errors.As.
func (r *Runtime) FailNext(verb Verb, errs ...error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, err := range errs {
		r.orders[verb] = append(r.orders[verb], order{err: err})
	}
}

// HoldNext stops the next call of a verb half-way: after its checks and before
// its effect. entered is closed when a call has come there; it goes on when
// release is called or its context ends. It takes its place behind earlier
// orders of FailNext and HoldNext.
func (r *Runtime) HoldNext(verb Verb) (entered <-chan struct{}, release func()) {
	o := order{entered: make(chan struct{}), release: make(chan struct{})}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.orders[verb] = append(r.orders[verb], o)
	return o.entered, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		select {
		case <-o.release:
		default:
			close(o.release)
		}
	}
}

// obey carries out the first order that stands for the verb.
func (r *Runtime) obey(ctx context.Context, verb Verb) error {
	r.mu.Lock()
	var o order
	if q := r.orders[verb]; len(q) > 0 {
		o, r.orders[verb] = q[0], q[1:]
	}
	r.mu.Unlock()
	if o.entered == nil {
		return o.err
	}
	close(o.entered)
	select {
	case <-o.release:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// GuestExits ends the guest of a running VM: the VM is stopped for the given
// reason (StopGuest when it has no cause), its memory is gone, and StartVM
// boots it again. Like a real guest it waits for nobody: it happens in the
// middle of a verb too.
func (r *Runtime) GuestExits(id string, reason microvm.StopReason) error {
	if reason.Cause == "" {
		reason.Cause = microvm.StopGuest
	}
	return r.look(context.Background(), "end guest of", id, func(v *vm) error {
		if err := from(microvm.StatusStopped, microvm.StatusRunning)(v); err != nil {
			return err
		}
		v.memory = false
		r.stopped(v, reason)
		return nil
	})
}

// KillVMM ends the VMM of a VM that runs or is paused in memory, as SIGKILL
// would: the VM is stopped with the cause StopVMMDied, its memory is gone.
func (r *Runtime) KillVMM(id string) error {
	reason := microvm.StopReason{Cause: microvm.StopVMMDied, Signal: "SIGKILL"}
	return r.look(context.Background(), "kill VMM of", id, func(v *vm) error {
		paused := v.view.StopReason != nil && v.memory && v.view.StopReason.Cause != microvm.StopHibernated
		switch {
		case v.view.Status == microvm.StatusRunning:
			v.memory = false
			r.stopped(v, reason)
		case v.view.Status == microvm.StatusStopped && paused:
			v.memory = false
			v.view.StopReason = cloneReason(reason)
			r.changed(v)
		default:
			return fmt.Errorf("a VM that is %s here has no VMM", v.view.Status)
		}
		return nil
	})
}
