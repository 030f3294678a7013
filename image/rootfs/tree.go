// Package rootfs makes small ext4 root disks from folders and tar archives,
// without root rights: owners, modes, device nodes, hard links and extended
// attributes come out as the archive has them, because they are written into the
// disk (by e2fsprogs' debugfs) and never exist on the host.
package rootfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Limits of a tree. They are far above what a root disk has, and keep a hostile
// archive from filling memory or disk.
const (
	maxEntries = 1_000_000
	maxPath    = 3500 // a debugfs command names two paths in 8 KiB
	maxName    = 255
	maxTarget  = 4000
	maxBytes   = 64 << 30
)

// ErrPath is wrapped by every refusal of a name: one that leaves the tree, is too
// long or can't be written.
var ErrPath = errors.New("path not allowed")

// Meta is what the root disk says about a file beside its contents.
type Meta struct {
	// Mode has the permissions with setuid, setgid and sticky bits in Go's form.
	Mode     fs.FileMode
	UID, GID int
	// ModTime in whole seconds; zero means the epoch of the disk.
	ModTime time.Time
	// Xattrs are extended attributes by full name (security.capability).
	Xattrs map[string][]byte
}

// inode is one file; hard links are several names of one inode.
type inode struct {
	Meta
	kind         fs.FileMode // type bits
	hostPath     string      // where the contents are
	size         int64
	target       string // of a symlink
	major, minor uint32
	children     map[string]*inode

	shared bool // it has, or had, several names
}

// Tree is the contents of a root disk before it is made. Use NewTree. Adding a
// path that exists replaces it, as tar does; parents are made as needed (mode
// 0755, root's). It is not safe for concurrent use.
type Tree struct {
	root    *inode
	entries int
	bytes   int64
	// staging is where contents that come from a stream are kept.
	staging string
	staged  int
	skipped []string
}

// NewTree returns an empty tree. Close it.
func NewTree() (*Tree, error) {
	dir, err := os.MkdirTemp("", "microvm-rootfs-")
	if err != nil {
		return nil, err
	}
	return &Tree{root: newDir(), staging: dir}, nil
}

// Close removes the tree's temporary files.
func (t *Tree) Close() error { return os.RemoveAll(t.staging) }

func newDir() *inode {
	return &inode{Meta: Meta{Mode: 0o755}, kind: fs.ModeDir, children: map[string]*inode{}}
}

// AddDir adds a directory, or sets what an existing one says.
func (t *Tree) AddDir(name string, m Meta) error {
	if clean, err := cleanPath(name); err != nil {
		return err
	} else if clean == "" {
		t.root.Meta = m
		return nil
	}
	dir, base, err := t.parent(name)
	if err != nil {
		return err
	}
	if old := dir.children[base]; old != nil && old.kind == fs.ModeDir {
		old.Meta = m
		return nil
	}
	d := newDir()
	d.Meta = m
	return t.put(dir, base, d)
}

// AddFile adds a file with the contents that r gives; they are copied now.
func (t *Tree) AddFile(name string, m Meta, r io.Reader) error {
	dir, base, err := t.parent(name)
	if err != nil {
		return err
	}
	f := &inode{Meta: m}
	if f.hostPath, f.size, err = t.stage(r); err != nil {
		return fmt.Errorf("contents of %q: %w", name, err)
	}
	return t.put(dir, base, f)
}

// AddSymlink adds a symlink. The target is never followed here.
func (t *Tree) AddSymlink(name, target string, m Meta) error {
	dir, base, err := t.parent(name)
	if err != nil {
		return err
	}
	if target == "" || len(target) > maxTarget || strings.ContainsAny(target, badBytes) {
		return fmt.Errorf("target of symlink %q: %w: empty, longer than %d bytes or with a line break", name, ErrPath, maxTarget)
	}
	return t.put(dir, base, &inode{Meta: m, kind: fs.ModeSymlink, target: target})
}

// AddLink gives the file oldName, which must be in the tree, one more name.
func (t *Tree) AddLink(name, oldName string) error {
	old, err := t.lookup(oldName)
	if err != nil {
		return fmt.Errorf("hard link %q: %w", name, err)
	}
	if old.kind == fs.ModeDir {
		return fmt.Errorf("hard link %q: %q is a directory", name, oldName)
	}
	dir, base, err := t.parent(name)
	if err != nil {
		return err
	}
	old.shared = true
	return t.put(dir, base, old)
}

// AddNode adds a device or a FIFO; kind is fs.ModeDevice with or without
// fs.ModeCharDevice, or fs.ModeNamedPipe.
func (t *Tree) AddNode(name string, kind fs.FileMode, major, minor uint32, m Meta) error {
	switch kind {
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice, fs.ModeNamedPipe:
	default:
		return fmt.Errorf("%q: %v is no device or FIFO", name, kind)
	}
	dir, base, err := t.parent(name)
	if err != nil {
		return err
	}
	return t.put(dir, base, &inode{Meta: m, kind: kind, major: major, minor: minor})
}

func (t *Tree) put(dir *inode, base string, n *inode) error {
	if t.entries++; t.entries > maxEntries {
		return fmt.Errorf("more than %d files", maxEntries)
	}
	if old := dir.children[base]; old != nil && old.kind == fs.ModeDir && len(old.children) > 0 {
		return fmt.Errorf("%q would replace a directory that isn't empty", base)
	}
	dir.children[base] = n
	return nil
}

// parent returns the directory that name belongs into. It never walks through a
// symlink: an archive that wants that is refused.
func (t *Tree) parent(name string) (*inode, string, error) {
	clean, err := cleanPath(name)
	if err != nil {
		return nil, "", err
	}
	if clean == "" {
		return nil, "", fmt.Errorf("%q: %w: it is the root", name, ErrPath)
	}
	parts := strings.Split(clean, "/")
	dir := t.root
	for i, p := range parts[:len(parts)-1] {
		next := dir.children[p]
		if next == nil {
			next = newDir()
			if err := t.put(dir, p, next); err != nil {
				return nil, "", err
			}
		}
		if next.kind != fs.ModeDir {
			return nil, "", fmt.Errorf("%q: %w: %q is no directory", name, ErrPath, strings.Join(parts[:i+1], "/"))
		}
		dir = next
	}
	return dir, parts[len(parts)-1], nil
}

func (t *Tree) lookup(name string) (*inode, error) {
	clean, err := cleanPath(name)
	if err != nil {
		return nil, err
	}
	n := t.root
	if clean == "" {
		return n, nil
	}
	for _, p := range strings.Split(clean, "/") {
		if n = n.children[p]; n == nil {
			return nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
		}
	}
	return n, nil
}

// badBytes would end a debugfs command.
const badBytes = "\x00\n\r"

// cleanPath returns name without leading, trailing and double slashes and dots.
func cleanPath(name string) (string, error) {
	if strings.ContainsAny(name, badBytes) {
		return "", fmt.Errorf("%q: %w: NUL and line breaks can't be written", name, ErrPath)
	}
	for _, p := range strings.Split(name, "/") {
		if p == ".." {
			return "", fmt.Errorf("%q: %w: it leads out of the tree", name, ErrPath)
		}
		if len(p) > maxName {
			return "", fmt.Errorf("%q: %w: a name of more than %d bytes", name, ErrPath, maxName)
		}
	}
	clean := strings.Trim(path.Clean("/"+name), "/")
	if len(clean) > maxPath {
		return "", fmt.Errorf("%.40q…: %w: more than %d bytes", name, ErrPath, maxPath)
	}
	return clean, nil
}

// stage copies contents to a numbered file of our own, so that no name from an
// archive ever becomes a path on the host.
func (t *Tree) stage(r io.Reader) (string, int64, error) {
	f, err := os.OpenFile(t.nextStaged(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", 0, err
	}
	n, err := copyHoles(f, io.LimitReader(r, maxBytes-t.bytes+1))
	t.bytes += n
	if err == nil && t.bytes > maxBytes {
		err = fmt.Errorf("more than %d bytes in all", int64(maxBytes))
	}
	return f.Name(), n, errors.Join(err, f.Close())
}

// copyHoles leaves blocks of zeroes out, so that a small archive with a huge
// sparse file doesn't fill the disk.
func copyHoles(f *os.File, r io.Reader) (int64, error) {
	buf, zeroes := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := r.Read(buf)
		if !bytes.Equal(buf[:n], zeroes[:n]) {
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				return at, err
			}
		}
		at += int64(n)
		if errors.Is(err, io.EOF) {
			return at, f.Truncate(at)
		}
		if err != nil {
			return at, err
		}
	}
}

func (t *Tree) nextStaged() string {
	t.staged++
	return fmt.Sprintf("%s/%08d", t.staging, t.staged)
}

// walk calls visit for every name below the root, directories before what is in
// them, names in order.
func (t *Tree) walk(visit func(dir, name string, n *inode) error) error {
	return walkDir("/", t.root, visit)
}

func walkDir(dir string, d *inode, visit func(dir, name string, n *inode) error) error {
	names := slices.Sorted(maps.Keys(d.children))
	// All of a directory first, so that debugfs changes directory once for it.
	for _, name := range names {
		if err := visit(dir, name, d.children[name]); err != nil {
			return err
		}
	}
	for _, name := range names {
		if c := d.children[name]; c.kind == fs.ModeDir {
			if err := walkDir(path.Join(dir, name), c, visit); err != nil {
				return err
			}
		}
	}
	return nil
}
