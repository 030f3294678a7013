package fcapi

import (
	"context"
	"encoding/json"
	"net/http"
)

// MMDSVersion says how a guest asks the metadata service.
type MMDSVersion string

// The versions.
const (
	MMDSV1 MMDSVersion = "V1" // the default, deprecated by Firecracker: no token
	MMDSV2 MMDSVersion = "V2" // with a session token
)

// MMDSConfig is the body of PUT /mmds/config.
type MMDSConfig struct {
	Version MMDSVersion `json:"version,omitempty"`
	// NetworkInterfaces are the ids of interfaces that lead to the service;
	// they must exist, and one at least.
	NetworkInterfaces []string `json:"network_interfaces"`
	// IPv4Address is link-local, 169.254.169.254 by default.
	IPv4Address string `json:"ipv4_address,omitempty"`
	// IMDSCompat answers as EC2 does, whatever the guest's Accept header says.
	// Since 1.13.
	IMDSCompat bool `json:"imds_compat,omitempty"`
}

// PutMMDSConfigRequest is PUT /mmds/config.
func PutMMDSConfigRequest(m MMDSConfig) Request {
	return Request{http.MethodPut, "/mmds/config", m}
}

// PutMMDSConfig sets up the metadata service. Before the start only.
func (c *Client) PutMMDSConfig(ctx context.Context, m MMDSConfig) error {
	return c.Do(ctx, PutMMDSConfigRequest(m), nil)
}

// PutMMDSRequest is PUT /mmds. contents is encoded as JSON; a json.RawMessage
// goes as it is.
func PutMMDSRequest(contents any) Request {
	return Request{http.MethodPut, "/mmds", mmdsBody(contents)}
}

// PutMMDS replaces the metadata. Status 413 when it exceeds the limit (51,200
// bytes unless the VMM was started with another).
func (c *Client) PutMMDS(ctx context.Context, contents any) error {
	return c.Do(ctx, PutMMDSRequest(contents), nil)
}

// PatchMMDSRequest is PATCH /mmds.
func PatchMMDSRequest(patch any) Request {
	return Request{http.MethodPatch, "/mmds", mmdsBody(patch)}
}

// PatchMMDS merges patch into the metadata as RFC 7396 has it. Refused before
// the first PutMMDS.
func (c *Client) PatchMMDS(ctx context.Context, patch any) error {
	return c.Do(ctx, PatchMMDSRequest(patch), nil)
}

// GetMMDS returns the metadata, {} when there is none.
func (c *Client) GetMMDS(ctx context.Context) (json.RawMessage, error) {
	return get[json.RawMessage](ctx, c, "/mmds")
}

// mmdsBody keeps nil, which is JSON's null here, from meaning "no body".
func mmdsBody(v any) any {
	if v == nil {
		return json.RawMessage("null")
	}
	return v
}
