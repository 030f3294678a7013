package nullengine

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/tangle-network/microvm/fcemu"
	"golang.org/x/sys/unix"
)

// openBootSource holds kernel and initrd open, so that their names may go
// before the start.
func (e *Engine) openBootSource(b *fcemu.BootSource) error {
	kernel, err := os.OpenFile(b.KernelImagePath, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open kernel_image_path: %w", err)
	}
	var initrd *os.File
	if b.InitrdPath != nil {
		if initrd, err = os.OpenFile(*b.InitrdPath, os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
			kernel.Close()
			return fmt.Errorf("open initrd_path: %w", err)
		}
	}
	for _, f := range e.files {
		f.Close()
	}
	e.files = map[string]*os.File{"kernel": kernel}
	if initrd != nil {
		e.files["initrd"] = initrd
	}
	return nil
}

// checkKernel refuses at the start what Firecracker refuses then: a kernel
// that is no ELF (on arm64: no Image) for this machine, and an initrd that
// does not fit.
func (e *Engine) checkKernel(cfg *fcemu.Config) error {
	kernel := e.files["kernel"]
	if kernel == nil {
		return errors.New("no kernel: PUT /boot-source first")
	}
	if err := checkImage(kernel, runtime.GOARCH); err != nil {
		return fmt.Errorf("kernel_image_path: %w", err)
	}
	initrd := e.files["initrd"]
	if initrd == nil {
		return nil
	}
	st, err := initrd.Stat()
	switch {
	case err != nil:
		return fmt.Errorf("initrd_path: %w", err)
	case !st.Mode().IsRegular():
		return fmt.Errorf("initrd_path: %s is not a regular file", *cfg.BootSource.InitrdPath)
	case st.Size() == 0:
		return fmt.Errorf("initrd_path: %s is empty", *cfg.BootSource.InitrdPath)
	case st.Size() > int64(cfg.Machine.MemSizeMiB)<<20:
		return fmt.Errorf("initrd_path: %d bytes do not fit in %d MiB of memory", st.Size(), cfg.Machine.MemSizeMiB)
	}
	return nil
}

func checkImage(f *os.File, arch string) error {
	if arch == "arm64" {
		var head [64]byte
		if _, err := f.ReadAt(head[:], 0); err != nil || string(head[56:60]) != "ARM\x64" {
			return errors.New("not an arm64 kernel (Image)")
		}
		return nil
	}
	img, err := elf.NewFile(f)
	if err != nil {
		// %v: whatever can't be read here is a wrong kernel, not a fault of the host.
		return fmt.Errorf("not an uncompressed ELF kernel (vmlinux): %v", err)
	}
	if img.Class != elf.ELFCLASS64 || img.Machine != elf.EM_X86_64 {
		return fmt.Errorf("an ELF for %v, not for x86-64", img.Machine)
	}
	return nil
}

// kernelCommandLine is what a kernel would see: the boot args with what
// Firecracker adds before the part that belongs to init, but for the addresses
// of its devices.
func kernelCommandLine(cfg *fcemu.Config, pci bool) string {
	args := fcemu.DefaultBootArgs
	if cfg.BootSource.BootArgs != nil {
		args = *cfg.BootSource.BootArgs
	}
	kernel, init := fcemu.SplitBootArgs(args)
	words := []string{}
	if kernel != "" {
		words = append(words, kernel)
	}
	if !pci {
		words = append(words, "pci=off")
	}
	for _, d := range cfg.Drives {
		if !d.IsRootDevice {
			continue
		}
		root := "root=/dev/vda"
		if d.PartUUID != nil {
			root = "root=PARTUUID=" + *d.PartUUID
		}
		mode := "rw"
		if d.IsReadOnly != nil && *d.IsReadOnly {
			mode = "ro"
		}
		words = append(words, root, mode)
	}
	for _, p := range cfg.Pmem {
		if p.RootDevice {
			mode := "rw"
			if p.ReadOnly {
				mode = "ro"
			}
			words = append(words, fmt.Sprintf("root=/dev/pmem%d", slices.Index(cfg.Pmem, p)), mode)
		}
	}
	if init != "" {
		words = append(words, "--", init)
	}
	return strings.Join(words, " ")
}

// openPmem opens a pmem device's file, which Firecracker does at the start.
func (e *Engine) openPmem(p *fcemu.Pmem) error {
	flags := os.O_RDWR
	if p.ReadOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(p.PathOnHost, flags|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("pmem %s: %w", p.ID, err)
	}
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() == 0) {
		err = fmt.Errorf("%s is empty or no regular file", p.PathOnHost)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("pmem %s: %w", p.ID, err)
	}
	if old := e.pmem[p.ID]; old != nil {
		old.Close()
	}
	e.pmem[p.ID] = f
	return nil
}

// openDiskWriter opens the drive that the guest writes to.
func (e *Engine) openDiskWriter(cfg *fcemu.Config, id string) error {
	at := slices.IndexFunc(cfg.Drives, func(d fcemu.Drive) bool { return d.DriveID == id })
	if at < 0 {
		return fmt.Errorf("boot_args: fcemu.disk_writer=%s: there is no such drive", id)
	}
	d := cfg.Drives[at]
	if d.IsReadOnly != nil && *d.IsReadOnly {
		return fmt.Errorf("boot_args: fcemu.disk_writer=%s: the drive is read-only", id)
	}
	f, err := os.OpenFile(*d.PathOnHost, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("drive %s: %w", id, err)
	}
	if e.guest.drive != nil {
		e.guest.drive.Close()
	}
	e.guest.drive = f
	return nil
}

// Update changes a device of a started guest.
func (e *Engine) Update(_ context.Context, cfg *fcemu.Config, section, id string) error {
	if e.guest == nil {
		return errNotStarted
	}
	switch section {
	case "drives":
		if id != e.guest.cmd.DiskWriter {
			return nil
		}
		return e.atRest(func() error { return e.openDiskWriter(cfg, id) })
	case "balloon":
		return e.atRest(func() error { return e.inflate(cfg) })
	case "network-interfaces", "pmem":
		return nil // rate limits, which nothing reaches
	}
	return fmt.Errorf("the null engine of fcemu does not emulate updates of %s", section)
}

// atRest calls fn while the guest does not run.
func (e *Engine) atRest(fn func() error) error {
	running := !e.guest.began.IsZero()
	if err := e.guest.stop(); err != nil {
		return err
	}
	err := fn()
	if running {
		e.guest.start()
	}
	return err
}

// inflate gives the balloon's pages back to the host: those from the end of
// the memory down, except for pattern pages, which a guest would not give.
func (e *Engine) inflate(cfg *fcemu.Config) error {
	if cfg.Balloon == nil {
		return nil
	}
	pages := e.mem.pages()
	want := uint64(cfg.Balloon.AmountMiB) << 20 / PageSize
	first := max(FirstPage+e.guest.state.Pages, pages-min(want, pages))
	first = min(first, pages)
	if old := e.guest.dev.BalloonPages; pages-first > old {
		e.count("balloon.inflate_count", pages-first-old)
	} else {
		e.count("balloon.deflate_count", old-(pages-first))
	}
	e.guest.dev.BalloonPages = pages - first
	e.guest.dev.BalloonTarget = want
	return e.mem.discard(first, pages)
}

// BalloonStats reports the balloon, and a guest whose only memory in use are
// its pages.
func (e *Engine) BalloonStats(context.Context) (fcemu.BalloonStats, error) {
	if e.guest == nil {
		return fcemu.BalloonStats{}, errNotStarted
	}
	const perMiB = 1 << 20 / PageSize
	target, actual, total := e.guest.dev.BalloonTarget, e.guest.dev.BalloonPages, e.mem.pages()
	free := total - min(total, FirstPage+e.guest.state.Pages+actual)
	return fcemu.BalloonStats{
		TargetPages: target, ActualPages: actual,
		TargetMiB: target / perMiB, ActualMiB: actual / perMiB,
		Guest: map[string]uint64{
			"total_memory": total * PageSize, "free_memory": free * PageSize, "available_memory": free * PageSize,
		},
	}, nil
}

// Plug adds a device to a started guest.
func (e *Engine) Plug(_ context.Context, cfg *fcemu.Config, section, id string) error {
	switch section {
	case "network-interfaces":
		n, err := nic(cfg, id)
		if err != nil {
			return err
		}
		return e.openTap(n)
	case "pmem":
		at := slices.IndexFunc(cfg.Pmem, func(p fcemu.Pmem) bool { return p.ID == id })
		return e.openPmem(&cfg.Pmem[at])
	}
	return nil // a drive's file is held by the API
}

// Unplug takes a device away.
func (e *Engine) Unplug(_ context.Context, _ *fcemu.Config, section, id string) error {
	switch section {
	case "network-interfaces":
		e.closeTap(id)
	case "pmem":
		f := e.pmem[id]
		delete(e.pmem, id)
		return f.Close()
	case "drives":
		if id == e.guest.cmd.DiskWriter {
			return errors.New("the guest writes to this drive (fcemu.disk_writer)")
		}
	}
	return nil
}

// RequestMemory plugs hotpluggable memory: the null guest does at once what it
// is asked to.
func (e *Engine) RequestMemory(_ context.Context, requestedMiB int) error {
	if e.guest == nil {
		return errNotStarted
	}
	return e.atRest(func() error {
		e.guest.dev.PluggedMiB, e.guest.dev.RequestedMiB = requestedMiB, requestedMiB
		return nil
	})
}

// PluggedMemory is in MiB.
func (e *Engine) PluggedMemory(context.Context) (pluggedMiB, requestedMiB int, err error) {
	if e.guest == nil {
		return 0, 0, errNotStarted
	}
	return e.guest.dev.PluggedMiB, e.guest.dev.RequestedMiB, nil
}
