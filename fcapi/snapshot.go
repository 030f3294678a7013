package fcapi

import (
	"context"
	"net/http"
)

// SnapshotType says which memory a snapshot holds.
type SnapshotType string

// The types.
const (
	SnapshotFull SnapshotType = "Full" // the default: all of it
	// SnapshotDiff is a sparse file of the pages that changed since the last
	// snapshot or load when dirty pages are tracked, else of all resident ones.
	SnapshotDiff SnapshotType = "Diff"
)

// SnapshotCreate is the body of PUT /snapshot/create. Paths are relative to the
// VMM's working directory; existing files are reused.
type SnapshotCreate struct {
	SnapshotType SnapshotType `json:"snapshot_type,omitempty"`
	// SnapshotPath gets the state of the VMM and its devices. It is written
	// first, and stays when the memory can't be written.
	SnapshotPath string `json:"snapshot_path"`
	// MemFilePath gets the guest's memory. It must be another path.
	MemFilePath string `json:"mem_file_path"`
}

// CreateSnapshotRequest is PUT /snapshot/create.
func CreateSnapshotRequest(s SnapshotCreate) Request {
	return Request{http.MethodPut, "/snapshot/create", s}
}

// CreateSnapshot writes a snapshot of a paused microVM, which stays paused. It
// takes as long as the disk needs for the memory: give it time.
func (c *Client) CreateSnapshot(ctx context.Context, s SnapshotCreate) error {
	return c.Do(ctx, CreateSnapshotRequest(s), nil)
}

// MemoryBackendType says where restored memory comes from.
type MemoryBackendType string

// The types.
const (
	MemoryFile MemoryBackendType = "File" // mapped privately
	MemoryUffd MemoryBackendType = "Uffd" // served by a process over userfaultfd(2)
)

// MemoryBackend is where restored memory comes from.
type MemoryBackend struct {
	BackendType MemoryBackendType `json:"backend_type"`
	// BackendPath is the memory file, or the unix socket of the process that
	// serves the page faults.
	BackendPath string `json:"backend_path"`
}

// NetworkOverride gives an interface of the snapshot another TAP.
type NetworkOverride struct {
	IfaceID     string `json:"iface_id"`
	HostDevName string `json:"host_dev_name"`
}

// VsockOverride gives the snapshot's vsock device another socket path.
type VsockOverride struct {
	UDSPath string `json:"uds_path"`
}

// SnapshotLoad is the body of PUT /snapshot/load. Paths, those within the
// snapshot too, are relative to the VMM's working directory.
type SnapshotLoad struct {
	SnapshotPath string `json:"snapshot_path"`
	// MemBackend is required unless MemFilePath is given.
	MemBackend *MemoryBackend `json:"mem_backend,omitempty"`
	// TrackDirtyPages is known since 1.13; before, see EnableDiffSnapshots.
	TrackDirtyPages bool `json:"track_dirty_pages,omitempty"`
	// ResumeVM lets the vCPUs run once the load is done.
	ResumeVM bool `json:"resume_vm,omitempty"`
	// NetworkOverrides are known since 1.12.
	NetworkOverrides []NetworkOverride `json:"network_overrides,omitempty"`
	// VsockOverride is known since 1.16.
	VsockOverride *VsockOverride `json:"vsock_override,omitempty"`
	// ClockRealtime moves the guest's kvmclock on by the time that has passed
	// since the snapshot. x86_64 only, since 1.14.4, 1.15.1 and 1.16.0. The load
	// fails, and ends the VMM, when the snapshot lacks what it needs.
	ClockRealtime bool `json:"clock_realtime,omitempty"`
	// HugePages is HugePagesSnapshot by default. HugePages2M needs the Uffd
	// backend. Since 1.17.
	HugePages HugePages `json:"huge_pages,omitempty"`

	// MemFilePath is a MemBackend of type File.
	//
	// Deprecated: by Firecracker, in favour of MemBackend.
	MemFilePath string `json:"mem_file_path,omitempty"`
	// EnableDiffSnapshots is TrackDirtyPages as releases before 1.13 know it.
	//
	// Deprecated: by Firecracker since 1.13, in favour of TrackDirtyPages.
	EnableDiffSnapshots bool `json:"enable_diff_snapshots,omitempty"`
}

// LoadSnapshotRequest is PUT /snapshot/load.
func LoadSnapshotRequest(s SnapshotLoad) Request {
	return Request{http.MethodPut, "/snapshot/load", s}
}

// LoadSnapshot restores a microVM in a fresh VMM, which may have had its
// logger, metrics and serial console set up and nothing else. When the load
// fails for more than a faulty body, the VMM answers with status 400 and exits.
func (c *Client) LoadSnapshot(ctx context.Context, s SnapshotLoad) error {
	return c.Do(ctx, LoadSnapshotRequest(s), nil)
}
