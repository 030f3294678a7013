package console

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoHoles says that a file system can't punch holes: files there can't be
// bounded. ext4, XFS, btrfs and tmpfs can.
var ErrNoHoles = errors.New("the file system can't punch holes, so the file can't be bounded: use ext4, XFS, btrfs or tmpfs")

// Create makes a new console file, mode 0600, and opens it for a VMM to append
// to. A file, link or anything else of that name is an error (os.ErrExist).
func Create(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create console file: %w", err)
	}
	return f, nil
}

// Append opens an existing console file for the next VMM to append to. It must
// be a regular file; a link is not followed.
func Append(path string) (*os.File, error) { return open(path, os.O_WRONLY|os.O_APPEND) }

// open opens a regular file. O_NONBLOCK: a FIFO in its place must not block.
func open(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open console file: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err == nil {
		err = control(f, func(fd int) error { return unix.SetNonblock(fd, false) })
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open console file: %w", err)
	}
	return f, nil
}

// Trim gives back the disk blocks at the head of the file so that at least its
// last keep bytes stay, and less than one block more. It returns the number of
// bytes freed on disk; nothing is done when the file holds no more than that. It
// is ErrNoHoles where the file system can't.
func Trim(path string, keep int64) (freed int64, err error) {
	f, err := open(path, os.O_WRONLY)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return trim(f, keep)
}

func trim(f *os.File, keep int64) (int64, error) {
	if keep < 0 {
		return 0, fmt.Errorf("trim %s: keep: %d is negative", f.Name(), keep)
	}
	before, err := stat(f)
	if err != nil {
		return 0, err
	}
	return cutHead(f, before, cutAt(before, keep))
}

// cutHead gives back the first bytes of a file of which before is known.
func cutHead(f *os.File, before unix.Stat_t, cut int64) (int64, error) {
	if cut <= 0 {
		return 0, nil
	}
	if err := punch(f, 0, cut); err != nil {
		return 0, fmt.Errorf("trim %s: %w", f.Name(), err)
	}
	after, err := stat(f)
	if err != nil {
		return 0, err
	}
	return max(0, before.Blocks-after.Blocks) * 512, nil
}

// cutAt is how many bytes at the head go when keep bytes are to stay: whole
// blocks.
func cutAt(st unix.Stat_t, keep int64) int64 {
	if st.Blocks*512 <= keep {
		return 0
	}
	return wholeBlocks(st, st.Size-keep)
}

func wholeBlocks(st unix.Stat_t, n int64) int64 {
	block := min(max(int64(st.Blksize), 4096), 1<<20)
	return max(0, n/block*block)
}

func stat(f *os.File) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := control(f, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return st, fmt.Errorf("stat %s: %w", f.Name(), err)
	}
	return st, nil
}

// control calls fn with the descriptor of f, which a concurrent Close can't take
// away meanwhile.
func control(f *os.File, fn func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var fnErr error
	err = conn.Control(func(fd uintptr) {
		for {
			fnErr = fn(int(fd))
			if !errors.Is(fnErr, unix.EINTR) {
				return
			}
		}
	})
	return errors.Join(err, fnErr)
}

// punch gives back the blocks of a part of the file.
func punch(f *os.File, off, length int64) error {
	err := control(f, func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return ErrNoHoles
	}
	return err
}

// dataFrom returns the first offset at or behind off that holds data: off
// itself, the end of a hole, or the size of the file when there is none.
//
// Only the head of a console file is ever punched. So when off still holds data
// after bytes from off on have been read, none of them can have been punched
// before they were read: that is how readers tell a hole from zeros of the
// guest's own.
func dataFrom(f *os.File, off int64) (int64, error) {
	var at int64
	err := control(f, func(fd int) (err error) {
		at, err = unix.Seek(fd, off, unix.SEEK_DATA)
		return err
	})
	if err == nil {
		return at, nil
	}
	st, statErr := stat(f)
	if statErr != nil {
		return 0, statErr
	}
	switch {
	case errors.Is(err, unix.ENXIO): // nothing but a hole until the end
		return max(off, st.Size), nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return off, nil // a file system without holes
	}
	return 0, fmt.Errorf("find data in %s: %w", f.Name(), err)
}
