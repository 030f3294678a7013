package inmem

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tangle-network/microvm"
)

// CreateVM makes a VM from an empty spec.
func (r *Runtime) CreateVM(ctx context.Context, id string) error {
	return r.CreateVMWithSpec(ctx, id, microvm.Spec{})
}

// CreateVMWithSpec makes a VM from spec, which must be valid; what it names (a
// kernel, a disk) need not exist. With RestoreFrom it is VerbRestore for
// FailNext and HoldNext.
func (r *Runtime) CreateVMWithSpec(ctx context.Context, id string, spec microvm.Spec) error {
	name := VerbCreate
	if spec.RestoreFrom != nil {
		name = VerbRestore
	}
	return wrap(name, id, r.create(ctx, name, id, spec.Clone()))
}

func (r *Runtime) create(ctx context.Context, name Verb, id string, spec microvm.Spec) error {
	if err := microvm.ValidateID(id); err != nil {
		return err
	}
	if err := spec.Validate(); err != nil {
		return err
	}
	free, err := r.reserve(ctx, id)
	if err != nil {
		return err
	}
	defer free()
	v := &vm{spec: spec, view: microvm.View{Status: microvm.StatusCreated}}
	if from := spec.RestoreFrom; from != nil {
		s, err := r.snapshotOf(from.VMID, from.SnapshotID)
		if err != nil {
			return err
		}
		if n := spec.Network; n != nil && (spec.ManagedNetwork() == nil) != (s.spec.ManagedNetwork() == nil) {
			return &microvm.FieldError{Field: "network", Value: fmt.Sprintf("%q", n.Mode), Rule: "a managed network if the snapshotted VM has one, and only then"}
		}
		v = restored(s, spec)
	}
	if err := r.obey(ctx, name); err != nil {
		return err
	}
	return r.locked(func() error {
		if err := r.portsAreFree(v.spec); err != nil {
			return err
		}
		v.view.CreatedAt = time.Now()
		if v.view.Status == microvm.StatusRunning {
			v.view.StartedAt = v.view.CreatedAt
		}
		r.add(id, v)
		return nil
	})
}

func (r *Runtime) snapshotOf(id, name string) (snapshot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := r.vms[id]; v != nil {
		if s, ok := v.snapshot(name); ok {
			return s, nil
		}
	}
	return snapshot{}, fmt.Errorf("%w: %q of VM %q", microvm.ErrSnapshotNotFound, name, id)
}

// restored is the VM that a snapshot becomes: the spec that it was taken with,
// but for what the caller may choose anew.
func restored(s snapshot, asked microvm.Spec) *vm {
	v := &vm{spec: s.spec.Clone()}
	v.spec.Labels, v.spec.StopMode, v.spec.Console = asked.Labels, asked.StopMode, asked.Console
	if n := v.spec.ManagedNetwork(); asked.Network != nil {
		v.spec.Network = asked.Network
	} else if n != nil {
		n.Publish = nil // the ports are the other's
	}
	switch {
	case s.info.Cold:
		v.view.Status = microvm.StatusCreated
	case asked.RestoreFrom.ResumeImmediately:
		v.view.Status = microvm.StatusRunning
	default:
		v.view.Status = microvm.StatusStopped
		v.view.StopReason = &microvm.StopReason{Cause: microvm.StopRestored}
	}
	v.memory = !s.info.Cold
	return v
}

// from is nil in the given states and a TransitionError in others.
func from(to microvm.Status, states ...microvm.Status) func(*vm) error {
	return func(v *vm) error {
		if slices.Contains(states, v.view.Status) {
			return nil
		}
		return &microvm.TransitionError{VMID: v.view.ID, From: v.view.Status, To: to}
	}
}

// alive is nil unless the VM is a tombstone: for verbs that leave the state as
// it is.
func alive(v *vm) error {
	return from(v.view.Status, microvm.StatusCreated, microvm.StatusRunning, microvm.StatusStopped)(v)
}

// StartVM makes a created or stopped VM running.
func (r *Runtime) StartVM(ctx context.Context, id string) error {
	return r.verb(ctx, VerbStart, id, from(microvm.StatusRunning, microvm.StatusCreated, microvm.StatusStopped), func(v *vm) {
		v.view.Status, v.view.StopReason, v.view.StartedAt = microvm.StatusRunning, nil, time.Now()
		v.memory = true
		r.changed(v)
	})
}

// StopVM makes a running VM stopped. Only StopModeShutdown loses its memory.
func (r *Runtime) StopVM(ctx context.Context, id string) error {
	return r.verb(ctx, VerbStop, id, from(microvm.StatusStopped, microvm.StatusRunning), func(v *vm) {
		cause := microvm.StopPaused
		switch v.spec.StopMode {
		case microvm.StopModeHibernate:
			cause = microvm.StopHibernated
		case microvm.StopModeShutdown:
			cause, v.memory = microvm.StopShutdown, false
		}
		r.stopped(v, microvm.StopReason{Cause: cause})
	})
}

// stopped ends a run. r.mu is held.
func (r *Runtime) stopped(v *vm, reason microvm.StopReason) {
	v.view.Status, v.view.StopReason, v.view.StoppedAt = microvm.StatusStopped, cloneReason(reason), time.Now()
	r.changed(v)
}

// SnapshotVM records the VM. The snapshot of one that has no memory (created,
// or stopped by shutdown or by its guest) is cold.
func (r *Runtime) SnapshotVM(ctx context.Context, id, snapshotID string) error {
	if err := microvm.ValidateSnapshotID(snapshotID); err != nil {
		return wrap(VerbSnapshot, id, err)
	}
	legal := func(v *vm) error {
		if err := alive(v); err != nil {
			return err
		}
		if _, ok := v.snapshot(snapshotID); ok {
			return fmt.Errorf("%w: %q", microvm.ErrSnapshotExists, snapshotID)
		}
		return nil
	}
	return r.verb(ctx, VerbSnapshot, id, legal, func(v *vm) {
		info := microvm.SnapshotInfo{VMID: id, Name: snapshotID, CreatedAt: time.Now(), Cold: !v.memory, VMM: VMM}
		if v.memory {
			info.MemoryBytes = int64(v.spec.MemoryMiB) << 20
		}
		v.snapshots = append(v.snapshots, snapshot{info: info, spec: v.spec})
		r.changed(v)
	})
}

// DestroyVM makes the VM a tombstone.
func (r *Runtime) DestroyVM(ctx context.Context, id string) error {
	return r.verb(ctx, VerbDestroy, id, from(microvm.StatusDestroyed, microvm.StatusCreated, microvm.StatusRunning, microvm.StatusStopped), func(v *vm) {
		v.destroyed = time.Now()
		if v.view.Status == microvm.StatusRunning {
			v.view.StoppedAt = v.destroyed
		}
		v.view.Status, v.memory = microvm.StatusDestroyed, false
		v.view.Addresses, v.view.Ports = nil, nil
		r.changed(v)
	})
}

// RenameVM gives the VM another id.
func (r *Runtime) RenameVM(ctx context.Context, oldID, newID string) error {
	return wrap(VerbRename, oldID, r.rename(ctx, oldID, newID))
}

func (r *Runtime) rename(ctx context.Context, oldID, newID string) error {
	if err := microvm.ValidateID(newID); err != nil {
		return err
	}
	return r.onVM(ctx, oldID, func(v *vm) error {
		if err := r.locked(func() error { return alive(v) }); err != nil {
			return err
		}
		free, err := r.reserve(ctx, newID)
		if err != nil {
			return fmt.Errorf("to %q: %w", newID, err)
		}
		defer free()
		if err := r.obey(ctx, VerbRename); err != nil {
			return err
		}
		return r.locked(func() error {
			r.gone(v)
			delete(r.vms, oldID)
			v.view.ID = newID
			r.vms[newID] = v
			r.changed(v)
			return nil
		})
	})
}

// ForkVM makes newID a copy of the VM in the state that it has; the copy of a
// stopped VM is stopped with the cause StopRestored.
func (r *Runtime) ForkVM(ctx context.Context, id, newID string) error {
	return wrap(VerbFork, id, r.fork(ctx, id, newID))
}

func (r *Runtime) fork(ctx context.Context, id, newID string) error {
	if err := microvm.ValidateID(newID); err != nil {
		return err
	}
	return r.onVM(ctx, id, func(v *vm) error {
		free, err := r.reserve(ctx, newID)
		if err != nil {
			return fmt.Errorf("to %q: %w", newID, err)
		}
		defer free()
		if err := r.locked(func() error { return alive(v) }); err != nil {
			return err
		}
		if err := r.obey(ctx, VerbFork); err != nil {
			return err
		}
		return r.locked(func() error {
			now := time.Now()
			spec := v.spec.Clone()
			if n := spec.ManagedNetwork(); n != nil {
				n.Publish = nil
			}
			c := &vm{spec: spec, memory: v.memory, view: microvm.View{Status: v.view.Status, CreatedAt: now}}
			switch c.view.Status {
			case microvm.StatusRunning:
				c.view.StartedAt = now
			case microvm.StatusStopped:
				c.view.StopReason = &microvm.StopReason{Cause: microvm.StopRestored}
			}
			r.add(newID, c)
			return nil
		})
	})
}
