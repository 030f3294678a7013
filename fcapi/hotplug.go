package fcapi

import (
	"context"
	"net/http"
)

// MemoryHotplug is the body of PUT /hotplug/memory: a virtio-mem device. Since
// 1.14.
type MemoryHotplug struct {
	// TotalSizeMiB is the most that can be plugged in: a multiple of the slot
	// size.
	TotalSizeMiB int `json:"total_size_mib"`
	// SlotSizeMiB is the unit of the host: a multiple of the block size, at
	// least and by default (0) 128.
	SlotSizeMiB int `json:"slot_size_mib,omitempty"`
	// BlockSizeMiB is the unit of the guest: a power of two, at least and by
	// default (0) 2.
	BlockSizeMiB int `json:"block_size_mib,omitempty"`
}

// MemoryHotplugPatch is the body of PATCH /hotplug/memory.
type MemoryHotplugPatch struct {
	// RequestedSizeMiB is the new size: a multiple of the block size, at most
	// the total. Releases before 1.17 wrap absurd values instead of refusing
	// them.
	RequestedSizeMiB int `json:"requested_size_mib"`
}

// MemoryHotplugStatus is the answer to GET /hotplug/memory, in MiB.
type MemoryHotplugStatus struct {
	TotalSizeMiB     int `json:"total_size_mib"`
	SlotSizeMiB      int `json:"slot_size_mib"`
	BlockSizeMiB     int `json:"block_size_mib"`
	PluggedSizeMiB   int `json:"plugged_size_mib"`
	RequestedSizeMiB int `json:"requested_size_mib"`
}

// PutMemoryHotplugRequest is PUT /hotplug/memory.
func PutMemoryHotplugRequest(m MemoryHotplug) Request {
	return Request{http.MethodPut, "/hotplug/memory", m}
}

// PutMemoryHotplug adds the device. Before the start only. Since 1.14.
func (c *Client) PutMemoryHotplug(ctx context.Context, m MemoryHotplug) error {
	return c.Do(ctx, PutMemoryHotplugRequest(m), nil)
}

// PatchMemoryHotplugRequest is PATCH /hotplug/memory.
func PatchMemoryHotplugRequest(m MemoryHotplugPatch) Request {
	return Request{http.MethodPatch, "/hotplug/memory", m}
}

// PatchMemoryHotplug asks the guest to plug memory in or out; the status tells
// how far it has come. After the start only. Since 1.14.
func (c *Client) PatchMemoryHotplug(ctx context.Context, m MemoryHotplugPatch) error {
	return c.Do(ctx, PatchMemoryHotplugRequest(m), nil)
}

// GetMemoryHotplug returns the device's status. After the start only. Since
// 1.14.
func (c *Client) GetMemoryHotplug(ctx context.Context) (MemoryHotplugStatus, error) {
	return get[MemoryHotplugStatus](ctx, c, "/hotplug/memory")
}
