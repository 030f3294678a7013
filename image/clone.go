//go:build linux

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrBlockDevice is returned by Clone and Digest for a block device: a disk that
// is a device is used in place (or by mknod in a jail), never copied unasked.
var ErrBlockDevice = errors.New("is a block device: use it in place")

// CloneMode says how Clone may make the copy.
type CloneMode string

const (
	// CloneAuto takes a reflink where the file system has it, else a sparse copy.
	CloneAuto CloneMode = ""
	// CloneReflink takes a reflink or fails.
	CloneReflink CloneMode = "reflink"
	// CloneCopy always copies the data.
	CloneCopy CloneMode = "copy"
)

// CloneOptions changes what Clone does; the zero value is good.
type CloneOptions struct {
	Mode CloneMode
	// Perm of the new file before umask; zero means 0600.
	Perm os.FileMode
	// NoSync leaves fsync out, of the file and of its directory: for clones inside
	// a snapshot's pause. What Clone then returns may be lost in a power failure
	// until the caller has synced the file and its directory.
	NoSync bool
	// Progress, if set, is called from the same goroutine after each piece with
	// the bytes dealt with (data and holes) and the size of the file.
	Progress func(done, total int64)
}

// CloneResult says which way was taken.
type CloneResult struct {
	// Method is CloneReflink or CloneCopy.
	Method CloneMode
	// Size is the file's length, Copied how many bytes of data were moved: none
	// for a reflink, and no holes.
	Size, Copied int64
}

// clonePiece bounds how long a cancelled context waits for the kernel.
const clonePiece = 8 << 20

// Clone makes dst a copy of the file src that shares nothing visible with it: by
// FICLONE (ioctl_ficlone(2)) where the file system can, else by copying the data
// and leaving the holes. Symlinks in src are followed once. dst must not exist
// (fs.ErrExist), and a symlink there is not followed. When Clone returns nil, the
// file and its name are on disk (unless NoSync is set); when it returns an error,
// dst is gone again.
func Clone(ctx context.Context, src, dst string, opts CloneOptions) (CloneResult, error) {
	res, err := clone(ctx, src, dst, opts)
	if err != nil {
		return CloneResult{}, fmt.Errorf("clone %q to %q: %w", src, dst, err)
	}
	return res, nil
}

func clone(ctx context.Context, src, dst string, opts CloneOptions) (res CloneResult, err error) {
	switch opts.Mode {
	case CloneAuto, CloneReflink, CloneCopy:
	default:
		return res, fmt.Errorf("mode %q is none of %q, %q or empty", opts.Mode, CloneReflink, CloneCopy)
	}
	if err := ctx.Err(); err != nil {
		return res, err
	}
	in, size, err := openRegular(src)
	if err != nil {
		return res, err
	}
	defer in.Close()
	perm := opts.Perm
	if perm == 0 {
		perm = 0o600
	}
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return res, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, removeOwn(out, dst))
		}
		err = errors.Join(err, out.Close())
	}()
	if res, err = fill(ctx, in, out, size, opts); err != nil {
		return res, err
	}
	if opts.NoSync {
		return res, nil
	}
	if err := out.Sync(); err != nil {
		return res, err
	}
	return res, syncDir(filepath.Dir(dst))
}

// fill moves the contents in the way that opts asks for.
func fill(ctx context.Context, in, out *os.File, size int64, opts CloneOptions) (CloneResult, error) {
	if opts.Mode != CloneCopy {
		err := unix.IoctlFileClone(int(out.Fd()), int(in.Fd()))
		if err == nil {
			if opts.Progress != nil {
				opts.Progress(size, size)
			}
			return CloneResult{Method: CloneReflink, Size: size}, nil
		}
		if opts.Mode == CloneReflink {
			return CloneResult{}, fmt.Errorf("reflink: %w (both files must be on one file system that can share blocks: xfs, btrfs)", err)
		}
		if !reflinkRefused(err) {
			return CloneResult{}, fmt.Errorf("reflink: %w", err)
		}
	}
	copied, err := copySparse(ctx, in, out, size, opts.Progress)
	return CloneResult{Method: CloneCopy, Size: size, Copied: copied}, err
}

// reflinkRefused tells "can't be done here" from a failing disk.
func reflinkRefused(err error) bool {
	for _, e := range []unix.Errno{unix.EOPNOTSUPP, unix.EXDEV, unix.EINVAL, unix.ENOTTY, unix.ENOSYS, unix.EPERM, unix.ETXTBSY} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// copySparse copies the data of in and leaves its holes. out is empty.
func copySparse(ctx context.Context, in, out *os.File, size int64, progress func(done, total int64)) (copied int64, err error) {
	if err := out.Truncate(size); err != nil {
		return 0, err
	}
	c := copier{in: in, out: out}
	for pos := int64(0); pos < size; {
		if err := ctx.Err(); err != nil {
			return copied, err
		}
		start, end, err := nextData(in, pos, size)
		if err != nil {
			return copied, err
		}
		end = min(end, start+clonePiece)
		for at := start; at < end; {
			n, err := c.copy(at, end-at)
			if err != nil {
				return copied, err
			}
			at += n
			copied += n
		}
		pos = end
		if progress != nil {
			progress(pos, size)
		}
	}
	// A file that was cut looks like one that ends in a hole.
	st, err := in.Stat()
	if err == nil && st.Size() < size {
		err = fmt.Errorf("the source was cut from %d to %d bytes while it was copied", size, st.Size())
	}
	return copied, err
}

// nextData returns the first range of data at or after pos; an empty range at
// size when there is none.
func nextData(f *os.File, pos, size int64) (start, end int64, err error) {
	start, err = unix.Seek(int(f.Fd()), pos, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil
	case errors.Is(err, unix.EINVAL):
		return pos, size, nil // the file system doesn't know holes
	case err != nil:
		return 0, 0, fmt.Errorf("seek to data: %w", err)
	}
	end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("seek to hole: %w", err)
	}
	// The file may have grown since its size was taken.
	return min(start, size), min(end, size), nil
}

// copier copies ranges inside the kernel, or through a buffer where the kernel
// can't (between two file systems, mostly).
type copier struct {
	in, out *os.File
	buf     []byte
}

func (c *copier) copy(at, length int64) (int64, error) {
	if c.buf == nil {
		inOff, outOff := at, at
		n, err := unix.CopyFileRange(int(c.in.Fd()), &inOff, int(c.out.Fd()), &outOff, int(length), 0)
		switch {
		case err == nil && n > 0:
			return int64(n), nil
		case err == nil: // some file systems answer 0 before the end of the file
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		default:
			return 0, fmt.Errorf("copy at offset %d: %w", at, err)
		}
		c.buf = make([]byte, 1<<20)
	}
	n, err := c.in.ReadAt(c.buf[:min(length, int64(len(c.buf)))], at)
	if n == 0 && errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("the source was cut to %d bytes while it was copied", at)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if _, err := c.out.WriteAt(c.buf[:n], at); err != nil {
		return 0, err
	}
	return int64(n), nil
}

// openRegular opens a plain file for reading without ever blocking.
func openRegular(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil {
		switch what := notRegular(st.Mode()); {
		case what == "":
			return f, st.Size(), nil
		case st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0:
			err = &fs.PathError{Op: "open", Path: path, Err: ErrBlockDevice}
		default:
			err = fmt.Errorf("%q is %s, not a plain file", path, what)
		}
	}
	return nil, 0, errors.Join(err, f.Close())
}

// removeOwn removes path if it still is the open file f.
func removeOwn(f *os.File, path string) error {
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(mine, there) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(path)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
