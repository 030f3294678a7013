package microvm

import (
	"context"
	"io"
	"net"
	"time"
)

// What only some providers can do is asked for by a type assertion:
//
//	if c, ok := rt.(microvm.ConsoleReader); ok { … }

// Pruner removes tombstones.
type Pruner interface {
	// Prune forgets destroyed VMs that were destroyed before the given time and
	// have no snapshots left, and returns their ids.
	Prune(ctx context.Context, before time.Time) ([]string, error)
}

// SnapshotManager describes and deletes snapshots.
type SnapshotManager interface {
	// GetSnapshot describes one snapshot: ErrVMNotFound, ErrSnapshotNotFound.
	GetSnapshot(ctx context.Context, id, snapshotID string) (SnapshotInfo, error)
	// DeleteSnapshot removes a snapshot. VMs that were restored from it go on.
	DeleteSnapshot(ctx context.Context, id, snapshotID string) error
}

// SnapshotInfo describes a snapshot.
type SnapshotInfo struct {
	VMID       string    `json:"vm_id"`
	Name       string    `json:"name"`
	CreatedAt  time.Time `json:"created_at"`
	Cold       bool      `json:"cold"` // spec and disks, no memory
	VMM        string    `json:"vmm,omitempty"`
	VMMVersion string    `json:"vmm_version,omitempty"`
	Format     string    `json:"format,omitempty"` // the VMM's snapshot format
	// MemoryBytes is the guest's memory, DiskBytes what the snapshot occupies
	// on disk.
	MemoryBytes int64         `json:"memory_bytes"`
	DiskBytes   int64         `json:"disk_bytes"`
	Pause       time.Duration `json:"pause_ns"` // how long the guest stood still for it
}

// EgressUpdater changes what a running VM may reach.
type EgressUpdater interface {
	// UpdateEgress replaces the policy of a VM's managed network: ErrVMNotFound,
	// ErrInvalidSpec for a bad policy or a VM without such a network.
	UpdateEgress(ctx context.Context, id string, policy Egress) error
}

// Forker makes a copy of a VM in one call.
type Forker interface {
	// ForkVM makes newID a copy of the VM id that goes on from the same moment.
	ForkVM(ctx context.Context, id, newID string) error
}

// ConsoleReader gives the guest's serial output.
type ConsoleReader interface {
	// ConsoleTail returns the last lines of the guest's serial output, at most
	// what the bounded console file still holds. lines < 0 means all of it.
	ConsoleTail(ctx context.Context, id string, lines int) ([]byte, error)
	// FollowConsole streams the serial output, beginning with the last lines of
	// what is there (lines < 0: all of it), until the VM ends, ctx ends or the
	// reader is closed. After an overrun the stream says that bytes are missing.
	FollowConsole(ctx context.Context, id string, lines int) (io.ReadCloser, error)
}

// ConsoleWriter types into the guest's serial input. The spec must have
// Console.Input.
type ConsoleWriter interface {
	ConsoleInput(ctx context.Context, id string) (io.WriteCloser, error)
}

// VsockDialer connects to a port of the guest.
type VsockDialer interface {
	// DialVsock needs a spec with Vsock. It tries until ctx ends: a guest that
	// is not ready yet refuses.
	DialVsock(ctx context.Context, id string, port uint32) (net.Conn, error)
}

// Waiter waits for a state.
type Waiter interface {
	// WaitVM returns the first view in which the VM has one of the states. It is
	// ErrVMNotFound when the VM goes away, and ErrInvalidSpec without states.
	WaitVM(ctx context.Context, id string, states ...Status) (View, error)
}

// Watcher reports changes.
type Watcher interface {
	// Watch delivers an event for each change of any VM until ctx ends; then
	// the channel is closed. A receiver that is too slow loses the oldest
	// events of a VM, never the newest.
	Watch(ctx context.Context) (<-chan Event, error)
}

// Event is a change of a VM.
type Event struct {
	Time time.Time `json:"time"`
	View View      `json:"view"`
	// Gone says that the VM is not listed any more: View holds what was last
	// known, under the old id after a rename.
	Gone bool `json:"gone,omitempty"`
}

// MetricsReader reads what a VM uses.
type MetricsReader interface {
	// ReadMetrics tells what the VM has used up to now. It is
	// ErrInvalidTransition while the VM has no process.
	ReadMetrics(ctx context.Context, id string) (Metrics, error)
}

// Metrics is what a VM has used, since its VMM was started.
type Metrics struct {
	Time          time.Time     `json:"time"`
	CPUTime       time.Duration `json:"cpu_time_ns"` // user and system, of the whole VMM
	ResidentBytes int64         `json:"resident_bytes"`
	// Run names the process that counts. When it is another one than before, the
	// VMM was started again, and all numbers have begun anew; as long as it is
	// the same, times and counters only grow.
	Run string `json:"run,omitempty"`

	// Block is the traffic of all disks, Net that of all network interfaces, as
	// the guest sees it: it reads what it receives.
	Block Traffic `json:"block"`
	Net   Traffic `json:"net"`

	// CountersAt is when the VMM told the newest counters; zero without any.
	CountersAt time.Time `json:"counters_at,omitzero"`
	// Counters are the VMM's own, by "group.name"; Gauges are those of its
	// numbers that can also fall, such as the duration of the last snapshot.
	Counters map[string]uint64 `json:"counters,omitempty"`
	Gauges   map[string]uint64 `json:"gauges,omitempty"`
	// Trouble tells why the counters are old or too low; empty otherwise.
	Trouble string `json:"trouble,omitempty"`
}

// Traffic is what has gone through a kind of device.
type Traffic struct {
	ReadBytes  uint64 `json:"read_bytes"`
	WriteBytes uint64 `json:"write_bytes"`
	Reads      uint64 `json:"reads"`  // requests of a disk, packets of a network
	Writes     uint64 `json:"writes"` // likewise
}
