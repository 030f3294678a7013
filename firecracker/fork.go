package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/snapshot"
	"github.com/tangle-network/microvm/vmm"
)

// ForkVM makes newID a copy of the VM that goes on from the same moment, by a
// snapshot that nobody sees and that is deleted afterwards: by this verb, or, when
// the program dies in between, by recovery.
func (r *Runtime) ForkVM(ctx context.Context, id, newID string) error {
	fail := func(err error) error { return refused("fork", id, hostError(err)) }
	if err := r.canFork(newID); err != nil {
		return fail(err)
	}
	uid, err := newUID()
	if err != nil {
		return fail(err)
	}
	self, err := vmm.Identify(os.Getpid())
	if err != nil {
		return fail(err)
	}
	source, err := r.load(ctx, "fork", id)
	if err != nil {
		return err
	}
	f := record.Fork{Snapshot: "fork-" + uid, PID: self.PID, StartTime: self.StartTime, BootID: self.BootID, Runtime: r.token}
	r.setForking(f.Snapshot, true)
	err = r.snapshotVM(ctx, id, f.Snapshot, &f)
	if err == nil {
		from := &microvm.RestoreFrom{VMID: id, SnapshotID: f.Snapshot, ResumeImmediately: true}
		err = r.CreateVMWithSpec(ctx, newID, microvm.Spec{RestoreFrom: from})
	}
	r.setForking(f.Snapshot, false)
	return errors.Join(err, r.endForks(context.WithoutCancel(ctx), source.UID))
}

// canFork sees that a name may be had before the guest is stopped for it.
func (r *Runtime) canFork(newID string) error {
	if err := microvm.ValidateID(newID); err != nil {
		return fmt.Errorf("new %w", err)
	}
	if isThere(r.store.Dir(newID)) && !r.rollBackCreate(newID) {
		return fmt.Errorf("%q: %w", newID, microvm.ErrVMExists)
	}
	return nil
}

func (r *Runtime) setForking(name string, on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if on {
		r.forking[name] = true
	} else {
		delete(r.forking, name)
	}
}

// goesOn says whether somebody still works on a fork.
func (r *Runtime) goesOn(f record.Fork) bool {
	now, err := vmm.Identify(f.PID)
	if err != nil {
		return !errors.Is(err, vmm.ErrGone)
	}
	if now != (vmm.Identity{PID: f.PID, StartTime: f.StartTime, BootID: f.BootID}) {
		return false
	}
	if f.PID != os.Getpid() || f.Runtime != r.token {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.forking[f.Snapshot]
}

// cutForks says that there are forks on which nobody works any more.
func (r *Runtime) cutForks(rec *record.Record) bool {
	return slices.ContainsFunc(rec.Forks, func(f record.Fork) bool { return !r.goesOn(f) })
}

// dropForks deletes the snapshots of forks on which nobody works any more.
func (o *op) dropForks() error {
	if !o.r.cutForks(o.Rec) {
		return nil
	}
	var stay []record.Fork
	var errs []error
	for _, f := range o.Rec.Forks {
		if o.r.goesOn(f) {
			stay = append(stay, f)
		} else if err := o.r.snaps.Delete(o.Rec.UID, f.Snapshot); err != nil && !errors.Is(err, snapshot.ErrNotFound) {
			stay, errs = append(stay, f), append(errs, fmt.Errorf("the snapshot of a fork stays: %w", err))
		}
	}
	o.Rec.Forks = stay
	return errors.Join(append(errs, o.Save())...)
}

// endForks is dropForks for a VM that may have another name by now, or none.
func (r *Runtime) endForks(ctx context.Context, uid string) error {
	id := r.find(uid)
	if id == "" {
		return nil
	}
	o, err := r.begin(ctx, "fork", id) // drops them; what fails is tried again for the error
	if errors.Is(err, microvm.ErrVMNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer o.end()
	if err := o.dropForks(); err != nil {
		return o.fail(err)
	}
	return nil
}
