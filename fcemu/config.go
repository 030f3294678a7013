package fcemu

import "encoding/json"

// Config is the whole of what the API has been told, in the shape of
// Firecracker's GET /vm/config, and what a snapshot's state file carries.
type Config struct {
	BootSource        BootSource         `json:"boot-source"`
	Machine           MachineConfig      `json:"machine-config"`
	Drives            []Drive            `json:"drives"`
	NetworkInterfaces []NetworkInterface `json:"network-interfaces"`
	Vsock             *Vsock             `json:"vsock"`
	Balloon           *Balloon           `json:"balloon"`
	Entropy           *Entropy           `json:"entropy"`
	Serial            *Serial            `json:"serial,omitempty"`
	MMDSConfig        *MMDSConfig        `json:"mmds-config"`
	Pmem              []Pmem             `json:"pmem"`
	MemoryHotplug     *MemoryHotplug     `json:"memory-hotplug"`
	CPUConfig         json.RawMessage    `json:"cpu-config"`

	// rel is here because it goes wherever the configuration goes, as far as the
	// state file. nil is EmulatedVersion.
	rel *release
}

// BootSource is PUT /boot-source. A nil BootArgs means Firecracker's default
// command line, an empty one none at all.
type BootSource struct {
	KernelImagePath string  `json:"kernel_image_path"`
	InitrdPath      *string `json:"initrd_path"`
	BootArgs        *string `json:"boot_args"`
}

// MachineConfig is /machine-config.
type MachineConfig struct {
	VCPUCount       int     `json:"vcpu_count"`
	MemSizeMiB      int     `json:"mem_size_mib"`
	SMT             bool    `json:"smt"`
	CPUTemplate     *string `json:"cpu_template,omitempty"`
	TrackDirtyPages bool    `json:"track_dirty_pages"`
	HugePages       string  `json:"huge_pages"` // "None", "Transparent", "2M"
}

// TokenBucket is one rate: Size units per RefillTime milliseconds, with
// OneTimeBurst extra units at the beginning.
type TokenBucket struct {
	Size         uint64  `json:"size"`
	OneTimeBurst *uint64 `json:"one_time_burst"`
	RefillTime   uint64  `json:"refill_time"`
}

// RateLimiter limits bytes (Bandwidth) and operations (Ops).
type RateLimiter struct {
	Bandwidth *TokenBucket `json:"bandwidth"`
	Ops       *TokenBucket `json:"ops"`
}

// Drive is PUT /drives/{id}.
type Drive struct {
	DriveID      string       `json:"drive_id"`
	PartUUID     *string      `json:"partuuid"`
	IsRootDevice bool         `json:"is_root_device"`
	CacheType    string       `json:"cache_type"` // "Unsafe", "Writeback"
	IsReadOnly   *bool        `json:"is_read_only"`
	PathOnHost   *string      `json:"path_on_host"`
	RateLimiter  *RateLimiter `json:"rate_limiter"`
	IOEngine     *string      `json:"io_engine"` // "Sync", "Async"
	Socket       *string      `json:"socket"`
}

// NetworkInterface is PUT /network-interfaces/{id}.
type NetworkInterface struct {
	IfaceID       string       `json:"iface_id"`
	HostDevName   string       `json:"host_dev_name"`
	GuestMAC      *string      `json:"guest_mac"`
	MTU           *int         `json:"mtu"`
	RxRateLimiter *RateLimiter `json:"rx_rate_limiter"`
	TxRateLimiter *RateLimiter `json:"tx_rate_limiter"`
}

// Vsock is PUT /vsock.
type Vsock struct {
	VsockID  *string `json:"vsock_id,omitempty"`
	GuestCID uint32  `json:"guest_cid"`
	UDSPath  string  `json:"uds_path"`
}

// Balloon is PUT /balloon.
type Balloon struct {
	AmountMiB             int  `json:"amount_mib"`
	DeflateOnOOM          bool `json:"deflate_on_oom"`
	StatsPollingIntervalS int  `json:"stats_polling_interval_s"`
	FreePageHinting       bool `json:"free_page_hinting"`
	FreePageReporting     bool `json:"free_page_reporting"`
}

// BalloonStats is GET /balloon/statistics.
type BalloonStats struct {
	TargetPages uint64            `json:"target_pages"`
	ActualPages uint64            `json:"actual_pages"`
	TargetMiB   uint64            `json:"target_mib"`
	ActualMiB   uint64            `json:"actual_mib"`
	Guest       map[string]uint64 `json:"-"` // optional guest-side fields, merged on output
}

// Entropy is PUT /entropy.
type Entropy struct {
	RateLimiter *RateLimiter `json:"rate_limiter"`
}

// Serial is PUT /serial.
type Serial struct {
	SerialOutPath *string      `json:"serial_out_path"`
	RateLimiter   *TokenBucket `json:"rate_limiter,omitempty"`
}

// MMDSConfig is PUT /mmds/config.
type MMDSConfig struct {
	Version           string   `json:"version"` // "V1", "V2"
	NetworkInterfaces []string `json:"network_interfaces"`
	IPv4Address       *string  `json:"ipv4_address"`
	IMDSCompat        bool     `json:"imds_compat"`
}

// Pmem is PUT /pmem/{id}.
type Pmem struct {
	ID         string       `json:"id"`
	PathOnHost string       `json:"path_on_host"`
	RootDevice bool         `json:"root_device"`
	ReadOnly   bool         `json:"read_only"`
	RateLimit  *RateLimiter `json:"rate_limiter"`
}

// MemoryHotplug is PUT /hotplug/memory.
type MemoryHotplug struct {
	TotalSizeMiB int `json:"total_size_mib"`
	BlockSizeMiB int `json:"block_size_mib"`
	SlotSizeMiB  int `json:"slot_size_mib"`
}

// SnapshotCreate is PUT /snapshot/create.
type SnapshotCreate struct {
	SnapshotType string `json:"snapshot_type"` // "Full", "Diff"
	SnapshotPath string `json:"snapshot_path"`
	MemFilePath  string `json:"mem_file_path"`
}

// SnapshotLoad is PUT /snapshot/load.
type SnapshotLoad struct {
	SnapshotPath     string            `json:"snapshot_path"`
	MemBackend       MemBackend        `json:"mem_backend"`
	TrackDirtyPages  bool              `json:"track_dirty_pages"`
	ResumeVM         bool              `json:"resume_vm"`
	NetworkOverrides []NetworkOverride `json:"network_overrides"`
	VsockOverride    *VsockOverride    `json:"vsock_override"`
	ClockRealtime    bool              `json:"clock_realtime"`
	HugePages        string            `json:"huge_pages"` // "Snapshot", "None", "Transparent", "2M"
}

// MemBackend says where the memory of a restored guest comes from.
type MemBackend struct {
	BackendPath string `json:"backend_path"`
	BackendType string `json:"backend_type"` // "File", "Uffd"
}

// NetworkOverride names another TAP for an interface of a snapshot.
type NetworkOverride struct {
	IfaceID     string `json:"iface_id"`
	HostDevName string `json:"host_dev_name"`
}

// VsockOverride names another socket path for the vsock of a snapshot.
type VsockOverride struct {
	UDSPath string `json:"uds_path"`
}
