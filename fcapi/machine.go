package fcapi

import (
	"context"
	"net/http"
)

// CPUTemplate names a built-in CPU template. Deprecated by Firecracker in
// favour of PUT /cpu-config.
type CPUTemplate string

// The CPU templates. A template that does not fit the host's CPU is accepted
// by PUT /machine-config and refused by InstanceStart.
const (
	CPUTemplateC3   CPUTemplate = "C3"
	CPUTemplateT2   CPUTemplate = "T2"
	CPUTemplateT2S  CPUTemplate = "T2S"
	CPUTemplateT2CL CPUTemplate = "T2CL"
	CPUTemplateT2A  CPUTemplate = "T2A"
	CPUTemplateV1N1 CPUTemplate = "V1N1" // aarch64
	CPUTemplateNone CPUTemplate = "None"
)

// HugePages says what backs the guest's memory.
type HugePages string

// The kinds of backing.
const (
	HugePagesNone HugePages = "None" // pages of 4 KiB
	// HugePages2M is hugetlbfs. Availability is checked by InstanceStart only.
	HugePages2M HugePages = "2M"
	// HugePagesTransparent is madvise(MADV_HUGEPAGE). Since 1.17.
	HugePagesTransparent HugePages = "Transparent"
	// HugePagesSnapshot reuses what the snapshot was taken with: only for
	// SnapshotLoad, whose default it is. Since 1.17.
	HugePagesSnapshot HugePages = "Snapshot"
)

// MachineConfig is the body of PUT /machine-config and the answer to GET.
// What is left out in a PUT takes its default again.
type MachineConfig struct {
	// VCPUCount is 1 to 32; 1 or even when SMT is on.
	VCPUCount int `json:"vcpu_count"`
	// MemSizeMiB is at least 1, at least the balloon's target, and even with
	// huge pages. Whether the host has so much is seen by InstanceStart only.
	MemSizeMiB int `json:"mem_size_mib"`
	// SMT shows pairs of vCPUs as threads of one core. x86_64 only.
	SMT         bool        `json:"smt,omitempty"`
	CPUTemplate CPUTemplate `json:"cpu_template,omitempty"`
	// TrackDirtyPages makes Diff snapshots hold only what changed since the
	// last snapshot, at a cost while running.
	TrackDirtyPages bool `json:"track_dirty_pages,omitempty"`
	// HugePages is None by default.
	HugePages HugePages `json:"huge_pages,omitempty"`
}

// MachineConfigPatch is the body of PATCH /machine-config: what is nil stays.
// An empty one is refused.
type MachineConfigPatch struct {
	VCPUCount       *int         `json:"vcpu_count,omitempty"`
	MemSizeMiB      *int         `json:"mem_size_mib,omitempty"`
	SMT             *bool        `json:"smt,omitempty"`
	CPUTemplate     *CPUTemplate `json:"cpu_template,omitempty"`
	TrackDirtyPages *bool        `json:"track_dirty_pages,omitempty"`
	HugePages       *HugePages   `json:"huge_pages,omitempty"`
}

// PutMachineConfigRequest is PUT /machine-config.
func PutMachineConfigRequest(m MachineConfig) Request {
	return Request{http.MethodPut, "/machine-config", m}
}

// PutMachineConfig sets vCPUs and memory. Before the start only.
func (c *Client) PutMachineConfig(ctx context.Context, m MachineConfig) error {
	return c.Do(ctx, PutMachineConfigRequest(m), nil)
}

// PatchMachineConfigRequest is PATCH /machine-config.
func PatchMachineConfigRequest(m MachineConfigPatch) Request {
	return Request{http.MethodPatch, "/machine-config", m}
}

// PatchMachineConfig changes some settings. Before the start only.
func (c *Client) PatchMachineConfig(ctx context.Context, m MachineConfigPatch) error {
	return c.Do(ctx, PatchMachineConfigRequest(m), nil)
}

// GetMachineConfig returns the settings; 1 vCPU and 128 MiB when none were made.
func (c *Client) GetMachineConfig(ctx context.Context) (MachineConfig, error) {
	return get[MachineConfig](ctx, c, "/machine-config")
}

// BootSource is the body of PUT /boot-source.
type BootSource struct {
	// KernelImagePath is opened by the PUT and checked by InstanceStart: an
	// uncompressed ELF on x86_64 (or a bzImage since 1.17), a PE image on
	// aarch64.
	KernelImagePath string `json:"kernel_image_path"`
	InitrdPath      string `json:"initrd_path,omitempty"`
	// BootArgs is the kernel's command line, up to 2,047 bytes. nil takes
	// Firecracker's default, which allows neither modules nor a console; a
	// pointer to "" is an empty line. Firecracker adds what names its devices.
	BootArgs *string `json:"boot_args,omitempty"`
}

// PutBootSourceRequest is PUT /boot-source.
func PutBootSourceRequest(b BootSource) Request {
	return Request{http.MethodPut, "/boot-source", b}
}

// PutBootSource sets the kernel. Before the start only.
func (c *Client) PutBootSource(ctx context.Context, b BootSource) error {
	return c.Do(ctx, PutBootSourceRequest(b), nil)
}
