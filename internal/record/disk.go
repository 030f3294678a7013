package record

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Op is a step of writing a file.
type Op string

// The steps that a disk can refuse.
const (
	OpWrite   Op = "write"
	OpSync    Op = "sync"           // of a file's contents
	OpSyncDir Op = "sync directory" // of the names in it
)

// FailWith makes the steps of writing fail with what fault returns for them and
// the path: a disk that fails, for tests. It must be called before the store is
// used.
func (s *Store) FailWith(fault func(op Op, path string) error) { s.fault = fault }

func (s *Store) step(op Op, path string, do func() error) error {
	if s.fault != nil {
		if err := s.fault(op, path); err != nil {
			return &os.PathError{Op: string(op), Path: path, Err: err}
		}
	}
	return do()
}

// nextName is where the next contents of a file are written.
func nextName(dir, name string) string { return filepath.Join(dir, "."+name+".tmp") }

// writeNext writes what a file is to hold next beside it. Durable contents are on
// disk when it returns.
func (s *Store) writeNext(dir, name string, contents []byte, durable bool) (err error) {
	next := nextName(dir, name)
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	// A file that is there is written over, and cut if need be: it has its blocks.
	err = s.step(OpWrite, next, func() error {
		if _, err := f.Write(contents); err != nil {
			return err
		}
		st, err := f.Stat()
		if err == nil && st.Size() > int64(len(contents)) {
			err = f.Truncate(int64(len(contents)))
		}
		return err
	})
	if err == nil && durable {
		err = s.step(OpSync, next, func() error { return unix.Fdatasync(int(f.Fd())) })
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), ignoreMissing(os.Remove(next)))
	}
	return nil
}

// publish makes what was written next the file's contents.
func publish(dir, name string) error {
	next := nextName(dir, name)
	if err := rename(next, filepath.Join(dir, name)); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", name, err), ignoreMissing(os.Remove(next)))
	}
	return nil
}

// rename is os.Rename without its look at the new name, which is never a
// directory's.
func rename(from, to string) error {
	if err := unix.Rename(from, to); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// exchange is publish with a way back: until settled is called the old contents
// are kept, and back makes them the file's again. There is none on a file system
// that can't exchange two names.
func exchange(dir, name string) (settled func(), back func() error, err error) {
	path, next := filepath.Join(dir, name), nextName(dir, name)
	swap := func() error {
		return unix.Renameat2(unix.AT_FDCWD, next, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	}
	remove := func() error { return ignoreMissing(os.Remove(next)) }
	nothing := func() {}
	err = swap()
	switch {
	case err == nil:
		// What stays of the old is replaced by the next write.
		return func() { _ = remove() }, func() error {
			if err := swap(); err != nil {
				return fmt.Errorf("put back the old %s: %w", name, err)
			}
			return remove()
		}, nil
	case errors.Is(err, unix.ENOENT): // a new file
		return nothing, func() error { return ignoreMissing(os.Remove(path)) }, publish(dir, name)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		return nothing, func() error { return nil }, publish(dir, name)
	}
	return nil, nil, errors.Join(fmt.Errorf("write %s: %w", name, err), remove())
}

func (s *Store) syncDir(dir string) error {
	return s.step(OpSyncDir, dir, func() error { return SyncDir(dir) })
}

// SyncDir makes the entries of a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
