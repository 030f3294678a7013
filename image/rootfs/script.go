package rootfs

import (
	"bufio"
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

const blockSize = 4096

// script writes the debugfs commands that put a tree onto an empty disk.
type script struct {
	w     *bufio.Writer
	tree  *Tree
	epoch time.Time
	cwd   string
	// names counts what an inode is called so far, first is what it was called first.
	names map[*inode]int
	first map[*inode]string
}

func (s *script) write(w io.Writer) error {
	s.w = bufio.NewWriter(w)
	s.names, s.first = map[*inode]int{}, map[*inode]string{}
	// Whatever debugfs stamps itself gets this time, so that the disk is the same
	// whenever it is made.
	s.command("set_current_time", fmt.Sprintf("@%d", s.epoch.Unix()))
	if err := s.tree.walk(s.entry); err != nil {
		return err
	}
	if err := s.meta("/", s.tree.root); err != nil {
		return err
	}
	// Directories again, last: adding to one changed its time.
	err := s.tree.walk(func(dir, name string, n *inode) error {
		if n.kind == fs.ModeDir {
			s.time(path.Join(dir, name), n)
		}
		if s.names[n] > 1 && s.first[n] == path.Join(dir, name) {
			s.set(s.first[n], "links_count", s.names[n])
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.w.Flush()
}

func (s *script) entry(dir, name string, n *inode) error {
	full := path.Join(dir, name)
	if s.cwd != dir {
		s.cwd = dir
		s.command("cd", dir)
		if err := s.growForLinks(dir); err != nil {
			return err
		}
	}
	s.names[n]++
	if first := s.first[n]; first != "" {
		s.command("ln", first, full)
		return nil
	}
	s.first[n] = full
	switch n.kind {
	case 0:
		s.command("write", n.hostPath, name)
	case fs.ModeDir:
		if full == "/lost+found" {
			break // mkfs has made it
		}
		s.command("mkdir", name)
	case fs.ModeSymlink:
		s.command("symlink", name, n.target)
	case fs.ModeNamedPipe:
		s.command("mknod", name, "p")
	case fs.ModeDevice:
		s.command("mknod", name, "b", fmt.Sprint(n.major), fmt.Sprint(n.minor))
	default:
		s.command("mknod", name, "c", fmt.Sprint(n.major), fmt.Sprint(n.minor))
	}
	return s.meta(full, n)
}

// growForLinks: debugfs' ln doesn't extend a full directory as its other commands
// do, so a directory with hard links gets its blocks beforehand.
func (s *script) growForLinks(dir string) error {
	d, err := s.tree.lookup(dir)
	if err != nil {
		return err
	}
	for _, c := range d.children {
		if c.shared {
			for range dirBlocks(d) - 1 {
				s.command("expand_dir", dir)
			}
			return nil
		}
	}
	return nil
}

// meta sets owner, mode, times and attributes.
func (s *script) meta(full string, n *inode) error {
	s.set(full, "mode", fmt.Sprintf("0%o", unixMode(n)))
	if n.UID != 0 {
		s.set(full, "uid", n.UID)
	}
	if n.GID != 0 {
		s.set(full, "gid", n.GID)
	}
	s.time(full, n)
	for _, key := range slices.Sorted(maps.Keys(n.Xattrs)) {
		file := s.tree.nextStaged()
		if err := os.WriteFile(file, n.Xattrs[key], 0o600); err != nil {
			return err
		}
		s.command("ea_set", "-f", file, full, key)
	}
	return nil
}

func (s *script) time(full string, n *inode) {
	t := n.ModTime
	if t.IsZero() || t.Unix() < 0 {
		t = s.epoch
	}
	s.set(full, "mtime", fmt.Sprintf("@%d", t.Unix()))
}

func (s *script) set(full, field string, value any) {
	s.command("sif", full, field, fmt.Sprint(value))
}

// command writes one line. debugfs (libss) reads words in double quotes, in which
// a doubled quote stands for one.
func (s *script) command(name string, args ...string) {
	s.w.WriteString(name)
	for _, a := range args {
		s.w.WriteString(` "`)
		s.w.WriteString(strings.ReplaceAll(a, `"`, `""`))
		s.w.WriteByte('"')
	}
	s.w.WriteByte('\n') // errors stay in the writer until Flush
}

func unixMode(n *inode) uint32 {
	mode := uint32(n.Mode.Perm())
	if n.Mode&fs.ModeSetuid != 0 {
		mode |= 0o4000
	}
	if n.Mode&fs.ModeSetgid != 0 {
		mode |= 0o2000
	}
	if n.Mode&fs.ModeSticky != 0 {
		mode |= 0o1000
	}
	switch n.kind {
	case 0:
		return mode | 0o100000
	case fs.ModeDir:
		return mode | 0o040000
	case fs.ModeSymlink:
		return 0o120777
	case fs.ModeNamedPipe:
		return mode | 0o010000
	case fs.ModeDevice:
		return mode | 0o060000
	default:
		return mode | 0o020000
	}
}

// dirBlocks is an upper bound of the blocks that a directory fills: an entry
// doesn't cross blocks, so each may lose as much as the longest entry.
func dirBlocks(d *inode) int64 {
	var total int64 = 24
	for name := range d.children {
		total += int64(8 + (len(name)+3)/4*4)
	}
	const usable = blockSize - 12 - (8 + maxName + 1)
	return (total + usable - 1) / usable
}

// usage adds up what a tree takes on disk.
func (t *Tree) usage() (blocks, inodes int64) {
	blocks, inodes = dirBlocks(t.root), 1
	seen := map[*inode]bool{}
	add := func(_, _ string, n *inode) error {
		if seen[n] {
			return nil
		}
		seen[n] = true
		inodes++
		if len(n.Xattrs) > 0 {
			blocks++
		}
		switch n.kind {
		case fs.ModeDir:
			blocks += dirBlocks(n)
		case fs.ModeSymlink:
			blocks++ // up to 59 bytes need none
		case 0:
			data := (n.size + blockSize - 1) / blockSize
			blocks += data + data/256 // with extents
		}
		return nil
	}
	_ = t.walk(add) // add returns no error
	return blocks, inodes
}
