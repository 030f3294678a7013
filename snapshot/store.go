package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	draftPrefix = ".new-"
	gonePrefix  = ".gone-"
)

// Store is a directory of snapshots, which several processes may share. The
// caller keeps two writers of one VM's snapshots apart.
type Store struct {
	dir string

	mu    sync.Mutex
	names map[string]listing // by uid
}

type listing struct {
	ino   uint64
	mtime unix.Timespec
	names []string
}

// Open makes the directory if need be, for the owner alone.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the snapshot directory: %w", err)
	}
	return &Store{dir: dir, names: map[string]listing{}}, nil
}

// Names returns the names of a VM's snapshots in the order in which they were
// made. A snapshot whose manifest can't be read is left out; Manifest tells why.
func (s *Store) Names(uid string) ([]string, error) {
	dir := filepath.Join(s.dir, uid)
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return []string{}, nil
		}
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	s.mu.Lock()
	c, ok := s.names[uid]
	s.mu.Unlock()
	// A directory that was just changed may change again within the same tick
	// of the clock that its mtime is taken from.
	settled := time.Since(time.Unix(st.Mtim.Unix())) > 50*time.Millisecond
	if ok && settled && c.ino == st.Ino && c.mtime == st.Mtim {
		return append([]string{}, c.names...), nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return []string{}, nil
		}
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var found []Manifest
	unread := false // for a reason that can pass
	for _, e := range entries {
		if !e.IsDir() || !plainName(e.Name()) {
			continue
		}
		m, err := readManifest(filepath.Join(dir, e.Name()))
		if err == nil && m.Name == e.Name() {
			found = append(found, m)
		}
		unread = unread || err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotFound)
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Seq < found[j].Seq })
	names := make([]string, len(found))
	for i, m := range found {
		names[i] = m.Name
	}
	if settled && !unread {
		s.mu.Lock()
		s.names[uid] = listing{st.Ino, st.Mtim, names}
		s.mu.Unlock()
	}
	return append([]string{}, names...), nil
}

// Has says whether a VM has any snapshot, readable or not.
func (s *Store) Has(uid string) (bool, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, uid))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("list snapshots: %w", err)
	}
	for _, e := range entries {
		if plainName(e.Name()) {
			return true, nil
		}
	}
	return false, nil
}

// Manifest reads the manifest of a snapshot and returns its directory as well.
func (s *Store) Manifest(uid, name string) (m Manifest, dir string, err error) {
	dir = filepath.Join(s.dir, uid, name)
	if !plainName(name) || !plainName(uid) {
		return m, "", ErrNotFound
	}
	m, err = readManifest(dir)
	if err == nil && (m.Name != name || m.UID != uid) {
		err = fmt.Errorf("%w: %s is the snapshot %.80q of %.80q", ErrCorrupt, dir, m.Name, m.UID)
	}
	return m, dir, err
}

// Draft is a snapshot in the making: nobody sees it.
type Draft struct {
	Dir string

	store     *Store
	uid, name string
}

// Begin makes the directory of a draft, with DiskDir in it: ErrExists when the
// name is taken.
func (s *Store) Begin(uid, name string) (*Draft, error) {
	if _, _, err := s.Manifest(uid, name); !errors.Is(err, ErrNotFound) {
		return nil, ErrExists
	}
	parent := filepath.Join(s.dir, uid)
	if err := os.Mkdir(parent, 0o700); err == nil {
		err = syncPath(s.dir)
		if err != nil {
			return nil, err
		}
	} else if !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make the snapshot directory: %w", err)
	}
	dir, err := os.MkdirTemp(parent, draftPrefix)
	if err != nil {
		return nil, fmt.Errorf("make the snapshot directory: %w", err)
	}
	d := &Draft{Dir: dir, store: s, uid: uid, name: name}
	if err := os.Mkdir(filepath.Join(dir, DiskDir), 0o700); err != nil {
		return nil, errors.Join(err, d.Abort())
	}
	return d, nil
}

// Abort removes the draft.
func (d *Draft) Abort() error { return os.RemoveAll(d.Dir) }

// Publish checksums and syncs what the draft holds, and makes it visible under
// its name. It fills in the manifest's files, format, number and time.
func (d *Draft) Publish(ctx context.Context, m Manifest) (Manifest, error) {
	m.Format, m.UID, m.Name, m.CreatedAt = Format, d.uid, d.name, time.Now().UTC()
	if err := d.describe(ctx, &m); err != nil {
		return m, fmt.Errorf("checksum snapshot %q: %w", d.name, err)
	}
	others, err := d.store.Names(d.uid)
	if err != nil {
		return m, err
	}
	for _, n := range others {
		o, _, err := d.store.Manifest(d.uid, n)
		if err == nil {
			m.Seq = max(m.Seq, o.Seq)
		}
	}
	m.Seq++
	b, err := json.Marshal(m)
	if err != nil {
		return m, fmt.Errorf("encode the manifest of %q: %w", d.name, err)
	}
	if err := os.WriteFile(filepath.Join(d.Dir, manifestFile), b, 0o600); err != nil {
		return m, err
	}
	for _, p := range []string{manifestFile, DiskDir, "."} {
		if err := syncPath(filepath.Join(d.Dir, p)); err != nil {
			return m, err
		}
	}
	if err := ctx.Err(); err != nil {
		return m, err
	}
	parent := filepath.Dir(d.Dir)
	err = unix.Renameat2(unix.AT_FDCWD, d.Dir, unix.AT_FDCWD, filepath.Join(parent, d.name), unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
		return m, ErrExists
	}
	if err != nil {
		return m, fmt.Errorf("publish snapshot %q: %w", d.name, err)
	}
	d.Dir = filepath.Join(parent, d.name)
	return m, syncPath(parent)
}

func (d *Draft) describe(ctx context.Context, m *Manifest) error {
	sum := func(name string, chunks bool) (File, error) {
		path := filepath.Join(d.Dir, name)
		if err := syncPath(path); err != nil {
			return File{}, err
		}
		return digest(ctx, path, chunks)
	}
	if !m.Cold {
		state, err := sum(StateFile, false)
		if err != nil {
			return err
		}
		memory, err := sum(MemoryFile, true)
		if err != nil {
			return err
		}
		m.State, m.Memory = &state, &memory
	}
	for i := range m.Disks {
		content, err := sum(filepath.Join(DiskDir, m.Disks[i].File), false)
		if err != nil {
			return err
		}
		m.Disks[i].Content = content
	}
	return nil
}

// Check compares the files of a snapshot with its manifest: their sizes, and the
// checksum of the state, which is small. With all, every checksum.
func (s *Store) Check(ctx context.Context, m Manifest, all bool) error {
	dir := filepath.Join(s.dir, m.UID, m.Name)
	check := func(name string, want File, sum bool) error {
		path := filepath.Join(dir, name)
		st, err := os.Lstat(path)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if !st.Mode().IsRegular() || st.Size() != want.Size {
			return fmt.Errorf("%w: %s has %d bytes, the manifest says %d", ErrCorrupt, path, st.Size(), want.Size)
		}
		if !sum {
			return nil
		}
		got, err := digest(ctx, path, false)
		if err != nil {
			return err
		}
		if got.SHA256 != want.SHA256 {
			return fmt.Errorf("%w: %s has another checksum than the manifest says", ErrCorrupt, path)
		}
		return nil
	}
	if !m.Cold {
		if err := check(StateFile, *m.State, true); err != nil {
			return err
		}
		if err := check(MemoryFile, *m.Memory, all); err != nil {
			return err
		}
	}
	for _, d := range m.Disks {
		if err := check(filepath.Join(DiskDir, d.File), d.Content, all); err != nil {
			return err
		}
	}
	return nil
}

// DiskBytes is what the files of a snapshot occupy.
func (s *Store) DiskBytes(m Manifest) (int64, error) {
	var sum int64
	dir := filepath.Join(s.dir, m.UID, m.Name)
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		sum += st.Blocks * 512
		return nil
	})
	return sum, err
}

// Delete removes a snapshot: from its name at once, then from the disk. Who uses
// its files keeps them.
func (s *Store) Delete(uid, name string) error {
	if !plainName(name) || !plainName(uid) {
		return ErrNotFound
	}
	parent := filepath.Join(s.dir, uid)
	gone, err := os.MkdirTemp(parent, gonePrefix)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return ErrNotFound
		}
		return err
	}
	if err := os.Rename(filepath.Join(parent, name), filepath.Join(gone, name)); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = ErrNotFound
		}
		return errors.Join(err, os.RemoveAll(gone))
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("delete snapshot %q: %w", name, err)
	}
	if err := os.Remove(parent); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Sweep removes what a crash has left of a VM's drafts and deletions. The caller
// holds the VM's lock.
func (s *Store) Sweep(uid string) error {
	parent := filepath.Join(s.dir, uid)
	entries, err := os.ReadDir(parent)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), draftPrefix) || strings.HasPrefix(e.Name(), gonePrefix) {
			errs = append(errs, os.RemoveAll(filepath.Join(parent, e.Name())))
		}
	}
	if len(entries) == 0 {
		errs = append(errs, os.Remove(parent))
	}
	return errors.Join(errs...)
}

func syncPath(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
