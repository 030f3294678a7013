package firecracker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/image"
)

// resolve fills the provider's defaults into a spec, makes its paths absolute
// and checks it, first alone and then against the host: all faults at once.
func (r *Runtime) resolve(s microvm.Spec) (microvm.Spec, error) {
	if err := s.Validate(); err != nil {
		return s, err
	}
	s = s.Clone()
	c := r.cfg
	if s.Kernel == "" {
		s.Kernel = c.Kernel
		if s.Initrd == "" {
			s.Initrd = c.Initrd
		}
	}
	if !s.NoRootfs && c.Rootfs != "" {
		if s.Rootfs == nil {
			s.Rootfs = &microvm.Rootfs{}
		}
		if s.Rootfs.Path == "" {
			s.Rootfs.Path = c.Rootfs
			if s.Rootfs.ReadOnly == nil && c.RootfsReadOnly {
				yes := true
				s.Rootfs.ReadOnly = &yes
			}
		}
	}
	if s.BootArgs == "" {
		s.BootArgs = c.BootArgs
	}
	if s.VCPUs == 0 {
		s.VCPUs = c.VCPUs
	}
	if s.MemoryMiB == 0 {
		s.MemoryMiB = c.MemoryMiB
	}
	if s.Network == nil && len(s.NetworkInterfaces) == 0 && c.DefaultNetwork != nil {
		s.Network = microvm.Spec{Network: c.DefaultNetwork}.Clone().Network
	}
	if s.StopMode == "" {
		s.StopMode = microvm.StopModePause
	}
	if s.Vsock != nil && s.Vsock.CID == 0 {
		s.Vsock.CID = 3
	}
	// The defaults may have made a fault of what was none: an odd number of
	// vCPUs with SMT, a balloon above the memory.
	if err := s.Validate(); err != nil {
		return s, err
	}
	return s, checkHost(&s)
}

// checkHost looks at the files and devices that a spec names.
func checkHost(s *microvm.Spec) error {
	var errs []error
	fault := func(field, value string, err error) {
		errs = append(errs, &microvm.FieldError{Field: field, Value: fmt.Sprintf("%q", value), Rule: err.Error(), Err: err})
	}
	abs := func(field string, p *string) {
		a, err := filepath.Abs(*p)
		if err != nil {
			fault(field, *p, err)
			return
		}
		*p = a
	}
	if s.Kernel == "" {
		fault("kernel", "", errors.New("a kernel is needed: an uncompressed ELF, such as `microvm kernel import` makes"))
	} else {
		abs("kernel", &s.Kernel)
		info, err := image.InspectKernel(s.Kernel)
		if err == nil {
			err = info.BootableOn(runtime.GOARCH)
		}
		if err != nil {
			fault("kernel", s.Kernel, err)
		}
	}
	if s.Initrd != "" {
		abs("initrd", &s.Initrd)
		if err := readable(s.Initrd, false, false); err != nil {
			fault("initrd", s.Initrd, err)
		}
	}
	if r := s.Rootfs; r != nil && r.Path != "" {
		abs("rootfs.path", &r.Path)
		if err := readable(r.Path, false, isTrue(r.ReadOnly)); err != nil {
			fault("rootfs.path", r.Path, err)
		}
	}
	for i := range s.Drives {
		d := &s.Drives[i]
		f := fmt.Sprintf("drives[%d].path", i)
		abs(f, &d.Path)
		if err := readable(d.Path, d.InPlace && !isTrue(d.ReadOnly), d.InPlace || isTrue(d.ReadOnly)); err != nil {
			fault(f, d.Path, err)
		}
	}
	for i, n := range s.NetworkInterfaces {
		// As root, Firecracker would make a TAP that nobody has set up.
		if _, err := net.InterfaceByName(n.HostDevName); err != nil {
			fault(fmt.Sprintf("network_interfaces[%d].host_device", i), n.HostDevName,
				fmt.Errorf("a TAP that exists: %w (ip tuntap add %s mode tap)", err, n.HostDevName))
		}
	}
	return errors.Join(errs...)
}

// readable checks that a disk or initrd can be used, without blocking on a FIFO.
func readable(path string, write, device bool) error {
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR
	}
	f, err := os.OpenFile(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return fmt.Errorf("a file that can be opened: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	switch {
	case st.Mode().IsRegular():
		if st.Size() == 0 {
			return errors.New("a file that is not empty")
		}
		return nil
	case st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0:
		if !device {
			return errors.New("a regular file, or a block device that is read-only or in place")
		}
		return nil
	}
	return fmt.Errorf("a regular file; this is a %s", kind(st.Mode()))
}

func kind(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m&os.ModeNamedPipe != 0:
		return "FIFO"
	case m&os.ModeSocket != 0:
		return "socket"
	case m&os.ModeCharDevice != 0:
		return "character device"
	}
	return "special file"
}
