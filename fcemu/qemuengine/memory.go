//go:build linux

package qemuengine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	copyChunk = 1 << 20
	pageSize  = 4096
)

// newMemory makes a nameless file for size bytes of guest memory.
func newMemory(size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("guest-memory", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the guest's memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "guest-memory")
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, fmt.Errorf("make the guest's memory of %d bytes: %w", size, err)
	}
	return f, nil
}

// handPath is a path by which a child can open a file of ours, whether or not
// the file still has a name.
func handPath(f *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()) }

// saveMemory writes the guest's memory to path. Full makes a fully allocated
// file. Otherwise only pages that were ever touched are written, and what the
// file has elsewhere stays: over a Full file of the same length that is a
// merge. An existing file is reused and cut to size.
func saveMemory(ctx context.Context, mem *os.File, size int64, path string, full bool) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("open the memory file: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("close the memory file: %w", cerr)
		}
	}()
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("set the length of the memory file: %w", err)
	}
	var at int64
	err = eachExtent(mem, size, func(start, end int64) error {
		if full {
			if err := zeroRange(f, at, start-at); err != nil {
				return err
			}
		}
		at = end
		return copyRange(ctx, f, mem, start, end, false)
	})
	if err == nil && full {
		err = zeroRange(f, at, size-at)
	}
	if err != nil {
		return fmt.Errorf("write the memory file: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync the memory file: %w", err)
	}
	return nil
}

// loadMemory fills mem, which is new, from the first size bytes of the file
// at path.
func loadMemory(ctx context.Context, mem *os.File, size int64, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the memory file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("stat the memory file: %w", err)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("the memory file %s is not a regular file", path)
	}
	if st.Size() < size {
		return fmt.Errorf("the memory file %s has %d bytes, the guest's memory %d", path, st.Size(), size)
	}
	err = eachExtent(f, size, func(start, end int64) error {
		return copyRange(ctx, mem, f, start, end, true)
	})
	if err != nil {
		return fmt.Errorf("read the memory file: %w", err)
	}
	return nil
}

// eachExtent calls visit for each stretch of f below size that has data.
func eachExtent(f *os.File, size int64, visit func(start, end int64) error) error {
	for at := int64(0); at < size; {
		start, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return os.NewSyscallError("lseek", err)
		}
		if start >= size {
			return nil
		}
		end = min(end, size)
		if err := visit(start, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// copyRange copies [start, end). skipZeros leaves pages of zeros out, for a
// file that is still empty.
func copyRange(ctx context.Context, to, from *os.File, start, end int64, skipZeros bool) error {
	buf := make([]byte, min(copyChunk, end-start))
	for at := start; at < end; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := from.ReadAt(buf[:min(int64(len(buf)), end-at)], at)
		if n == 0 && err != nil {
			return err
		}
		b := buf[:n]
		if skipZeros {
			err = writeSparse(to, b, at)
		} else {
			_, err = to.WriteAt(b, at)
		}
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// writeSparse writes the pages of b that are not all zeros.
func writeSparse(to *os.File, b []byte, at int64) error {
	for off := 0; off < len(b); {
		n := 0 // bytes to write from off
		for off+n < len(b) && !isZero(b[off+n:min(off+n+pageSize, len(b))]) {
			n = min(n+pageSize, len(b)-off)
		}
		if n > 0 {
			if _, err := to.WriteAt(b[off:off+n], at+int64(off)); err != nil {
				return err
			}
		}
		off += n + pageSize
	}
	return nil
}

// isZero compares b with itself, shifted by one byte.
func isZero(b []byte) bool { return b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1]) }

// zeroRange makes a range allocated and zero.
func zeroRange(f *os.File, at, length int64) error {
	if length == 0 {
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE, at, length)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return os.NewSyscallError("fallocate", err)
	}
	zeros := make([]byte, min(copyChunk, length))
	for length > 0 {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), length)], at)
		if err != nil {
			return err
		}
		at, length = at+int64(n), length-int64(n)
	}
	return nil
}
