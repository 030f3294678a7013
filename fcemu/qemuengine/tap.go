//go:build linux

package qemuengine

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openTAP attaches to the TAP interface in this network namespace, as
// Firecracker does when the interface is PUT; as there, root makes one that
// does not exist. An interface that is in use is EBUSY.
func openTAP(name string) (*os.File, error) {
	if len(name) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("host_dev_name %q: an interface name has at most %d characters", name, unix.IFNAMSIZ-1)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		// The library wants a name where the kernel would choose one.
		return nil, fmt.Errorf("host_dev_name %q: %w", name, err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun (is the module tun loaded?): %w", err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("attach to TAP interface %q: %w", name, err)
	}
	return os.NewFile(uintptr(fd), "tap:"+name), nil
}
