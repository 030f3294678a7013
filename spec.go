package microvm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Spec describes a VM. The zero value of a field means the provider's default;
// where zero is a value of its own the field is a pointer. A spec can be a JSON
// file: see ParseSpec.
type Spec struct {
	// Kernel is the path of an uncompressed kernel: an ELF on x86_64, an Image
	// on arm64.
	Kernel string `json:"kernel,omitempty"`
	// Initrd is the path of an initial RAM disk.
	Initrd string `json:"initrd,omitempty"`
	// BootArgs is the kernel's command line, at most 2,047 bytes. What follows
	// a free-standing "--" belongs to init. What the provider adds, it adds
	// before that; nothing of it is reordered or requoted.
	BootArgs string `json:"boot_args,omitempty"`
	// Rootfs is the disk that the guest sees as /dev/vda.
	Rootfs *Rootfs `json:"rootfs,omitempty"`
	// NoRootfs makes a VM without root disk although the provider has a
	// default one: it lives in its initrd.
	NoRootfs bool `json:"no_rootfs,omitempty"`

	VCPUs           int    `json:"vcpus,omitempty"`             // 1 to 32
	MemoryMiB       int    `json:"memory_mib,omitempty"`        // 1 to 16,777,216
	SMT             *bool  `json:"smt,omitempty"`               // needs 1 vCPU or an even number; default false
	CPUTemplate     string `json:"cpu_template,omitempty"`      // "C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "None"
	HugePages       string `json:"huge_pages,omitempty"`        // "None" or "2M"
	TrackDirtyPages *bool  `json:"track_dirty_pages,omitempty"` // needed for small snapshots after the first; default false

	Drives            []Drive            `json:"drives,omitempty"`
	Network           *Network           `json:"network,omitempty"` // a network that the provider makes
	NetworkInterfaces []NetworkInterface `json:"network_interfaces,omitempty"`
	Vsock             *Vsock             `json:"vsock,omitempty"`
	MMDS              *MMDS              `json:"mmds,omitempty"`
	Balloon           *Balloon           `json:"balloon,omitempty"`
	Entropy           *Entropy           `json:"entropy,omitempty"`
	Serial            *Serial            `json:"serial,omitempty"`
	// Metrics asks the VMM for its counters; default true.
	Metrics *bool `json:"metrics,omitempty"`

	// StopMode says what StopVM does; default StopModePause.
	StopMode StopMode `json:"stop_mode,omitempty"`
	// RestoreFrom makes the VM from a snapshot. Of the other fields only Labels,
	// StopMode, Console and Network are looked at. Without Network it has the policy of
	// the VM that was snapshotted, and publishes no ports; its address is its own.
	RestoreFrom *RestoreFrom `json:"restore_from,omitempty"`

	// Console says what the serial console can do beside being recorded.
	Console *Console `json:"console,omitempty"`

	// Labels are the caller's own: at most 64, keys of 1 to 128 bytes, values of
	// at most 1,024.
	Labels map[string]string `json:"labels,omitempty"`
}

// StopMode is what StopVM does with a running VM.
type StopMode string

// The stop modes.
const (
	// StopModePause stops the vCPUs; memory stays with the process and StartVM
	// resumes in milliseconds.
	StopModePause StopMode = "pause"
	// StopModeHibernate writes memory to disk and ends the process; StartVM
	// restores it.
	StopModeHibernate StopMode = "hibernate"
	// StopModeShutdown asks the guest to shut down and ends the process, by
	// force after a grace period; StartVM boots anew from the same disks.
	StopModeShutdown StopMode = "shutdown"
)

// Rootfs is the root disk.
type Rootfs struct {
	// Path is a raw disk image. A writable one is cloned for the VM (reflink
	// where the file system can, else a sparse copy), a read-only one is shared.
	Path      string     `json:"path,omitempty"`
	ReadOnly  *bool      `json:"read_only,omitempty"`
	CacheType string     `json:"cache_type,omitempty"` // "Unsafe" (default) or "Writeback"
	IOEngine  string     `json:"io_engine,omitempty"`  // "Sync" (default) or "Async"
	RateLimit *RateLimit `json:"rate_limit,omitempty"`
}

// Drive is a further disk: /dev/vdb for the first, and so on.
type Drive struct {
	// ID is 1 to 64 letters, digits and '_'; "rootfs" is the root disk's.
	ID   string `json:"id"`
	Path string `json:"path"`
	// ReadOnly shares the image instead of cloning it.
	ReadOnly *bool `json:"read_only,omitempty"`
	// InPlace lets the VM write to the very file at Path, which then outlives
	// it: for data volumes. Snapshots still hold a copy, and so do VMs that are
	// restored from them.
	InPlace   bool       `json:"in_place,omitempty"`
	CacheType string     `json:"cache_type,omitempty"` // "Unsafe" (default) or "Writeback"
	IOEngine  string     `json:"io_engine,omitempty"`  // "Sync" (default) or "Async"
	RateLimit *RateLimit `json:"rate_limit,omitempty"`
}

// RateLimit bounds a device. Either part may be nil.
type RateLimit struct {
	Bandwidth *TokenBucket `json:"bandwidth,omitempty"` // in bytes
	Ops       *TokenBucket `json:"ops,omitempty"`       // in operations (packets, for a network interface)
}

// TokenBucket is a rate: Size tokens per RefillMS. With RefillMS left out, Size
// is tokens per second.
type TokenBucket struct {
	Size         uint64 `json:"size"`                     // at least 1: leave the bucket out for no limit
	OneTimeBurst uint64 `json:"one_time_burst,omitempty"` // extra tokens, used once and never refilled
	RefillMS     uint64 `json:"refill_ms,omitempty"`      // milliseconds; default 1,000
}

// PerSecond is a bucket of n tokens a second.
func PerSecond(n uint64) *TokenBucket { return &TokenBucket{Size: n} }

// NetworkInterface connects the guest to a TAP that the caller made. As root
// the TAP must exist already.
type NetworkInterface struct {
	ID          string     `json:"id"`            // 1 to 64 letters, digits and '_'
	HostDevName string     `json:"host_device"`   // 1 to 15 bytes
	MAC         string     `json:"mac,omitempty"` // six hex pairs, unicast; default: the VMM's choice
	MTU         int        `json:"mtu,omitempty"` // 68 to 65,535
	RxRateLimit *RateLimit `json:"rx_rate_limit,omitempty"`
	TxRateLimit *RateLimit `json:"tx_rate_limit,omitempty"`
}

// Vsock gives the guest a socket device.
type Vsock struct {
	// CID is the guest's address, 3 (the default) to 4,294,967,294. VMs may
	// share one: it means nothing outside the VM.
	CID uint32 `json:"cid,omitempty"`
	// Path is where the host's side listens; by default in the VM's own
	// directory. With a path of your own, restoring a snapshot beside this VM
	// needs RestoreFrom.VsockPath, which Firecracker has since 1.16.
	Path string `json:"path,omitempty"`
}

// MMDS is the metadata service that the VMM answers itself, inside the VM.
type MMDS struct {
	Version    string          `json:"version,omitempty"` // "V1" or "V2" (default)
	Address    string          `json:"address,omitempty"` // link-local IPv4; default 169.254.169.254
	Interfaces []string        `json:"interfaces"`        // ids of network interfaces, at least one
	IMDSCompat bool            `json:"imds_compat,omitempty"`
	Contents   json.RawMessage `json:"contents,omitempty"` // a JSON object, at most 51,200 bytes
}

// Balloon takes memory back from the guest.
type Balloon struct {
	TargetMiB         int  `json:"target_mib"` // 0 to the VM's memory
	DeflateOnOOM      bool `json:"deflate_on_oom,omitempty"`
	StatsIntervalS    int  `json:"stats_interval_s,omitempty"` // seconds, 0 (no statistics) to 65,535
	FreePageHinting   bool `json:"free_page_hinting,omitempty"`
	FreePageReporting bool `json:"free_page_reporting,omitempty"`
}

// Entropy gives the guest a random number device.
type Entropy struct {
	RateLimit *RateLimit `json:"rate_limit,omitempty"`
}

// Serial bounds the guest's serial output (Firecracker since 1.16).
type Serial struct {
	RateLimit *TokenBucket `json:"rate_limit,omitempty"` // in bytes
}

// Console says what the serial console can do beside being recorded.
type Console struct {
	// Input makes the guest's serial port accept input: see ConsoleWriter.
	Input bool `json:"input,omitempty"`
}

// RestoreFrom names a snapshot.
type RestoreFrom struct {
	VMID       string `json:"vm_id"` // the VM that was snapshotted; its tombstone serves as well
	SnapshotID string `json:"snapshot_id"`
	// ResumeImmediately makes the new VM running; else it is stopped, paused in
	// memory, until StartVM.
	ResumeImmediately bool `json:"resume_immediately,omitempty"`
	// NetworkOverrides put interfaces on other TAPs (Firecracker since 1.12).
	NetworkOverrides []NetworkOverride `json:"network_overrides,omitempty"`
	// VsockPath puts the vsock's host side elsewhere (Firecracker since 1.16);
	// it is needed only when the snapshotted VM had a Vsock.Path of its own.
	VsockPath string `json:"vsock_path,omitempty"`
}

// NetworkOverride puts one interface of a snapshot on another TAP.
type NetworkOverride struct {
	InterfaceID string `json:"interface_id"`
	HostDevName string `json:"host_device"`
}

// Digest is the SHA-256 of the spec's JSON, in hex.
func (s Spec) Digest() string {
	b, err := json.Marshal(s)
	if err != nil {
		// The only part that can fail is MMDS.Contents that is no JSON, which
		// Validate refuses.
		b = []byte(err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Clone is a copy of the spec that shares nothing with it.
func (s Spec) Clone() Spec {
	b, err := json.Marshal(s)
	if err != nil {
		return s
	}
	var c Spec
	if json.Unmarshal(b, &c) != nil {
		return s
	}
	return c
}
