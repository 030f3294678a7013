package fcapi

import (
	"context"
	"net/http"
)

// CacheType says whether the guest's flush requests reach the host's disk.
type CacheType string

// The cache types.
const (
	CacheUnsafe    CacheType = "Unsafe" // the default: flushes are ignored
	CacheWriteback CacheType = "Writeback"
)

// IOEngine is the way a drive's file is read and written.
type IOEngine string

// The I/O engines.
const (
	IOSync  IOEngine = "Sync"  // the default
	IOAsync IOEngine = "Async" // io_uring; host kernel 5.10.51 or newer
)

// Drive is the body of PUT /drives/{drive_id}: a virtio block device, or one
// that a vhost-user process serves when Socket is set.
type Drive struct {
	// DriveID is made of letters, digits and "_". The same id again replaces
	// the drive.
	DriveID string `json:"drive_id"`
	// IsRootDevice makes it /dev/vda and adds root= to the command line. Only
	// one may.
	IsRootDevice bool `json:"is_root_device"`
	// PartUUID names the root partition (root=PARTUUID=…).
	PartUUID  string    `json:"partuuid,omitempty"`
	CacheType CacheType `json:"cache_type,omitempty"`

	// The rest but Socket must not be set beside Socket.

	IsReadOnly bool `json:"is_read_only,omitempty"`
	// PathOnHost must exist; relative to the VMM's working directory.
	PathOnHost  string       `json:"path_on_host,omitempty"`
	RateLimiter *RateLimiter `json:"rate_limiter,omitempty"`
	IOEngine    IOEngine     `json:"io_engine,omitempty"`

	// Socket is the unix socket of a vhost-user-blk backend.
	Socket string `json:"socket,omitempty"`
}

// DrivePatch is the body of PATCH /drives/{drive_id}: a new file behind the
// drive, a new rate limit, or both.
type DrivePatch struct {
	DriveID     string       `json:"drive_id"`
	PathOnHost  string       `json:"path_on_host,omitempty"`
	RateLimiter *RateLimiter `json:"rate_limiter,omitempty"`
}

// PutDriveRequest is PUT /drives/{drive_id}.
func PutDriveRequest(d Drive) Request {
	return Request{http.MethodPut, devicePath("drives", d.DriveID), d}
}

// PutDrive adds or replaces a drive before the start. After it, since 1.16 and
// only with --enable-pci, it plugs a new one in.
func (c *Client) PutDrive(ctx context.Context, d Drive) error {
	return c.Do(ctx, PutDriveRequest(d), nil)
}

// PatchDriveRequest is PATCH /drives/{drive_id}.
func PatchDriveRequest(d DrivePatch) Request {
	return Request{http.MethodPatch, devicePath("drives", d.DriveID), d}
}

// PatchDrive changes a drive. After the start only.
func (c *Client) PatchDrive(ctx context.Context, d DrivePatch) error {
	return c.Do(ctx, PatchDriveRequest(d), nil)
}

// DeleteDriveRequest is DELETE /drives/{drive_id}.
func DeleteDriveRequest(driveID string) Request {
	return Request{Method: http.MethodDelete, Path: devicePath("drives", driveID)}
}

// DeleteDrive unplugs a drive other than the root. After the start only, since
// 1.16, with --enable-pci; the guest must have removed it first.
func (c *Client) DeleteDrive(ctx context.Context, driveID string) error {
	return c.Do(ctx, DeleteDriveRequest(driveID), nil)
}
