package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/userfaultfd.h.
const (
	uffdNew = 0xAA00     // _IO(0xAA, 0), on /dev/userfaultfd
	uffdAPI = 0xC018AA3F // _IOWR(0xAA, 0x3F, struct uffdio_api)
)

type uffdioAPI struct{ api, features, ioctls uint64 }

// checkUserfaultfd opens one that sees the kernel's own faults too, as a VMM
// needs, and shakes hands.
func checkUserfaultfd() Check {
	c := Check{Name: "userfaultfd", Status: Missing, For: "lazy restore of memory", Remedy: "sysctl vm.unprivileged_userfaultfd=1, or give this user /dev/userfaultfd"}
	how := "by system call"
	n, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	fd := int(n)
	if errno != 0 {
		dev, err := unix.Open("/dev/userfaultfd", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			c.Detail = fmt.Sprintf("userfaultfd(2): %v; /dev/userfaultfd: %v", errno, err)
			return c
		}
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(dev), uffdNew, unix.O_CLOEXEC|unix.O_NONBLOCK)
		_ = unix.Close(dev) // nothing was written to it
		if errno != 0 {
			c.Detail = "/dev/userfaultfd: " + errno.Error()
			return c
		}
		fd, how = int(n), "by /dev/userfaultfd"
	}
	defer unix.Close(fd)
	arg := uffdioAPI{api: 0xAA}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uffdAPI, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		c.Detail = "UFFDIO_API: " + errno.Error()
		return c
	}
	c.Status, c.Detail, c.Remedy = OK, "opened "+how, ""
	return c
}

// checkCgroup makes a cgroup below this process's own and removes it.
func checkCgroup() Check {
	c := Check{Name: "cgroup v2", Status: Missing, For: "limits and accounting of VMs"}
	const root = "/sys/fs/cgroup"
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		c.Detail = root + ": " + err.Error()
		c.Remedy = "mount -t cgroup2 none " + root
		return c
	}
	if st.Type != unix.CGROUP2_SUPER_MAGIC {
		c.Detail = root + " is not cgroup v2"
		c.Remedy = "boot with systemd.unified_cgroup_hierarchy=1"
		return c
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		c.Detail = err.Error()
		return c
	}
	own := ""
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			own = path
		}
	}
	try := filepath.Join(root, own, fmt.Sprintf("microvm-doctor-%d", os.Getpid()))
	if err := os.Mkdir(try, 0o755); err != nil {
		c.Status = Limited
		c.Detail = "mounted, but no cgroup can be made: " + err.Error()
		c.Remedy = "run as root, or in a delegated cgroup: systemd-run --user --scope -p Delegate=yes microvm …"
		return c
	}
	controllers, rerr := os.ReadFile(filepath.Join(try, "cgroup.controllers"))
	if err := errors.Join(rerr, os.Remove(try)); err != nil {
		c.Detail = err.Error()
		return c
	}
	c.Status = OK
	c.Detail = "a cgroup could be made; controllers: " + strings.TrimSpace(string(controllers))
	for _, need := range []string{"cpu", "memory", "pids"} {
		if !hasWord(string(controllers), need) {
			c.Status = Limited
			c.Remedy = "echo '+cpu +memory +pids +io' > " + filepath.Join(root, own, "cgroup.subtree_control")
		}
	}
	return c
}

func hasWord(text, word string) bool {
	for _, w := range strings.Fields(text) {
		if w == word {
			return true
		}
	}
	return false
}
