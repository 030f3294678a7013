//go:build linux

package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/image/internal/decompress"
)

// AddDirTree adds everything below the host's folder dir. Symlinks stay symlinks.
// Files of the user who calls become root's if that user isn't root; other
// owners stay. Sockets are left out and reported by Build.
func (t *Tree) AddDirTree(ctx context.Context, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	seen := map[[2]uint64]string{}
	return filepath.WalkDir(dir, func(host string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		name, err := filepath.Rel(dir, host)
		if err != nil {
			return err
		}
		if name == "lost+found" {
			return fs.SkipDir // mkfs makes one
		}
		st, err := os.Lstat(host)
		if err != nil {
			return err
		}
		return t.addHostFile(host, name, st, seen)
	})
}

func (t *Tree) addHostFile(host, name string, st fs.FileInfo, seen map[[2]uint64]string) error {
	sys := st.Sys().(*syscall.Stat_t)
	m := Meta{Mode: st.Mode() &^ fs.ModeType, UID: int(sys.Uid), GID: int(sys.Gid), ModTime: st.ModTime()}
	if uid := os.Getuid(); uid != 0 && m.UID == uid {
		m.UID, m.GID = 0, 0
	}
	var err error
	if m.Xattrs, err = hostXattrs(host, st.Mode()); err != nil {
		return fmt.Errorf("extended attributes of %q: %w", host, err)
	}
	kind := st.Mode().Type()
	if kind != fs.ModeDir && sys.Nlink > 1 {
		key := [2]uint64{uint64(sys.Dev), sys.Ino}
		if first, ok := seen[key]; ok {
			return t.AddLink(name, first)
		}
		seen[key] = name
	}
	switch kind {
	case 0:
		return t.addHostContent(host, name, m)
	case fs.ModeDir:
		return t.AddDir(name, m)
	case fs.ModeSymlink:
		target, err := os.Readlink(host)
		if err != nil {
			return err
		}
		return t.AddSymlink(name, target, m)
	case fs.ModeSocket:
		t.skipped = append(t.skipped, name+" (a socket)")
		return nil
	default:
		dev := uint64(sys.Rdev)
		return t.AddNode(name, kind, unix.Major(dev), unix.Minor(dev), m)
	}
}

// addHostContent adds a file that is read from where it is.
func (t *Tree) addHostContent(host, name string, m Meta) error {
	dir, base, err := t.parent(name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(host, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%q was replaced meanwhile", host)
	}
	if t.bytes += st.Size(); t.bytes > maxBytes {
		return fmt.Errorf("more than %d bytes in all", int64(maxBytes))
	}
	// debugfs gets a name without special characters.
	link := t.nextStaged()
	if err := os.Symlink(host, link); err != nil {
		return err
	}
	return t.put(dir, base, &inode{Meta: m, hostPath: link, size: st.Size()})
}

// hostXattrs reads what belongs on the disk: capabilities and the user's own.
// Labels and ACLs of the host's security modules do not.
func hostXattrs(host string, mode fs.FileMode) (map[string][]byte, error) {
	if t := mode.Type(); t != 0 && t != fs.ModeDir {
		return nil, nil
	}
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(host, buf)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found := map[string][]byte{}
	for _, key := range strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if !keepXattr(key) {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(host, key, value)
		if err != nil {
			return nil, err
		}
		found[key] = value[:n]
	}
	return found, nil
}

func keepXattr(key string) bool {
	return key == "security.capability" || strings.HasPrefix(key, "user.")
}

// AddTar adds everything in a tar archive, which may be compressed with gzip,
// zstd, xz or bzip2. A name that leads out of the tree or through a symlink, and
// a hard link to what isn't there, is refused.
func (t *Tree) AddTar(ctx context.Context, r io.Reader) error {
	z, _, err := decompress.Reader(r)
	if err != nil {
		return err
	}
	defer z.Close()
	tr := tar.NewReader(z)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("tar: %w", err)
		}
		if err := t.addTarEntry(h, tr); err != nil {
			return fmt.Errorf("tar: %w", err)
		}
	}
}

func (t *Tree) addTarEntry(h *tar.Header, r io.Reader) error {
	if h.Uid < 0 || h.Gid < 0 || h.Uid > 1<<32-2 || h.Gid > 1<<32-2 {
		return fmt.Errorf("%q: owner %d:%d is out of range", h.Name, h.Uid, h.Gid)
	}
	m := Meta{Mode: h.FileInfo().Mode() &^ fs.ModeType, UID: h.Uid, GID: h.Gid, ModTime: h.ModTime}
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok && keepXattr(name) {
			if m.Xattrs == nil {
				m.Xattrs = map[string][]byte{}
			}
			m.Xattrs[name] = []byte(value)
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return t.AddDir(h.Name, m)
	case tar.TypeReg, tar.TypeGNUSparse:
		return t.AddFile(h.Name, m, r)
	case tar.TypeSymlink:
		return t.AddSymlink(h.Name, h.Linkname, m)
	case tar.TypeLink:
		return t.AddLink(h.Name, h.Linkname)
	case tar.TypeChar:
		return t.AddNode(h.Name, fs.ModeDevice|fs.ModeCharDevice, uint32(h.Devmajor), uint32(h.Devminor), m)
	case tar.TypeBlock:
		return t.AddNode(h.Name, fs.ModeDevice, uint32(h.Devmajor), uint32(h.Devminor), m)
	case tar.TypeFifo:
		return t.AddNode(h.Name, fs.ModeNamedPipe, 0, 0, m)
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return fmt.Errorf("%q: entries of type %q are not supported", h.Name, h.Typeflag)
	}
}
