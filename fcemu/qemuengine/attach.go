//go:build linux

package qemuengine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/fcemu"
)

// resources are the files that the guest's devices stand on. They are open
// from the moment a device is PUT until the end, as Firecracker's are.
type resources struct {
	kernel, initrd *os.File
	drives         map[string]*os.File
	taps           map[string]*os.File
	macs           map[string]string // of interfaces for which the user gave none
}

func newResources() resources {
	return resources{drives: map[string]*os.File{}, taps: map[string]*os.File{}, macs: map[string]string{}}
}

func (r *resources) close() {
	for _, f := range r.drives {
		f.Close()
	}
	for _, f := range r.taps {
		f.Close()
	}
	for _, f := range []*os.File{r.kernel, r.initrd} {
		if f != nil {
			f.Close()
		}
	}
	*r = newResources()
}

// Attach checks a device or setting and opens what Firecracker opens at that
// moment: kernel, initrd, disks, TAPs and the vsock socket.
func (e *Engine) Attach(ctx context.Context, cfg *fcemu.Config, section, id string) error {
	switch section {
	case "boot-source":
		return e.files.openBootSource(&cfg.BootSource)
	case "machine-config":
		return checkMachine(&cfg.Machine)
	case "drives":
		d, err := findDrive(cfg, id)
		if err != nil {
			return err
		}
		return e.files.attachDrive(d)
	case "network-interfaces":
		n, err := findNIC(cfg, id)
		if err != nil {
			return err
		}
		return e.files.attachNIC(cfg, n)
	case "vsock":
		return e.attachVsock(ctx, cfg.Vsock)
	case "balloon":
		if cfg.Balloon.FreePageHinting {
			return refuse("free_page_hinting")
		}
		return nil
	case "entropy":
		return checkEntropy(cfg.Entropy)
	case "serial":
		return nil // opened at the start, as the original does
	case "pmem":
		return refuse("pmem")
	case "hotplug/memory":
		return refuse("memory hotplug")
	case "cpu-config":
		return refuse("cpu-config (custom CPU templates)")
	case "mmds/config", "mmds":
		return refuse("the metadata service (MMDS)")
	}
	return refuse(fmt.Sprintf("%q", section))
}

// errUnsupported is wrapped by every refusal of what this engine lacks.
var errUnsupported = errors.New("not emulated by the qemu engine of fcemu")

func refuse(what string) error { return fmt.Errorf("%s: %w", what, errUnsupported) }

func checkMachine(m *fcemu.MachineConfig) error {
	if m.HugePages != "" && m.HugePages != "None" {
		return refuse("huge_pages " + m.HugePages)
	}
	if m.CPUTemplate != nil && *m.CPUTemplate != "None" {
		return refuse("cpu_template " + *m.CPUTemplate)
	}
	return nil
}

func checkEntropy(e *fcemu.Entropy) error {
	if e != nil && e.RateLimiter != nil {
		t := throttle(e.RateLimiter)
		if t.IOPSTotal != 0 {
			return refuse("a limit of operations on the entropy device (a bandwidth limit is)")
		}
	}
	return nil
}

func findDrive(cfg *fcemu.Config, id string) (*fcemu.Drive, error) {
	for i := range cfg.Drives {
		if cfg.Drives[i].DriveID == id {
			return &cfg.Drives[i], nil
		}
	}
	return nil, fmt.Errorf("drive %q: not configured", id)
}

func findNIC(cfg *fcemu.Config, id string) (*fcemu.NetworkInterface, error) {
	for i := range cfg.NetworkInterfaces {
		if cfg.NetworkInterfaces[i].IfaceID == id {
			return &cfg.NetworkInterfaces[i], nil
		}
	}
	return nil, fmt.Errorf("network interface %q: not configured", id)
}

func (r *resources) openBootSource(b *fcemu.BootSource) error {
	kernel, err := os.Open(b.KernelImagePath)
	if err != nil {
		return fmt.Errorf("open kernel_image_path: %w", err)
	}
	var initrd *os.File
	if b.InitrdPath != nil {
		if initrd, err = os.Open(*b.InitrdPath); err != nil {
			kernel.Close()
			return fmt.Errorf("open initrd_path: %w", err)
		}
	}
	for _, f := range []*os.File{r.kernel, r.initrd} {
		if f != nil {
			f.Close()
		}
	}
	r.kernel, r.initrd = kernel, initrd
	return nil
}

// openDisk opens a drive's file the way it will be used.
func openDisk(d *fcemu.Drive) (*os.File, error) {
	if d.Socket != nil {
		return nil, refuse("a vhost-user drive (socket)")
	}
	if d.PathOnHost == nil {
		return nil, errors.New("path_on_host is missing")
	}
	mode := os.O_RDWR
	if d.IsReadOnly != nil && *d.IsReadOnly {
		mode = os.O_RDONLY
	}
	// A FIFO must not hold us up.
	f, err := os.OpenFile(*d.PathOnHost, mode|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open path_on_host: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("stat path_on_host: %w", err)
	}
	if m := st.Mode(); !m.IsRegular() && m.Type() != os.ModeDevice {
		f.Close()
		return nil, fmt.Errorf("path_on_host %s is neither a regular file nor a block device", *d.PathOnHost)
	}
	return f, nil
}

func (r *resources) attachDrive(d *fcemu.Drive) error {
	f, err := openDisk(d)
	if err != nil {
		return fmt.Errorf("drive %q: %w", d.DriveID, err)
	}
	if old := r.drives[d.DriveID]; old != nil {
		old.Close()
	}
	r.drives[d.DriveID] = f
	return nil
}

func checkNIC(n *fcemu.NetworkInterface) error {
	if limits(n.RxRateLimiter) || limits(n.TxRateLimiter) {
		return fmt.Errorf("network interface %q: %w", n.IfaceID, refuse("a rate limit"))
	}
	if n.GuestMAC != nil {
		if _, err := net.ParseMAC(*n.GuestMAC); err != nil {
			return fmt.Errorf("network interface %q: guest_mac: %w", n.IfaceID, err)
		}
	}
	return nil
}

// attachNIC first drops what the interface had, as the original does, and the
// TAPs of interfaces that are gone: the new one's may be the same.
func (r *resources) attachNIC(cfg *fcemu.Config, n *fcemu.NetworkInterface) error {
	for id, tap := range r.taps {
		if _, err := findNIC(cfg, id); err != nil || id == n.IfaceID {
			tap.Close()
			delete(r.taps, id)
		}
	}
	if err := checkNIC(n); err != nil {
		return err
	}
	tap, err := openTAP(n.HostDevName)
	if err != nil {
		return fmt.Errorf("network interface %q: %w", n.IfaceID, err)
	}
	r.taps[n.IfaceID] = tap
	return nil
}

// mac is the interface's address. Where the user gave none Firecracker lets
// the guest choose one; QEMU would give every guest the same.
func (r *resources) mac(n *fcemu.NetworkInterface) string {
	if n.GuestMAC != nil {
		return *n.GuestMAC
	}
	if r.macs[n.IfaceID] == "" {
		b := make([]byte, 6)
		rand.Read(b)
		b[0] = b[0]&^1 | 2 // one station, locally administered
		r.macs[n.IfaceID] = net.HardwareAddr(b).String()
	}
	return r.macs[n.IfaceID]
}

// backends lists the drives in the guest's order, the root drive first
// whatever the order of the PUTs, and the interfaces.
func (r *resources) backends(cfg *fcemu.Config) (drives []driveBackend, taps []*os.File, nics []nicBackend, err error) {
	for _, root := range []bool{true, false} {
		for i := range cfg.Drives {
			d := &cfg.Drives[i]
			if d.IsRootDevice != root {
				continue
			}
			f := r.drives[d.DriveID]
			if f == nil {
				return nil, nil, nil, fmt.Errorf("drive %q was never attached", d.DriveID)
			}
			st, err := f.Stat()
			if err != nil {
				return nil, nil, nil, fmt.Errorf("stat drive %q: %w", d.DriveID, err)
			}
			drives = append(drives, driveBackend{drive: *d, file: handPath(f), isDevice: !st.Mode().IsRegular()})
		}
	}
	for i := range cfg.NetworkInterfaces {
		n := &cfg.NetworkInterfaces[i]
		tap := r.taps[n.IfaceID]
		if tap == nil {
			return nil, nil, nil, fmt.Errorf("network interface %q was never attached", n.IfaceID)
		}
		taps = append(taps, tap)
		nics = append(nics, nicBackend{nic: *n, mac: r.mac(n)})
	}
	return drives, taps, nics, nil
}
