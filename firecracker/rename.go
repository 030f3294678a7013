package firecracker

import (
	"context"
	"fmt"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/record"
)

// RenameVM is one rename(2) of the VM's directory and a new record. The VMM has
// the directory open, not its name: neither it nor the guest notices.
func (r *Runtime) RenameVM(ctx context.Context, oldID, newID string) error {
	if err := microvm.ValidateID(newID); err != nil {
		return &microvm.Error{Verb: "rename", VMID: oldID, Err: fmt.Errorf("new %w", err)}
	}
	o, err := r.begin(ctx, "rename", oldID)
	if err != nil {
		return err
	}
	defer o.end()
	if o.Rec.Status == microvm.StatusDestroyed {
		return o.fail(&microvm.TransitionError{VMID: oldID, From: o.Rec.Status, To: o.Rec.Status})
	}
	if newID == oldID {
		return o.fail(fmt.Errorf("%q: %w", newID, microvm.ErrVMExists))
	}
	if err := o.intend(func(in *record.Intent) { in.NewID = newID }); err != nil {
		return o.fail(err)
	}
	if err := o.at(fpRenameIntended); err != nil {
		return o.fail(err)
	}
	r.rollBackCreate(newID)
	o.undo.push(func() error {
		if o.ID == oldID {
			return nil
		}
		if err := o.Rename(oldID); err != nil {
			return err
		}
		return o.Save() // it may have the new name already
	})
	if err := o.Rename(newID); err != nil {
		return o.fail(fmt.Errorf("%q: %w", newID, err))
	}
	if err := o.at(fpRenameRenamed); err != nil {
		return o.fail(err)
	}
	if err := o.Save(); err != nil {
		return o.fail(err)
	}
	r.mu.Lock()
	m := r.machines[o.Rec.UID]
	r.mu.Unlock()
	if m != nil {
		m.setID(newID)
	}
	return o.finish(nil, fpRenameSaved)
}
