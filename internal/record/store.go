package record

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
)

// Store is the directory of all VMs. Several processes may share it.
type Store struct {
	dir   string
	fault func(op Op, path string) error // for tests

	mu    sync.Mutex
	locks map[fileID]*keyLock // verbs of this process wait here, by directory
	cache map[string]cached   // records by id, valid while the file is the same
}

type fileID struct{ dev, ino uint64 }

type keyLock struct {
	sem  chan struct{}
	refs int
}

type cached struct {
	file  fileID
	mtime unix.Timespec
	rec   *Record
}

// Open makes the directory if need be, for the owner alone.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state directory: %w", err)
	}
	return &Store{dir: dir, locks: map[fileID]*keyLock{}, cache: map[string]cached{}}, nil
}

// Root is the directory that holds the VMs'.
func (s *Store) Root() string { return s.dir }

// Dir is the directory of a VM. The id must be a valid one.
func (s *Store) Dir(id string) string { return filepath.Join(s.dir, id) }

// IDs returns the names of all VM directories, sorted, readable or not.
func (s *Store) IDs() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list VMs: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if microvm.ValidateID(e.Name()) == nil && e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	sort.Strings(ids)
	return ids, nil
}

// Leftovers returns the paths of directories that a crash has left between two
// names: VMs in the making and VMs on their way out.
func (s *Store) Leftovers() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list VMs: %w", err)
	}
	var paths []string
	for _, e := range entries {
		if e.IsDir() && (strings.HasPrefix(e.Name(), newPrefix) || strings.HasPrefix(e.Name(), gonePrefix)) {
			paths = append(paths, filepath.Join(s.dir, e.Name()))
		}
	}
	return paths, nil
}

// Load reads a VM's record without any lock. A VM whose creation is not
// finished has none yet: that is ErrVMNotFound. The record must not be changed.
func (s *Store) Load(id string) (*Record, error) {
	path := filepath.Join(s.dir, id, FileName)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		s.forget(id)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil, microvm.ErrVMNotFound
		}
		return nil, fmt.Errorf("read record of %q: %w", id, err)
	}
	key := fileID{uint64(st.Dev), st.Ino}
	s.mu.Lock()
	c, ok := s.cache[id]
	s.mu.Unlock()
	if ok && c.file == key && c.mtime == st.Mtim {
		return c.rec, nil
	}
	rec, err := s.read(id, false)
	if err != nil {
		return nil, err
	}
	// A record that was just written may be replaced twice within one tick of the
	// clock that mtime is taken from, and the first inode be used again.
	if time.Since(time.Unix(st.Mtim.Unix())) > 50*time.Millisecond {
		s.mu.Lock()
		s.cache[id] = cached{key, st.Mtim, rec}
		s.mu.Unlock()
	}
	return rec, nil
}

func (s *Store) forget(id string) {
	s.mu.Lock()
	delete(s.cache, id)
	s.mu.Unlock()
}

// read reads a record; again says that it was read just before.
func (s *Store) read(id string, again bool) (*Record, error) {
	dir := s.Dir(id)
	rec := &Record{}
	if err := readJSON(filepath.Join(dir, FileName), rec); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, microvm.ErrVMNotFound
		}
		return nil, err
	}
	switch {
	case rec.Format > Format:
		return nil, fmt.Errorf("%w: %s has format %d, this program knows %d", ErrUnreadable, dir, rec.Format, Format)
	case rec.Format < 1 || rec.UID == "" || validUID(rec.UID) != nil:
		return nil, fmt.Errorf("%w: %s holds no VM", ErrUnreadable, dir)
	}
	if rec.ID != id {
		// A rename that was cut between the directory and the record is known by
		// its intent: the directory's name counts.
		in, err := readIntent(dir)
		if err == nil && in == nil && !again {
			return s.read(id, true) // it has ended between the two looks
		}
		if err != nil || in == nil || in.UID != rec.UID || in.NewID != id && in.NewID != rec.ID {
			return nil, fmt.Errorf("%w: %s holds the record of %q", ErrUnreadable, dir, rec.ID)
		}
		rec.ID = id
	}
	return rec, nil
}

func validUID(uid string) error {
	if len(uid) > 64 || strings.Trim(uid, "0123456789abcdef") != "" {
		return fmt.Errorf("%w: uid %.80q", ErrUnreadable, uid)
	}
	return nil
}

// Intent reads which verb is under way on a VM, without any lock; nil if none.
func (s *Store) Intent(id string) (*Intent, error) { return readIntent(s.Dir(id)) }

// readIntent looks again when it has met the file half written; one that stays so
// was emptied by a crash of the host.
func readIntent(dir string) (*Intent, error) {
	path := filepath.Join(dir, intentFile)
	for looks := 1; ; looks++ {
		var in *Intent
		err := readJSON(path, &in)
		switch {
		case err == nil:
			return in, nil
		case errors.Is(err, os.ErrNotExist):
			return nil, nil
		case !errors.Is(err, ErrUnreadable) || looks == 5:
			return nil, err
		}
	}
}

// acquire takes the in-process lock of a directory, then its flock.
func (s *Store) acquire(ctx context.Context, dir *os.File, wait bool) (release func(), err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return nil, err
	}
	key := fileID{uint64(st.Dev), st.Ino}
	s.mu.Lock()
	k := s.locks[key]
	if k == nil {
		k = &keyLock{sem: make(chan struct{}, 1)}
		s.locks[key] = k
	}
	k.refs++
	s.mu.Unlock()
	drop := func() {
		s.mu.Lock()
		if k.refs--; k.refs == 0 {
			delete(s.locks, key)
		}
		s.mu.Unlock()
	}
	if wait {
		select {
		case k.sem <- struct{}{}:
		case <-ctx.Done():
			drop()
			return nil, ctx.Err()
		}
	} else {
		select {
		case k.sem <- struct{}{}:
		default:
			drop()
			return nil, errBusy
		}
	}
	lock, err := flock(ctx, dir, wait)
	if err != nil {
		<-k.sem
		drop()
		return nil, err
	}
	return func() {
		// Said aloud, not left to the close: a child that is being started holds
		// a copy of the descriptor until its exec. It can't fail for a descriptor
		// that is open.
		_ = unix.Flock(int(lock.Fd()), unix.LOCK_UN)
		lock.Close()
		<-k.sem
		drop()
	}, nil
}

var errBusy = errors.New("locked by another verb")

// flock locks the lock file in dir. Another process can hold it: the kernel has
// no wait for it that a context could end, so it is tried again in growing
// steps.
func flock(ctx context.Context, dir *os.File, wait bool) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), lockFile, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s/%s: %w", dir.Name(), lockFile, err)
	}
	f := os.NewFile(uintptr(fd), lockFile)
	for step := 500 * time.Microsecond; ; step = min(2*step, 20*time.Millisecond) {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if err == unix.EINTR {
			continue
		}
		if err != unix.EWOULDBLOCK || !wait {
			f.Close()
			if err == unix.EWOULDBLOCK {
				return nil, errBusy
			}
			return nil, fmt.Errorf("lock %s: %w", dir.Name(), err)
		}
		t := time.NewTimer(step)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			f.Close()
			return nil, ctx.Err()
		}
	}
}
