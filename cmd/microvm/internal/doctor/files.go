package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/image"
)

// Guest is a guest in a folder. Initrd and Rootfs are empty where there is no
// such file.
type Guest struct{ Kernel, Initrd, Rootfs string }

// FindGuest returns the guest in the first folder that has a vmlinux.
func FindGuest(dirs []string) (Guest, bool) {
	for _, dir := range dirs {
		dir, err := filepath.Abs(dir)
		if err != nil {
			continue
		}
		file := func(name string) string {
			path := filepath.Join(dir, name)
			if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
				return ""
			}
			return path
		}
		if k := file("vmlinux"); k != "" {
			return Guest{Kernel: k, Initrd: file("initrd"), Rootfs: file("rootfs.ext4")}, true
		}
	}
	return Guest{}, false
}

func checkGuest(dirs []string) (bool, Check) {
	c := Check{Name: "guest", Status: Missing, For: `"microvm run" without --kernel`, Remedy: `make guest, in a checkout`}
	g, ok := FindGuest(dirs)
	if !ok {
		c.Detail = fmt.Sprintf("no vmlinux in %q", dirs)
		return false, c
	}
	info, err := image.InspectKernel(g.Kernel)
	if err == nil {
		err = info.BootableOn(runtime.GOARCH)
	}
	if err != nil {
		c.Detail = err.Error()
		return false, c
	}
	c.Status, c.Remedy = OK, ""
	c.Detail = filepath.Dir(g.Kernel) + ": " + info.Description
	return true, c
}

// checkStateDir tries the place where VMs live: writing, cloning, room.
func checkStateDir(dir string) []Check {
	state := Check{Name: "state directory", Status: Missing, For: "everything"}
	reflink := Check{Name: "reflink", Status: Missing, For: "instant clones and snapshots of disks", Remedy: "put the state directory on xfs or btrfs; without, disks are copied sparsely"}
	existing, err := nearest(dir)
	if err != nil {
		state.Detail = err.Error()
		reflink.Detail = "no state directory to try it in"
		return []Check{state, reflink}
	}
	where := dir
	if existing != filepath.Clean(dir) {
		where = fmt.Sprintf("%s, which will be made below %s", dir, existing)
	}
	scratch, err := os.MkdirTemp(existing, ".microvm-doctor-")
	if err != nil {
		state.Detail = where + ": " + err.Error()
		state.Remedy = "name another by --state-dir, or run as its owner"
		reflink.Detail = "the state directory can't be written"
		return []Check{state, reflink}
	}
	defer func() {
		if err := os.RemoveAll(scratch); err != nil {
			state.Detail += "; could not be cleaned up: " + err.Error()
		}
	}()
	state.Status = OK
	state.Detail = where
	var st unix.Statfs_t
	if err := unix.Statfs(existing, &st); err == nil {
		free := st.Bavail * uint64(st.Bsize) >> 20
		state.Detail += fmt.Sprintf(" (%d MiB free)", free)
		if free < lowSpaceMiB {
			state.Status = Limited
			state.Remedy = "make room, or name another by --state-dir"
		}
	}
	switch err := tryReflink(scratch); {
	case err == nil:
		reflink.Status, reflink.Remedy = OK, ""
		reflink.Detail = "files are cloned without copying"
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EXDEV):
		reflink.Status = Limited
		reflink.Detail = "the file system can't clone: disks are copied sparsely"
	default:
		reflink.Detail = err.Error()
	}
	return []Check{state, reflink}
}

// lowSpaceMiB is too little for a guest with a snapshot or two.
const lowSpaceMiB = 1024

// nearest is dir, or the folder above it that exists.
func nearest(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	for err == nil {
		info, serr := os.Stat(dir)
		switch {
		case serr == nil && info.IsDir():
			return dir, nil
		case serr == nil:
			return "", fmt.Errorf("%s is no folder", dir)
		case !errors.Is(serr, fs.ErrNotExist) || dir == "/":
			return "", serr
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}

func tryReflink(dir string) error {
	src, err := os.Create(filepath.Join(dir, "src"))
	if err != nil {
		return err
	}
	defer src.Close()
	if _, err := src.Write(make([]byte, 64<<10)); err != nil {
		return err
	}
	dst, err := os.Create(filepath.Join(dir, "dst"))
	if err != nil {
		return err
	}
	defer dst.Close()
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
}
