package nullengine

import (
	"fmt"

	"github.com/tangle-network/microvm/fcemu"
	"golang.org/x/sys/unix"
)

// openTap opens an interface's TAP as the original does, replacing the one
// that the interface had. A name that does not exist is created where the
// caller has the right to, as there. The name that the kernel gave is put into
// the configuration.
func (e *Engine) openTap(n *fcemu.NetworkInterface) error {
	e.closeTap(n.IfaceID)
	if len(n.HostDevName) >= unix.IFNAMSIZ {
		return fmt.Errorf("host_dev_name %q is longer than %d bytes", n.HostDevName, unix.IFNAMSIZ-1)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(n.HostDevName)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("host_dev_name %q: %w", n.HostDevName, err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		unix.Close(fd)
		return fmt.Errorf("open the TAP %q: %w", n.HostDevName, err)
	}
	n.HostDevName = req.Name()
	e.taps[n.IfaceID] = fd
	return nil
}

func (e *Engine) closeTap(id string) {
	if fd, ok := e.taps[id]; ok {
		unix.Close(fd)
		delete(e.taps, id)
	}
}
