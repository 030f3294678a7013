package fcemu

import (
	"context"
	"io"
)

// Engine is what stands behind the API: the thing that runs (or pretends to
// run) the guest. The API state machine calls it from one goroutine, one call
// at a time, with settings that it has already checked; Ended may fire at any
// moment.
type Engine interface {
	// Name is "null" or "qemu"; it appears in the version and in the log.
	Name() string

	// Attach is called for each device or setting when it is PUT before boot,
	// so that the engine can refuse what it does not emulate (the error
	// becomes a 400) and open what Firecracker opens at that moment: TAPs,
	// the vsock socket. section is the API's name: "drives", "vsock",
	// "network-interfaces", "balloon", "entropy", "pmem", "hotplug/memory",
	// "cpu-config", "mmds/config", "serial", "machine-config", "boot-source". cfg already
	// holds the new value; id is the device's id where it has one. When a
	// device is replaced, Attach is called again with the same id.
	Attach(ctx context.Context, cfg *Config, section, id string) error

	// Start boots the guest (InstanceStart). An error leaves the VMM as it
	// was before, and Start may be called again.
	Start(ctx context.Context, cfg *Config) error

	// Pause and Resume stop and continue the vCPUs. Both may be called twice.
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error

	// CtrlAltDel presses the keys.
	CtrlAltDel(ctx context.Context) error

	// CreateSnapshot writes the state and memory files of a paused guest.
	CreateSnapshot(ctx context.Context, cfg *Config, p SnapshotCreate) error

	// LoadSnapshot restores a guest, paused, into an engine that has not
	// started. cfg is what the state file held, with the overrides of p
	// already applied; st is positioned at the engine's own part of the
	// state file.
	LoadSnapshot(ctx context.Context, cfg *Config, p SnapshotLoad, st io.Reader) error

	// Update changes a device of a started guest: section and id as in
	// Attach, cfg holds the new value.
	Update(ctx context.Context, cfg *Config, section, id string) error

	// BalloonStats reports the balloon as GET /balloon/statistics has it.
	BalloonStats(ctx context.Context) (BalloonStats, error)

	// Counters are the engine's metrics since the start of the process, by
	// Firecracker's metric names ("block.read_bytes", …).
	Counters() map[string]uint64

	// Ended delivers the end of the guest, once. A power-off or halt is no
	// end, as with Firecracker.
	Ended() <-chan End

	// Close ends the guest and releases everything, children included. It is
	// called once, on every way out that lets the program run code; what must
	// also die on SIGKILL the engine binds to this process itself
	// (PR_SET_PDEATHSIG).
	Close() error
}

// End says how a guest ended and with which code the process leaves, as
// Firecracker does: 0 for a reset, 1 for a fault.
type End struct {
	ExitCode int
	Reason   string
}
