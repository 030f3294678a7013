//go:build linux

package qemuengine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/tangle-network/microvm/fcemu"
)

// Update changes a device of a running or paused guest.
func (e *Engine) Update(ctx context.Context, cfg *fcemu.Config, section, id string) error {
	if e.vm == nil {
		return errNotStarted
	}
	switch section {
	case "drives":
		d, err := findDrive(cfg, id)
		if err != nil {
			return err
		}
		return e.updateDrive(ctx, d)
	case "network-interfaces":
		n, err := findNIC(cfg, id)
		if err != nil {
			return err
		}
		return checkNIC(n)
	case "balloon":
		return e.vm.setBalloon(ctx, cfg.Balloon.AmountMiB)
	case "balloon/statistics":
		return e.vm.setBalloonPolling(ctx, cfg.Balloon.StatsPollingIntervalS)
	}
	return refuse(fmt.Sprintf("an update of %q", section))
}

// updateDrive sets a drive's limits, and its file when that is another one
// now or has another size.
func (e *Engine) updateDrive(ctx context.Context, d *fcemu.Drive) error {
	i := e.vm.diskOf(d.DriveID)
	if i < 0 {
		return fmt.Errorf("drive %q: the guest has no such drive", d.DriveID)
	}
	f, err := openDisk(d)
	if err != nil {
		return fmt.Errorf("drive %q: %w", d.DriveID, err)
	}
	if err := e.vm.swapDisk(ctx, i, d, f); err != nil {
		f.Close()
		return fmt.Errorf("drive %q: %w", d.DriveID, err)
	}
	if old := e.files.drives[d.DriveID]; old != nil {
		old.Close()
	}
	e.files.drives[d.DriveID] = f
	args := object{"path": "/objects/" + throttleID(i), "property": "limits", "value": throttle(d.RateLimiter)}
	if _, err := e.vm.qmp.run(ctx, "qom-set", args); err != nil {
		return fmt.Errorf("drive %q: set its rate limit: %w", d.DriveID, err)
	}
	return nil
}

func (v *vm) diskOf(id string) int {
	for i := range v.disks {
		if v.disks[i].backend.drive.DriveID == id {
			return i
		}
	}
	return -1
}

// swapDisk puts another file under a drive and tells the guest its size.
func (v *vm) swapDisk(ctx context.Context, i int, d *fcemu.Drive, f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("stat path_on_host: %w", err)
	}
	k := &v.disks[i]
	next := disk{backend: driveBackend{drive: *d, file: handPath(f), isDevice: !st.Mode().IsRegular()}, gen: k.gen + 1}
	if _, err := v.qmp.run(ctx, "blockdev-add", next.backend.fileNode(i, next.gen)); err != nil {
		return fmt.Errorf("open the new file: %w", err)
	}
	drop := func(gen int) error {
		_, err := v.qmp.run(ctx, "blockdev-del", object{"node-name": fileID(i, gen)})
		return err
	}
	if _, err := v.qmp.run(ctx, "blockdev-reopen", object{"options": []object{next.backend.rawNode(i, next.gen)}}); err != nil {
		return errors.Join(fmt.Errorf("change to the new file: %w", err), drop(next.gen))
	}
	old := k.gen
	*k = next
	if err := drop(old); err != nil {
		return fmt.Errorf("close the old file: %w", err)
	}
	return v.announceSize(ctx, i, st.Size())
}

// announceSize makes QEMU tell the guest the drive's size. It does so at a
// change only, so the drive is set to the size that it has. A read-only drive
// or one of odd length can't be set: the guest sees its size at its next look.
func (v *vm) announceSize(ctx context.Context, i int, size int64) error {
	d := &v.disks[i].backend
	if d.readOnly() || d.isDevice || size%512 != 0 {
		return nil
	}
	if _, err := v.qmp.run(ctx, "block_resize", object{"node-name": driveID(i), "size": size}); err != nil {
		return fmt.Errorf("tell the guest the new size: %w", err)
	}
	return nil
}
