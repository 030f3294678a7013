//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// mountRoot mounts the root disk on newRoot; with an overlay, read-only below a
// tmpfs that takes all writes.
func mountRoot(disk string, c config) error {
	if c.overlay == noOverlay {
		return mountDisk(disk, newRoot, c.rootFSType, c.rootFlags, c.readOnly)
	}
	const lower, rw = "/lower", "/rw"
	for _, dir := range []string{lower, rw} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mountDisk(disk, lower, c.rootFSType, c.rootFlags, true); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", rw, "tmpfs", 0, strings.Join(append([]string{"mode=0755"}, nonEmpty(c.overlay)...), ",")); err != nil {
		return fmt.Errorf("mount tmpfs for the overlay (options %q): %w", c.overlay, err)
	}
	for _, dir := range []string{rw + "/upper", rw + "/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	options := "lowerdir=" + lower + ",upperdir=" + rw + "/upper,workdir=" + rw + "/work"
	if err := unix.Mount("overlay", newRoot, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount overlay (does the kernel have it?): %w", err)
	}
	return nil
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// mountDisk tries the types that were asked for, else every type of disk that the
// kernel knows, as the kernel's own root mount does.
func mountDisk(disk, dir, kinds, flags string, readOnly bool) error {
	types := strings.Split(kinds, ",")
	if kinds == "" {
		list, err := os.ReadFile("/proc/filesystems")
		if err != nil {
			return err
		}
		types = diskTypes(string(list))
	}
	var mountFlags uintptr
	if readOnly {
		mountFlags = unix.MS_RDONLY
	}
	var tried []string
	for _, kind := range types {
		err := unix.Mount(disk, dir, kind, mountFlags, flags)
		if err == nil {
			return nil
		}
		tried = append(tried, fmt.Sprintf("%s: %v", kind, err))
	}
	return fmt.Errorf("mount root disk %s: %s", disk, strings.Join(tried, "; "))
}

// diskTypes returns the file systems of /proc/filesystems that live on a disk,
// ext4 first: it mounts ext2 and ext3 too, which otherwise complain about it.
func diskTypes(list string) []string {
	var types []string
	for _, line := range strings.Split(list, "\n") {
		nodev, kind, found := strings.Cut(line, "\t")
		if found && nodev == "" && kind != "" {
			types = append(types, kind)
		}
	}
	slices.SortStableFunc(types, func(a, b string) int { return rank(a) - rank(b) })
	return types
}

func rank(kind string) int {
	if kind == "ext4" {
		return 0
	}
	return 1
}

// switchRoot makes root the root directory, with /dev, /proc and /sys moved into
// it, and frees the initrd's memory.
func switchRoot(root string) error {
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		target := root + dir
		if st, err := os.Lstat(target); err != nil || !st.IsDir() {
			say("the root disk has no directory %s", dir)
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount %s: %w", dir, err)
			}
			continue
		}
		if err := unix.Mount(dir, target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s to the root disk: %w", dir, err)
		}
	}
	if err := emptyInitrd(); err != nil {
		return fmt.Errorf("empty the initrd: %w", err)
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root disk to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// emptyInitrd removes the files of the initramfs, which would stay in memory for
// ever. It touches nothing unless / is one, and crosses no mount.
func emptyInitrd() error {
	var fs unix.Statfs_t
	if err := unix.Statfs("/", &fs); err != nil {
		return err
	}
	if int64(fs.Type) != unix.RAMFS_MAGIC && int64(fs.Type) != unix.TMPFS_MAGIC {
		return errors.New("/ is no initramfs")
	}
	var st unix.Stat_t
	if err := unix.Lstat("/", &st); err != nil {
		return err
	}
	return removeBelow("/", uint64(st.Dev))
}

func removeBelow(dir string, dev uint64) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		if uint64(st.Dev) != dev {
			continue
		}
		if e.IsDir() {
			if err := removeBelow(name, dev); err != nil {
				return err
			}
		}
		// A directory that something is mounted on, or below, stays.
		if err := os.Remove(name); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return nil
}
