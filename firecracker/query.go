package firecracker

import (
	"context"
	"errors"
	"path/filepath"
	"slices"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/vmm"
)

// load reads a record for a query: without any lock.
func (r *Runtime) load(ctx context.Context, verb, id string) (*record.Record, error) {
	err := microvm.ValidateID(id)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, &microvm.Error{Verb: verb, VMID: id, Err: err}
	}
	rec, err := r.store.Load(id)
	if err != nil {
		return nil, r.lockError(verb, id, err)
	}
	return rec, nil
}

// GetVM returns one VM, as its record and its process say.
func (r *Runtime) GetVM(ctx context.Context, id string) (microvm.View, error) {
	rec, err := r.load(ctx, "get", id)
	if err != nil {
		return microvm.View{}, err
	}
	v, err := r.view(rec)
	if err != nil {
		return v, r.lockError("get", id, err)
	}
	return v, nil
}

// ListVMs returns all VMs, sorted by id. VMs whose records can't be read are
// left out; Recover reports them.
func (r *Runtime) ListVMs(ctx context.Context) ([]microvm.View, error) {
	ids, err := r.store.IDs()
	if err != nil {
		return nil, err
	}
	views := make([]microvm.View, 0, len(ids))
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rec, err := r.store.Load(id)
		var v microvm.View
		if err == nil {
			v, err = r.view(rec)
		}
		switch {
		case err == nil:
			views = append(views, v)
		case !errors.Is(err, microvm.ErrVMNotFound):
			r.cfg.Log.Warn("a VM is not listed", "vm", id, "err", err)
		}
	}
	return views, nil
}

// view shows a record; a death that the record does not have yet is shown too.
func (r *Runtime) view(rec *record.Record) (microvm.View, error) {
	trouble := rec.Trouble
	names, err := r.snapshotNames(rec)
	if err != nil {
		names, trouble = []string{}, err.Error()
	}
	if rec.Process != nil {
		m, err := r.machine(rec)
		if errors.Is(err, vmm.ErrGone) && !r.beingEnded(rec) {
			// A verb may have ended it, and said so, since the record was read; the
			// name may even be another VM's by now, or nobody's.
			now, err := r.store.Load(rec.ID)
			if err != nil {
				return microvm.View{}, err
			}
			if now.UID != rec.UID || now.Process == nil || identity(now.Process) != identity(rec.Process) {
				return r.view(now)
			}
			dead := *rec
			r.bury(&dead, m, r.store.Dir(rec.ID))
			rec = &dead
		}
	}
	// The record is shared: the view must not be.
	c := rec.Spec.Clone()
	v := microvm.View{
		ID: rec.ID, UID: rec.UID, Status: rec.Status, Snapshots: names,
		CreatedAt: rec.CreatedAt, StartedAt: rec.StartedAt, StoppedAt: rec.StoppedAt,
		VMM: rec.VMM, VMMVersion: rec.VMMVersion,
		Labels: c.Labels, SpecDigest: c.Digest(),
		SnapshotPause: rec.SnapshotPause, Trouble: trouble,
		Addresses: slices.Clone(rec.Addresses),
	}
	if n := c.ManagedNetwork(); n != nil && len(v.Addresses) > 0 {
		v.Ports = n.Publish
	}
	if rec.StopReason != nil {
		reason := *rec.StopReason
		v.StopReason = &reason
	}
	if rec.Process != nil {
		v.PID = rec.Process.PID
	}
	return v, nil
}

// beingEnded says that a verb in flight has ended the VMM and will say so.
func (r *Runtime) beingEnded(rec *record.Record) bool {
	in, err := r.store.Intent(rec.ID)
	return err == nil && in != nil && in.UID == rec.UID && (in.Verb == "stop" || in.Verb == "destroy")
}

// Dir is the directory of a VM, for programs that look at its files.
func (r *Runtime) Dir(id string) (string, error) {
	if err := microvm.ValidateID(id); err != nil {
		return "", err
	}
	return filepath.Abs(r.store.Dir(id))
}

// Spec returns the spec of a VM with the provider's defaults filled in.
func (r *Runtime) Spec(ctx context.Context, id string) (microvm.Spec, error) {
	rec, err := r.load(ctx, "get the spec of", id)
	if err != nil {
		return microvm.Spec{}, err
	}
	return rec.Spec.Clone(), nil
}
