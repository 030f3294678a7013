package fcapi

import "context"

// VMConfig is the answer to GET /vm/config: what was configured, or loaded from
// a snapshot. Firecracker leaves the logger and the metrics out even when they
// are set, and after a load the kernel and the CPU template may be missing.
type VMConfig struct {
	Balloon           *Balloon           `json:"balloon"`
	Drives            []Drive            `json:"drives"`
	BootSource        *BootSource        `json:"boot-source"`
	CPUConfig         *CPUConfig         `json:"cpu-config"`
	Logger            *Logger            `json:"logger"`
	MachineConfig     *MachineConfig     `json:"machine-config"`
	Metrics           *Metrics           `json:"metrics"`
	MMDSConfig        *MMDSConfig        `json:"mmds-config"`
	NetworkInterfaces []NetworkInterface `json:"network-interfaces"`
	Vsock             *Vsock             `json:"vsock"`
	Entropy           *EntropyDevice     `json:"entropy"`
	// Pmem and MemoryHotplug are known since 1.14.
	Pmem          []Pmem         `json:"pmem"`
	MemoryHotplug *MemoryHotplug `json:"memory-hotplug"`
}

// VMConfig returns the whole configuration.
func (c *Client) VMConfig(ctx context.Context) (VMConfig, error) {
	return get[VMConfig](ctx, c, "/vm/config")
}
