//go:build linux

package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrTemplateNotFound is returned for a name that no file in the directory has.
var ErrTemplateNotFound = errors.New("no such root disk template")

// templateExts are the endings that a template's file may have after its name.
var templateExts = []string{".ext4", ".squashfs", ".img", ".raw"}

var templateName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Template is a root disk that VMs are cloned from.
type Template struct {
	// Name is what a spec calls it: the file's name without its ending.
	Name string
	// Path of the file, its length in bytes, and when it was last written.
	Path    string
	Size    int64
	ModTime time.Time
}

// Templates is a directory of root disks with names: alpine.ext4 is the template
// "alpine" (endings .ext4, .squashfs, .img, .raw). Adding one is putting a file
// there. It is safe for concurrent use; don't copy it.
type Templates struct {
	dir string

	mu      sync.Mutex
	digests map[fileKey]string
}

// fileKey changes whenever a file's contents may have changed: ctime can't be
// set back by whoever writes the file.
type fileKey struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// NewTemplates returns the templates in dir. The directory need not exist yet.
func NewTemplates(dir string) *Templates {
	return &Templates{dir: dir, digests: map[fileKey]string{}}
}

// List returns the templates in order of their names. Two files that would have
// the same name are an error that names both.
func (t *Templates) List() ([]Template, error) {
	entries, err := os.ReadDir(t.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list root disk templates: %w", err)
	}
	var list []Template
	for _, e := range entries {
		name, ok := nameOf(e.Name())
		if !ok {
			continue
		}
		path := filepath.Join(t.dir, e.Name())
		st, err := os.Stat(path) // a template may be a symlink to a disk elsewhere
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list root disk templates: %w", err)
		}
		if !st.Mode().IsRegular() {
			continue
		}
		list = append(list, Template{Name: name, Path: path, Size: st.Size(), ModTime: st.ModTime()})
	}
	slices.SortFunc(list, func(a, b Template) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(list); i++ {
		if list[i].Name == list[i-1].Name {
			return nil, fmt.Errorf("root disk template %q is there twice: %s and %s: remove one", list[i].Name, list[i-1].Path, list[i].Path)
		}
	}
	return list, nil
}

// Get returns the template of that name, or ErrTemplateNotFound with the names
// that exist.
func (t *Templates) Get(name string) (Template, error) {
	list, err := t.List()
	if err != nil {
		return Template{}, err
	}
	var names []string
	for _, tpl := range list {
		if tpl.Name == name {
			return tpl, nil
		}
		names = append(names, tpl.Name)
	}
	have := "none"
	if len(names) > 0 {
		have = strings.Join(names, ", ")
	}
	return Template{}, fmt.Errorf("%w: %q in %s (there: %s)", ErrTemplateNotFound, name, t.dir, have)
}

// Digest returns the sha256 of the template's contents in hex. It is computed
// once for each state of the file: inode, size and times are the key.
func (t *Templates) Digest(ctx context.Context, name string) (string, error) {
	tpl, err := t.Get(name)
	if err != nil {
		return "", err
	}
	f, _, err := openRegular(tpl.Path)
	if err != nil {
		return "", fmt.Errorf("digest of template %q: %w", name, err)
	}
	defer f.Close()
	before, err := keyOf(f)
	if err != nil {
		return "", fmt.Errorf("digest of template %q: %w", name, err)
	}
	t.mu.Lock()
	sum, ok := t.digests[before]
	t.mu.Unlock()
	if ok {
		return sum, nil
	}
	sum, err = digest(ctx, f)
	if err != nil {
		return "", fmt.Errorf("digest of template %q: %w", name, err)
	}
	after, err := keyOf(f)
	if err != nil {
		return "", fmt.Errorf("digest of template %q: %w", name, err)
	}
	if after != before {
		return "", fmt.Errorf("digest of template %q: %s was written meanwhile: replace templates by rename", name, tpl.Path)
	}
	t.mu.Lock()
	t.digests[before] = sum
	t.mu.Unlock()
	return sum, nil
}

func keyOf(f *os.File) (fileKey, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fileKey{}, err
	}
	return fileKey{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}, nil
}

func nameOf(file string) (string, bool) {
	for _, ext := range templateExts {
		if name, ok := strings.CutSuffix(file, ext); ok {
			return name, templateName.MatchString(name) && !strings.Contains(name, "..")
		}
	}
	return "", false
}
