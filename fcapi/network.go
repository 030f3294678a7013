package fcapi

import (
	"context"
	"net/http"
)

// NetworkInterface is the body of PUT /network-interfaces/{iface_id}.
type NetworkInterface struct {
	// IfaceID is made of letters, digits and "_". It is not the guest's name
	// of the interface.
	IfaceID string `json:"iface_id"`
	// HostDevName is the TAP, up to 15 bytes. One that does not exist is
	// created when the VMM has the right to, and refused otherwise.
	HostDevName string `json:"host_dev_name"`
	// GuestMAC is six pairs of hexadecimal digits with ":"; empty lets the
	// guest choose.
	GuestMAC string `json:"guest_mac,omitempty"`
	// MTU is 68 to 65535 and advertised to the guest; 0 leaves it out. Since
	// 1.16.
	MTU int `json:"mtu,omitempty"`
	// RxRateLimiter bounds what the guest receives.
	RxRateLimiter *RateLimiter `json:"rx_rate_limiter,omitempty"`
	// TxRateLimiter bounds what the guest sends.
	TxRateLimiter *RateLimiter `json:"tx_rate_limiter,omitempty"`
}

// NetworkInterfacePatch is the body of PATCH /network-interfaces/{iface_id}.
type NetworkInterfacePatch struct {
	IfaceID       string       `json:"iface_id"`
	RxRateLimiter *RateLimiter `json:"rx_rate_limiter,omitempty"`
	TxRateLimiter *RateLimiter `json:"tx_rate_limiter,omitempty"`
}

const networkInterfaces = "network-interfaces"

// PutNetworkInterfaceRequest is PUT /network-interfaces/{iface_id}.
func PutNetworkInterfaceRequest(n NetworkInterface) Request {
	return Request{http.MethodPut, devicePath(networkInterfaces, n.IfaceID), n}
}

// PutNetworkInterface adds or replaces an interface before the start. A failed
// replacement can lose the one before. After the start, since 1.16 and only
// with --enable-pci, it plugs a new one in.
func (c *Client) PutNetworkInterface(ctx context.Context, n NetworkInterface) error {
	return c.Do(ctx, PutNetworkInterfaceRequest(n), nil)
}

// PatchNetworkInterfaceRequest is PATCH /network-interfaces/{iface_id}.
func PatchNetworkInterfaceRequest(n NetworkInterfacePatch) Request {
	return Request{http.MethodPatch, devicePath(networkInterfaces, n.IfaceID), n}
}

// PatchNetworkInterface changes the rate limits. After the start only.
func (c *Client) PatchNetworkInterface(ctx context.Context, n NetworkInterfacePatch) error {
	return c.Do(ctx, PatchNetworkInterfaceRequest(n), nil)
}

// DeleteNetworkInterfaceRequest is DELETE /network-interfaces/{iface_id}.
func DeleteNetworkInterfaceRequest(ifaceID string) Request {
	return Request{Method: http.MethodDelete, Path: devicePath(networkInterfaces, ifaceID)}
}

// DeleteNetworkInterface unplugs an interface. After the start only, since
// 1.16, with --enable-pci.
func (c *Client) DeleteNetworkInterface(ctx context.Context, ifaceID string) error {
	return c.Do(ctx, DeleteNetworkInterfaceRequest(ifaceID), nil)
}
