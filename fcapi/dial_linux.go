package fcapi

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
)

const (
	// maxSocketPath is what sun_path holds beside its closing NUL, see unix(7).
	maxSocketPath = 107
	// oPath is O_PATH, see open(2): the file is only named, needing no
	// permission on it. It is the same on all of Linux that Go runs on.
	oPath = 0x200000
)

// dial connects to a unix socket whose path may be of any length: a long one
// is opened first and then named by its descriptor, as proc(5) allows.
func dial(ctx context.Context, path string) (net.Conn, error) {
	if path == "" || strings.ContainsRune(path, 0) {
		return nil, fmt.Errorf("%q is no path of a socket", path)
	}
	if path[0] == '@' { // which package net takes for an abstract address
		path = "./" + path
	}
	if len(path) <= maxSocketPath {
		return dialUnix(ctx, path)
	}
	f, err := os.OpenFile(path, oPath, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return dialUnix(ctx, fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}
