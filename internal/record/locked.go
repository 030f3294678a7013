package record

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
)

const (
	newPrefix  = ".new-"
	gonePrefix = ".gone-"
)

// Locked is a VM whose lock is held: only it can change the record.
type Locked struct {
	ID  string
	Dir string
	// Rec is nil while the VM is being created.
	Rec    *Record
	Intent *Intent

	store   *Store
	release func()
	draft   *draft // nil: none
	intents intents
}

// Reserve takes a name for a new VM, with its lock and its intent, in one
// rename: nobody ever sees the directory without them. ErrVMExists if the name
// is taken.
func (s *Store) Reserve(ctx context.Context, id string, in Intent) (*Locked, error) {
	if _, err := os.Lstat(s.Dir(id)); err == nil {
		return nil, microvm.ErrVMExists
	}
	tmp := filepath.Join(s.dir, newPrefix+in.UID)
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return nil, fmt.Errorf("reserve the name: %w", err)
	}
	undo := func(err error) error { return errors.Join(err, os.RemoveAll(tmp)) }
	dir, err := os.Open(tmp)
	if err != nil {
		return nil, undo(err)
	}
	defer dir.Close()
	release, err := s.acquire(ctx, dir, true)
	if err != nil {
		return nil, undo(err)
	}
	l := &Locked{ID: id, Dir: tmp, store: s, release: release}
	if err := l.SetIntent(in); err != nil {
		l.Unlock()
		return nil, undo(err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, s.Dir(id), unix.RENAME_NOREPLACE); err != nil {
		l.Unlock()
		if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
			err = microvm.ErrVMExists
		}
		return nil, undo(err)
	}
	l.Dir = s.Dir(id)
	return l, nil
}

// Lock waits for the VM's lock and reads its record: ErrVMNotFound, or
// ErrUnreadable.
func (s *Store) Lock(ctx context.Context, id string) (*Locked, error) { return s.lock(ctx, id, true) }

// TryLock is Lock without waiting: nil without an error when another verb holds
// the lock. It also returns a VM that has no record, for recovery.
func (s *Store) TryLock(id string) (*Locked, error) {
	l, err := s.lock(context.Background(), id, false)
	if errors.Is(err, errBusy) {
		return nil, nil
	}
	return l, err
}

func (s *Store) lock(ctx context.Context, id string, wait bool) (*Locked, error) {
	for {
		path := s.Dir(id)
		dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil, microvm.ErrVMNotFound
		}
		if err != nil {
			return nil, err
		}
		release, err := s.acquire(ctx, dir, wait)
		// While we waited the VM may have been renamed or forgotten.
		same := sameFile(dir, path)
		dir.Close()
		if err != nil && (same || !errors.Is(err, os.ErrNotExist)) {
			return nil, err
		}
		if !same {
			if err == nil {
				release()
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			continue
		}
		l := &Locked{ID: id, Dir: path, store: s, release: release}
		l.Rec, err = s.read(id, false)
		if errors.Is(err, microvm.ErrVMNotFound) && !wait {
			err = nil // for recovery
		}
		if err == nil {
			l.Intent, err = l.intents.open(path)
			if errors.Is(err, ErrUnreadable) {
				// It was never fsynced: after a crash of the host it may be
				// empty. That some verb was under way is all that is known.
				l.Intent, err = &Intent{}, nil
			}
		}
		if err != nil {
			l.Unlock()
			return nil, err
		}
		return l, nil
	}
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// Unlock lets the next verb in.
func (l *Locked) Unlock() {
	l.dropDraft()
	l.intents.close()
	l.release()
}

// Save makes Rec durable. When that fails the record is the one that it was.
func (l *Locked) Save() error {
	return l.save(func() error { return l.store.syncDir(l.Dir) })
}

// SaveNew is Save for a VM that was just made: its name is durable, too.
func (l *Locked) SaveNew() error {
	return l.save(func() error {
		name := make(chan error, 1)
		go func() { name <- l.store.syncDir(l.store.dir) }()
		err := l.store.syncDir(l.Dir)
		return errors.Join(err, <-name)
	})
}

// save publishes the record and makes its name durable with sync. A record whose
// name may not last must not be seen: the caller is told that it was not saved,
// and takes back what it says.
func (l *Locked) save(sync func() error) error {
	l.Rec.Format, l.Rec.ID = Format, l.ID
	b, err := encode(FileName, l.Rec)
	if err != nil {
		return err
	}
	if !l.takeDraft(b) {
		if err := l.store.writeNext(l.Dir, FileName, b, true); err != nil {
			return err
		}
	}
	settled, back, err := exchange(l.Dir, FileName)
	if err != nil {
		return err
	}
	if err := sync(); err != nil {
		return errors.Join(err, back())
	}
	settled()
	return nil
}

// SyncDir makes the names in the VM's directory durable.
func (l *Locked) SyncDir() error { return l.store.syncDir(l.Dir) }

// Rename gives the VM another name: ErrVMExists if it is taken. The intent must
// name the new id before.
func (l *Locked) Rename(newID string) error {
	l.dropDraft()
	s := l.store
	err := unix.Renameat2(unix.AT_FDCWD, l.Dir, unix.AT_FDCWD, s.Dir(newID), unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
		return microvm.ErrVMExists
	}
	if err != nil {
		return fmt.Errorf("rename the VM's directory: %w", err)
	}
	oldID := l.ID
	s.forget(oldID)
	l.ID, l.Dir = newID, s.Dir(newID)
	if err := s.syncDir(s.dir); err != nil {
		// The name may not last: the caller must not take it for done.
		if berr := unix.Renameat2(unix.AT_FDCWD, l.Dir, unix.AT_FDCWD, s.Dir(oldID), unix.RENAME_NOREPLACE); berr != nil {
			return errors.Join(err, fmt.Errorf("give the VM its old name: %w", berr))
		}
		s.forget(newID)
		l.ID, l.Dir = oldID, s.Dir(oldID)
		return err
	}
	return nil
}

// Remove forgets the VM: its name is free at once, then the files go.
func (l *Locked) Remove() error {
	l.dropDraft()
	gone := filepath.Join(l.store.dir, gonePrefix+filepath.Base(l.Dir)+"-"+l.uid())
	if err := os.Rename(l.Dir, gone); err != nil {
		return fmt.Errorf("remove the VM's directory: %w", err)
	}
	l.store.forget(l.ID)
	l.Dir = gone
	// Another program that has opened the directory just before may make a lock
	// file in it once more; then it sees that the VM has gone.
	err := os.RemoveAll(gone)
	for range 100 {
		if !errors.Is(err, unix.ENOTEMPTY) {
			break
		}
		err = os.RemoveAll(gone)
	}
	return err
}

func (l *Locked) uid() string {
	if l.Rec != nil {
		return l.Rec.UID
	}
	if l.Intent != nil {
		return l.Intent.UID
	}
	return ""
}
