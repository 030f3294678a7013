package fcapi

import (
	"context"
	"net/http"
)

// Pmem is the body of PUT /pmem/{id}: a file that the guest sees as persistent
// memory. Since 1.14.
type Pmem struct {
	// ID is made of letters, digits and "_".
	ID string `json:"id"`
	// PathOnHost is checked by InstanceStart only.
	PathOnHost string `json:"path_on_host"`
	// RootDevice boots from it; no drive may be root then.
	RootDevice bool `json:"root_device,omitempty"`
	ReadOnly   bool `json:"read_only,omitempty"`
	// RateLimiter bounds the guest's flushes. Since 1.16.
	RateLimiter *RateLimiter `json:"rate_limiter,omitempty"`
}

// PmemPatch is the body of PATCH /pmem/{id}. Since 1.16.
type PmemPatch struct {
	ID          string       `json:"id"`
	RateLimiter *RateLimiter `json:"rate_limiter,omitempty"`
}

// PutPmemRequest is PUT /pmem/{id}.
func PutPmemRequest(p Pmem) Request {
	return Request{http.MethodPut, devicePath("pmem", p.ID), p}
}

// PutPmem adds or replaces a device before the start. After it, since 1.16 and
// only with --enable-pci, it plugs a new one in.
func (c *Client) PutPmem(ctx context.Context, p Pmem) error {
	return c.Do(ctx, PutPmemRequest(p), nil)
}

// PatchPmemRequest is PATCH /pmem/{id}.
func PatchPmemRequest(p PmemPatch) Request {
	return Request{http.MethodPatch, devicePath("pmem", p.ID), p}
}

// PatchPmem changes the rate limit. After the start only. Since 1.16.
func (c *Client) PatchPmem(ctx context.Context, p PmemPatch) error {
	return c.Do(ctx, PatchPmemRequest(p), nil)
}

// DeletePmemRequest is DELETE /pmem/{id}.
func DeletePmemRequest(id string) Request {
	return Request{Method: http.MethodDelete, Path: devicePath("pmem", id)}
}

// DeletePmem unplugs a device other than the root. After the start only, since
// 1.16, with --enable-pci.
func (c *Client) DeletePmem(ctx context.Context, id string) error {
	return c.Do(ctx, DeletePmemRequest(id), nil)
}
