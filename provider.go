package microvm

import "context"

// Provider changes VMs. The table in the package comment says which verb is
// legal in which state and what it answers otherwise.
//
// All ids follow ValidateID; a bad one is ErrInvalidSpec. Errors are wrapped:
// use errors.Is with the sentinels of this package and errors.As with
// *Error, *TransitionError and *FieldError.
type Provider interface {
	// CreateVM makes a VM from the provider's defaults.
	CreateVM(ctx context.Context, id string) error
	// CreateVMWithSpec makes a VM from spec; fields that spec leaves at zero
	// take the provider's defaults. With spec.RestoreFrom the VM comes from a
	// snapshot and the rest of spec but Labels, StopMode and Console is ignored:
	// the VM is running with ResumeImmediately, stopped (paused in memory)
	// without, and created when the snapshot is a cold one. It is
	// ErrSnapshotNotFound when the snapshot does not exist.
	CreateVMWithSpec(ctx context.Context, id string, spec Spec) error
	// StartVM boots a created VM; a stopped one continues from where StopMode
	// left it.
	StartVM(ctx context.Context, id string) error
	// StopVM stops a running VM as the StopMode of its spec says.
	StopVM(ctx context.Context, id string) error
	// SnapshotVM records the VM under snapshotID, which must be new for this VM
	// (ErrSnapshotExists). The snapshot of a created VM is cold: spec and disks.
	SnapshotVM(ctx context.Context, id, snapshotID string) error
	// DestroyVM releases everything that the VM holds. Its tombstone and its
	// snapshots stay. It can be called again when it failed half-way.
	DestroyVM(ctx context.Context, id string) error
	// RenameVM gives a VM another id. The guest does not notice. A used newID
	// is ErrVMExists, a tombstone's included, and nothing changes.
	RenameVM(ctx context.Context, oldID, newID string) error
}

// Query asks about VMs. No query waits for a verb that is under way.
type Query interface {
	// ListVMs returns every VM, tombstones included, sorted by ID.
	ListVMs(ctx context.Context) ([]View, error)
	// GetVM returns one VM, or ErrVMNotFound.
	GetVM(ctx context.Context, id string) (View, error)
	// ListSnapshots returns the names of a VM's snapshots in the order in which
	// they were made, or ErrVMNotFound.
	ListSnapshots(ctx context.Context, id string) ([]string, error)
}

// Runtime is a whole runtime.
type Runtime interface {
	Provider
	Query
}

// Creator is what CreateVMWithDefaults needs.
type Creator interface {
	CreateVM(ctx context.Context, id string) error
}

// UnimplementedProvider gives the verbs that a provider may leave out their
// defaults; embed it. CreateVMWithSpec ignores the spec and delegates to
// Create.CreateVM when Create is set, and is ErrUnsupported otherwise.
type UnimplementedProvider struct {
	// Create receives the calls of CreateVMWithSpec: usually the provider that
	// embeds this struct.
	Create Creator
}

// CreateVMWithSpec delegates to Create.CreateVM.
func (u UnimplementedProvider) CreateVMWithSpec(ctx context.Context, id string, _ Spec) error {
	if u.Create == nil {
		return &Error{Verb: "create", VMID: id, Err: ErrUnsupported, Remedy: "set UnimplementedProvider.Create, or implement CreateVMWithSpec"}
	}
	return u.Create.CreateVM(ctx, id)
}

// RenameVM is ErrUnsupported.
func (UnimplementedProvider) RenameVM(_ context.Context, oldID, _ string) error {
	return &Error{Verb: "rename", VMID: oldID, Err: ErrUnsupported}
}
