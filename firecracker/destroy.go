package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/vmm"
)

// DestroyVM ends the VMM and removes what the VM holds. A guest is asked to shut
// down first when something of it will be missed: its StopMode is shutdown, or
// it writes to a disk in place. The tombstone and the snapshots stay.
func (r *Runtime) DestroyVM(ctx context.Context, id string) error {
	o, err := r.begin(ctx, "destroy", id)
	if err != nil {
		return err
	}
	defer o.end()
	if o.Rec.DestroyUnreported {
		o.stage = "save the record"
		o.Rec.DestroyUnreported = false
		if err := o.Save(); err != nil {
			return o.fail(err)
		}
		return nil
	}
	if o.Rec.Status == microvm.StatusDestroyed {
		return o.fail(&microvm.TransitionError{VMID: id, From: microvm.StatusDestroyed, To: microvm.StatusDestroyed})
	}
	if cut := o.Intent; cut != nil {
		// It was not resolved. If nothing comes of this, the next one does it.
		o.undo.push(func() error {
			o.forward = true
			return o.SetIntent(*cut)
		})
	}
	if err := o.intend(nil); err != nil {
		return o.fail(err)
	}
	if err := o.at(fpDestroyIntended); err != nil {
		return o.fail(err)
	}
	if err := o.askBeforeDestroy(); err != nil {
		return o.fail(err)
	}
	if err := o.destroy(false); err != nil {
		return o.notDestroyed(err)
	}
	return nil
}

func (o *op) askBeforeDestroy() error {
	ask := o.Rec.Spec.StopMode == microvm.StopModeShutdown
	for _, d := range o.Rec.Disks {
		ask = ask || d.InPlace
	}
	if !ask || o.Rec.Status != microvm.StatusRunning {
		return nil
	}
	m, err := o.machine()
	if errors.Is(err, vmm.ErrGone) {
		return nil
	}
	if err == nil {
		_, err = o.ask(m)
	}
	return err
}

// destroy goes forward only: the process is proven dead before any file goes,
// and the files are gone before the record says so.
func (o *op) destroy(unreported bool) error {
	o.stage = "end the VMM"
	m, err := o.machine()
	o.since = time.Now().UTC()
	next := *o.Rec
	destroyed(&next, o.since, unreported)
	o.Prepare(next)
	switch {
	case err == nil:
		if err := o.endDestroyed(m); err != nil {
			return err
		}
	case errors.Is(err, vmm.ErrGone):
		// The record is no proof that nothing runs.
		o.Rec.Process = nil
		if err := o.endStrays(); err != nil {
			return err
		}
		if err := o.removeSocketsAfter(o.ctx); err != nil {
			return err
		}
	default:
		return err
	}
	o.r.forget(o.Rec.UID)
	o.Rec.Process, o.forward = nil, true
	o.undo.keep()
	if err := o.r.fail(o.ctx, fpDestroyKilled); err != nil {
		return err
	}
	o.stage = "release the network"
	if err := o.releaseNetwork(); err != nil {
		return err
	}
	o.Rec.Addresses = nil
	o.stage = "remove the files"
	var errs []error
	for _, name := range []string{runName, hibernateName, consoleFile, inputFIFO} {
		errs = append(errs, os.RemoveAll(filepath.Join(o.Dir, name)))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := o.r.snaps.Sweep(o.Rec.UID); err != nil {
		return err
	}
	if err := o.r.fail(o.ctx, fpDestroyCleaned); err != nil {
		return err
	}
	o.stage = "save the record"
	destroyed(o.Rec, o.since, unreported)
	return o.finish(nil, fpDestroySaved)
}

// destroyed changes a record to it.
func destroyed(rec *record.Record, at time.Time, unreported bool) {
	if rec.Status == microvm.StatusRunning {
		rec.StoppedAt = at
	}
	rec.Status, rec.DestroyedAt, rec.Trouble = microvm.StatusDestroyed, at, ""
	rec.Process, rec.Disks, rec.Hibernated, rec.ColdBoot, rec.Base, rec.Addresses, rec.Guest = nil, nil, false, false, nil, nil, nil
	rec.DestroyUnreported = unreported
}

// notDestroyed keeps the record, with the reason: a second destroy goes on from
// there.
func (o *op) notDestroyed(err error) error {
	if o.Rec.Status == microvm.StatusDestroyed {
		return o.fail(err)
	}
	o.Rec.Trouble = fmt.Sprintf("destroy failed: %s: %v", o.stage, err)
	if o.Rec.Process == nil && o.Rec.Status == microvm.StatusRunning {
		o.stopped(microvm.StopReason{Cause: microvm.StopShutdown, Detail: "destroy was not finished"})
	}
	return o.fail(joinSave(err, o.Save()))
}

func joinSave(err, saveErr error) error {
	if saveErr != nil {
		return errors.Join(err, fmt.Errorf("save the record: %w", saveErr))
	}
	return err
}

// Prune forgets VMs that were destroyed before the given time and have no
// snapshots left.
func (r *Runtime) Prune(ctx context.Context, before time.Time) ([]string, error) {
	ids, err := r.store.IDs()
	if err != nil {
		return nil, err
	}
	pruned := []string{}
	var errs []error
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return pruned, errors.Join(append(errs, err)...)
		}
		rec, err := r.store.Load(id)
		if err != nil || rec.Status != microvm.StatusDestroyed || !rec.DestroyedAt.Before(before) {
			continue
		}
		ok, err := r.pruneOne(ctx, id, before)
		if err != nil {
			errs = append(errs, err)
		} else if ok {
			pruned = append(pruned, id)
		}
	}
	return pruned, errors.Join(errs...)
}

func (r *Runtime) pruneOne(ctx context.Context, id string, before time.Time) (bool, error) {
	o, err := r.begin(ctx, "prune", id)
	if errors.Is(err, microvm.ErrVMNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer o.end()
	// Also one that can't be read is a snapshot.
	has, err := r.snaps.Has(o.Rec.UID)
	if err != nil {
		return false, o.fail(err)
	}
	if o.Rec.Status != microvm.StatusDestroyed || !o.Rec.DestroyedAt.Before(before) || has {
		return false, nil
	}
	if err := errors.Join(r.snaps.Sweep(o.Rec.UID), o.Remove()); err != nil {
		return false, o.fail(err)
	}
	return true, nil
}
