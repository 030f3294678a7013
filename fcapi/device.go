package fcapi

import (
	"context"
	"net/http"
)

// Vsock is the body of PUT /vsock.
type Vsock struct {
	// GuestCID is 3 or more; Firecracker takes 0 to 2 as well, but they mean
	// other things to a guest.
	GuestCID uint32 `json:"guest_cid"`
	// UDSPath is the unix socket that the VMM binds, at once, relative to its
	// working directory. It must not exist, and is not removed at the end.
	UDSPath string `json:"uds_path"`
	// VsockID is ignored by Firecracker.
	//
	// Deprecated: by Firecracker, since 1.0.
	VsockID string `json:"vsock_id,omitempty"`
}

// PutVsockRequest is PUT /vsock.
func PutVsockRequest(v Vsock) Request { return Request{http.MethodPut, "/vsock", v} }

// PutVsock adds or replaces the vsock device. Before the start only.
func (c *Client) PutVsock(ctx context.Context, v Vsock) error {
	return c.Do(ctx, PutVsockRequest(v), nil)
}

// EntropyDevice is the body of PUT /entropy.
type EntropyDevice struct {
	// RateLimiter bounds what the guest takes.
	RateLimiter *RateLimiter `json:"rate_limiter,omitempty"`
}

// PutEntropyRequest is PUT /entropy.
func PutEntropyRequest(e EntropyDevice) Request { return Request{http.MethodPut, "/entropy", e} }

// PutEntropy adds a virtio-rng device. Before the start only.
func (c *Client) PutEntropy(ctx context.Context, e EntropyDevice) error {
	return c.Do(ctx, PutEntropyRequest(e), nil)
}

// SerialDevice is the body of PUT /serial. Since 1.14. A snapshot does not
// hold it.
type SerialDevice struct {
	// SerialOutPath is a file or FIFO for the guest's console in place of the
	// VMM's stdout. It is opened by InstanceStart, neither truncated nor
	// appended to.
	SerialOutPath string `json:"serial_out_path,omitempty"`
	// RateLimiter, in bytes, drops what exceeds it. Since 1.16.
	RateLimiter *TokenBucket `json:"rate_limiter,omitempty"`
}

// PutSerialRequest is PUT /serial.
func PutSerialRequest(s SerialDevice) Request { return Request{http.MethodPut, "/serial", s} }

// PutSerial sets up the serial console. Before the start or load only. Since
// 1.14.
func (c *Client) PutSerial(ctx context.Context, s SerialDevice) error {
	return c.Do(ctx, PutSerialRequest(s), nil)
}
