package fcemu

import (
	"context"
	"io"
)

// EngineOptions is what an engine is told about the process it lives in.
type EngineOptions struct {
	ID string // the instance id
	// Stdin and Stdout are the descriptors of the console. They are plain
	// numbers because an os.File would change whether they block, for
	// everybody who shares them. A negative one is absent.
	Stdin, Stdout int
	PCI           bool // --enable-pci
	BootTimer     bool // --boot-timer: log how long the guest took to boot
	// Log writes one line to the VMM's log. It may be called from any
	// goroutine.
	Log func(level Level, msg string)
}

// Factory makes an engine.
type Factory func(EngineOptions) (Engine, error)

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

// Hotplugger is an engine that can add and remove drives, network interfaces
// and pmem devices of a started guest (--enable-pci). Engines without it
// answer such requests with a 400.
type Hotplugger interface {
	// Plug adds the device id of section, which cfg already holds.
	Plug(ctx context.Context, cfg *Config, section, id string) error
	// Unplug removes the device id of section, which cfg no longer holds.
	Unplug(ctx context.Context, cfg *Config, section, id string) error
}

// MemoryPlugger is an engine with hotpluggable memory (virtio-mem). Sizes are
// MiB.
type MemoryPlugger interface {
	RequestMemory(ctx context.Context, requestedMiB int) error
	PluggedMemory(ctx context.Context) (pluggedMiB, requestedMiB int, err error)
}

// PageHinter is an engine whose balloon has free page hinting.
type PageHinter interface {
	StartHinting(ctx context.Context, acknowledgeOnStop bool) error
	StopHinting(ctx context.Context) error
	// HintingStatus returns the command that the host sent last and the one
	// that the guest answered last; guest is nil before its first answer.
	HintingStatus(ctx context.Context) (host uint32, guest *uint32, err error)
}
