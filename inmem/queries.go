package inmem

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tangle-network/microvm"
)

// ListVMs returns every VM, tombstones included, sorted by id.
func (r *Runtime) ListVMs(ctx context.Context) ([]microvm.View, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list VMs: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	views := make([]microvm.View, 0, len(r.vms))
	for _, v := range r.vms {
		views = append(views, v.seen())
	}
	slices.SortFunc(views, func(a, b microvm.View) int { return cmp.Compare(a.ID, b.ID) })
	return views, nil
}

// GetVM returns one VM.
func (r *Runtime) GetVM(ctx context.Context, id string) (microvm.View, error) {
	var view microvm.View
	err := r.look(ctx, "get", id, func(v *vm) error {
		view = v.seen()
		return nil
	})
	return view, err
}

// ListSnapshots returns the names of the VM's snapshots, oldest first.
func (r *Runtime) ListSnapshots(ctx context.Context, id string) ([]string, error) {
	var names []string
	err := r.look(ctx, "list snapshots of", id, func(v *vm) error {
		names = v.seen().Snapshots
		return nil
	})
	return names, err
}

// SpecOf returns the spec that the VM was made with; that of a restored VM is
// the spec of the snapshotted one with the caller's Labels, StopMode and
// Console.
func (r *Runtime) SpecOf(id string) (microvm.Spec, error) {
	var spec microvm.Spec
	err := r.look(context.Background(), "get spec of", id, func(v *vm) error {
		spec = v.spec.Clone()
		return nil
	})
	return spec, err
}

// GetSnapshot describes one snapshot.
func (r *Runtime) GetSnapshot(ctx context.Context, id, snapshotID string) (microvm.SnapshotInfo, error) {
	var info microvm.SnapshotInfo
	err := r.look(ctx, "get snapshot of", id, func(v *vm) error {
		s, ok := v.snapshot(snapshotID)
		if !ok {
			return fmt.Errorf("%w: %q", microvm.ErrSnapshotNotFound, snapshotID)
		}
		info = s.info
		info.VMID = id // the VM's name of today
		return nil
	})
	return info, err
}

// look runs f on the VM as it is now, without waiting for its turn.
func (r *Runtime) look(ctx context.Context, what Verb, id string, f func(*vm) error) error {
	if err := ctx.Err(); err != nil {
		return wrap(what, id, err)
	}
	return wrap(what, id, r.locked(func() error {
		v := r.vms[id]
		if v == nil {
			return microvm.ErrVMNotFound
		}
		return f(v)
	}))
}

// DeleteSnapshot removes a snapshot, a tombstone's too.
func (r *Runtime) DeleteSnapshot(ctx context.Context, id, snapshotID string) error {
	legal := func(v *vm) error {
		if _, ok := v.snapshot(snapshotID); !ok {
			return fmt.Errorf("%w: %q", microvm.ErrSnapshotNotFound, snapshotID)
		}
		return nil
	}
	return r.verb(ctx, VerbDeleteSnapshot, id, legal, func(v *vm) {
		v.snapshots = slices.DeleteFunc(v.snapshots, func(s snapshot) bool { return s.info.Name == snapshotID })
		r.changed(v)
	})
}

// Prune forgets VMs that were destroyed before the given time and have no
// snapshots; the ids are sorted. Tombstones that a verb is at work on stay.
func (r *Runtime) Prune(ctx context.Context, before time.Time) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("prune: %w", err)
	}
	if err := r.obey(ctx, VerbPrune); err != nil {
		return nil, fmt.Errorf("prune: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for id, v := range r.vms {
		if v.view.Status != microvm.StatusDestroyed || !v.destroyed.Before(before) || len(v.snapshots) > 0 {
			continue
		}
		r.gone(v)
		delete(r.vms, id)
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}
