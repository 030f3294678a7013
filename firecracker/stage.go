package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/image"
	"github.com/tangle-network/microvm/internal/record"
)

// The ways in which a file gets into the run directory.
const (
	wayLink    = "link"    // hard link: shared, and pinned whatever becomes of its name
	waySymlink = "symlink" // shared, from another file system, or written in place
)

// share makes a read-only file appear at dst: by a hard link, else (another file
// system, somebody else's file) by a symbolic link. Its owner and mode are never
// touched, for they are everybody's.
func share(src, dst string) (way string, err error) {
	real, err := filepath.EvalSymlinks(src)
	if err != nil {
		return "", err
	}
	st, err := os.Stat(real)
	if err != nil {
		return "", err
	}
	if st.Mode().IsRegular() {
		if err := os.Link(real, dst); err == nil {
			return wayLink, nil
		} else if errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	if err := os.Symlink(real, dst); err != nil {
		return "", fmt.Errorf("stage %s as %s: %w", real, dst, err)
	}
	return waySymlink, nil
}

// diskName is the name of a disk in the run directory: the VMM is told it, so
// it is the same in every clone.
func diskName(id string) string {
	if id == microvm.RootDriveID {
		return "rootfs.ext4"
	}
	return "drive_" + id
}

// plannedDisks lists the disks of a spec, the root disk first.
func plannedDisks(s microvm.Spec) []record.Disk {
	var disks []record.Disk
	if r := s.Rootfs; r != nil && r.Path != "" {
		disks = append(disks, record.Disk{ID: microvm.RootDriveID, Source: r.Path, ReadOnly: isTrue(r.ReadOnly)})
	}
	for _, d := range s.Drives {
		disks = append(disks, record.Disk{ID: d.ID, Source: d.Path, ReadOnly: isTrue(d.ReadOnly), InPlace: d.InPlace && !isTrue(d.ReadOnly)})
	}
	for i := range disks {
		disks[i].File = diskName(disks[i].ID)
	}
	return disks
}

// stageDisk brings a disk into the run directory and says which way it took.
func stageDisk(ctx context.Context, d record.Disk, runDir string) (way string, err error) {
	dst := filepath.Join(runDir, d.File)
	switch {
	case d.InPlace:
		real, err := filepath.EvalSymlinks(d.Source)
		if err != nil {
			return "", err
		}
		return waySymlink, os.Symlink(real, dst)
	case d.ReadOnly:
		return share(d.Source, dst)
	}
	res, err := image.Clone(ctx, d.Source, dst, image.CloneOptions{})
	if errors.Is(err, image.ErrBlockDevice) {
		return "", fmt.Errorf("disk %q: %w (set in_place or read_only)", d.ID, err)
	}
	return string(res.Method), err
}

// stage brings kernel, initrd and disks of a new VM into its run directory.
func (o *op) stageBoot() error {
	s := &o.Rec.Spec
	o.stage = "stage the kernel"
	if _, err := share(s.Kernel, o.run(kernelFile)); err != nil {
		return err
	}
	if s.Initrd != "" {
		o.stage = "stage the initrd"
		if _, err := share(s.Initrd, o.run(initrdFile)); err != nil {
			return err
		}
	}
	o.Rec.Disks = plannedDisks(*s)
	for i, d := range o.Rec.Disks {
		o.stage = "stage disk " + d.ID
		way, err := stageDisk(o.ctx, d, o.runDir())
		if err != nil {
			return err
		}
		o.Rec.Disks[i].Way = way
	}
	return nil
}

// linkOrClone takes a file that nobody writes any more into a snapshot, or out
// of one.
func linkOrClone(ctx context.Context, src, dst string) error {
	real, err := filepath.EvalSymlinks(src)
	if err != nil {
		return err
	}
	if err := os.Link(real, dst); err == nil || errors.Is(err, os.ErrExist) || errors.Is(err, os.ErrNotExist) {
		return err
	} else if !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EMLINK) {
		return err
	}
	_, err = image.Clone(ctx, real, dst, image.CloneOptions{})
	return err
}
