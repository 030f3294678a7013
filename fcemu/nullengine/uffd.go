package nullengine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The userfaultfd interface, from linux/userfaultfd.h; x/sys has none of it.
const (
	uffdioAPI          = 0xc018aa3f
	uffdioRegister     = 0xc020aa00
	uffdDevNew         = 0xaa00 // USERFAULTFD_IOC_NEW on /dev/userfaultfd
	uffdAPIVersion     = 0xaa
	uffdEventRemove    = 1 << 3 // UFFD_FEATURE_EVENT_REMOVE
	uffdRegisterAbsent = 1 << 0 // UFFDIO_REGISTER_MODE_MISSING
)

type uffdioAPIArg struct{ api, features, ioctls uint64 }

type uffdioRegisterArg struct{ start, length, mode, ioctls uint64 }

// faultHandler is what is kept of the hand-over: both end with the process, by
// which the handler sees that it is gone.
type faultHandler struct{ uffd, socket int }

func (h *faultHandler) close() error {
	if h == nil {
		return nil
	}
	return errors.Join(unix.Close(h.uffd), unix.Close(h.socket))
}

// mapping is one region in the message to the handler. page_size_kib holds
// bytes as well, as Firecracker's does.
type mapping struct {
	Base        uint64 `json:"base_host_virt_addr"`
	Size        uint64 `json:"size"`
	Offset      uint64 `json:"offset"`
	PageSize    uint64 `json:"page_size"`
	PageSizeKiB uint64 `json:"page_size_kib"`
}

// handOver gives the page faults of m to the handler that listens at path: one
// message with the list of regions and the userfaultfd.
func handOver(path string, m *memory, hugePages string) (_ *faultHandler, err error) {
	uffd, err := openUffd()
	if err != nil {
		return nil, err
	}
	h := &faultHandler{uffd: uffd, socket: -1}
	defer func() {
		if err != nil {
			unix.Close(h.uffd)
			if h.socket >= 0 {
				unix.Close(h.socket)
			}
		}
	}()
	api := uffdioAPIArg{api: uffdAPIVersion, features: uffdEventRemove}
	if err := ioctl(uffd, uffdioAPI, unsafe.Pointer(&api)); err != nil {
		return nil, fmt.Errorf("UFFDIO_API: %w", err)
	}
	reg := uffdioRegisterArg{start: uint64(m.base()), length: uint64(len(m.mem)), mode: uffdRegisterAbsent}
	if err := ioctl(uffd, uffdioRegister, unsafe.Pointer(&reg)); err != nil {
		return nil, fmt.Errorf("UFFDIO_REGISTER: %w", err)
	}
	size := uint64(PageSize)
	if hugePages == "2M" {
		size = 2 << 20
	}
	msg, err := json.Marshal([]mapping{{uint64(m.base()), uint64(len(m.mem)), 0, size, size}})
	if err != nil {
		return nil, fmt.Errorf("encode the mappings: %w", err)
	}
	if h.socket, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := unix.Connect(h.socket, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("connect to the page fault handler %s: %w", path, err)
	}
	if err := unix.Sendmsg(h.socket, msg, unix.UnixRights(uffd), nil, unix.MSG_NOSIGNAL); err != nil {
		return nil, fmt.Errorf("send the userfaultfd to %s: %w", path, err)
	}
	return h, nil
}

// openUffd needs the kernel's faults too, as a VMM's memory is touched by
// system calls: by the system call where that is allowed, else by the device
// node.
func openUffd() (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if errno == 0 {
		return int(fd), nil
	}
	if !errors.Is(errno, unix.EPERM) && !errors.Is(errno, unix.ENOSYS) {
		return -1, fmt.Errorf("userfaultfd: %w", errno)
	}
	dev, err := os.OpenFile("/dev/userfaultfd", os.O_RDWR, 0)
	if err != nil {
		return -1, fmt.Errorf("userfaultfd: %w (and %w)", errno, err)
	}
	defer dev.Close()
	fd, _, errno = unix.Syscall(unix.SYS_IOCTL, dev.Fd(), uffdDevNew, unix.O_CLOEXEC|unix.O_NONBLOCK)
	if errno != 0 {
		return -1, fmt.Errorf("/dev/userfaultfd: %w", errno)
	}
	return int(fd), nil
}

func ioctl(fd int, req uint, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}
