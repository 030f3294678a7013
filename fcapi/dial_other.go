//go:build !linux

package fcapi

import (
	"context"
	"fmt"
	"net"
	"strings"
)

// maxSocketPath is what sun_path holds beside its closing NUL on the BSDs and
// macOS.
const maxSocketPath = 103

func dial(ctx context.Context, path string) (net.Conn, error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return nil, fmt.Errorf("%q is no path of a socket", path)
	}
	if path[0] == '@' { // which package net takes for an abstract address
		path = "./" + path
	}
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("the path has %d bytes, a unix socket's at most %d on this system: use a shorter or a relative path", len(path), maxSocketPath)
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}
