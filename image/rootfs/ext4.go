//go:build linux

package rootfs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const (
	minSizeMiB = 4
	maxSizeMiB = 1 << 20 // 1 TiB
	// journalFrom is the size from which a disk gets a journal: below, the journal
	// of 4 MiB would be most of it.
	journalFrom = 16
	// features of the disk, the same whatever the host's mke2fs.conf says, and all
	// known to Linux 4.14 and newer.
	features = "none,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super," +
		"large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// Options of a disk; the zero value is good.
type Options struct {
	// SizeMiB is the disk's size in MiB (4 to 1048576). Zero means what is in it
	// and some 25 % more. Free space is a hole in the file and takes no room.
	SizeMiB int64
	// Label of the file system, at most 16 bytes.
	Label string
	// UUID of the file system, lower case. Empty means one that follows from the
	// contents' names, sizes and times, so that the same input gives the same disk.
	UUID string
	// Epoch is the time that the disk says it was made at, and that files without
	// a time get. Zero means the time of the newest file.
	Epoch time.Time
}

// Result says what was made.
type Result struct {
	Path    string
	SizeMiB int64
	UUID    string
	// Files is the number of names on the disk.
	Files int
	// Skipped names what could not be put on a disk (sockets).
	Skipped []string
}

// Build makes the ext4 disk dst from src, which is a folder or a tar archive
// (plain, gzip, zstd, xz or bzip2). dst is replaced atomically, and only by a disk
// that e2fsck found clean; VMs that run on the old file keep it. It needs mkfs.ext4,
// debugfs and e2fsck of e2fsprogs 1.45 or newer, no rights, no mounts.
func Build(ctx context.Context, src, dst string, opts Options) (Result, error) {
	res, err := build(ctx, src, dst, opts)
	if err != nil {
		return Result{}, fmt.Errorf("build root disk from %q: %w", src, err)
	}
	return res, nil
}

func build(ctx context.Context, src, dst string, opts Options) (res Result, err error) {
	t, err := NewTree()
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	st, err := os.Stat(src)
	switch {
	case err != nil:
		return res, err
	case st.IsDir():
		err = t.AddDirTree(ctx, src)
	case st.Mode().IsRegular():
		err = t.addTarFile(ctx, src)
	default:
		err = fmt.Errorf("it is neither a folder nor a file (%s)", st.Mode().Type())
	}
	if err != nil {
		return res, err
	}
	return t.Build(ctx, dst, opts)
}

func (t *Tree) addTarFile(ctx context.Context, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return t.AddTar(ctx, f)
}

// Build makes the ext4 disk dst from the tree, as the function Build does.
func (t *Tree) Build(ctx context.Context, dst string, opts Options) (res Result, err error) {
	if err := opts.check(); err != nil {
		return res, err
	}
	tools, err := findTools()
	if err != nil {
		return res, err
	}
	if opts.Epoch.IsZero() {
		opts.Epoch = t.newest()
	}
	if opts.Epoch.Unix() < 1 { // 0 means "now" to e2fsprogs
		opts.Epoch = time.Unix(1, 0)
	}
	var commands bytes.Buffer
	if err := (&script{tree: t, epoch: opts.Epoch}).write(&commands); err != nil {
		return res, err
	}
	if opts.UUID == "" {
		opts.UUID = t.derivedUUID()
	}
	blocks, inodes := t.usage()
	if opts.SizeMiB == 0 {
		opts.SizeMiB = autoSize(blocks, inodes)
	}
	tmp, err := os.CreateTemp(filepath.Dir(dst), "."+filepath.Base(dst)+".*")
	if err != nil {
		return res, err
	}
	defer func() {
		err = errors.Join(err, tmp.Close())
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	if err := tmp.Chmod(0o644); err != nil {
		return res, err
	}
	if err := tools.makeDisk(ctx, tmp.Name(), t.staging, opts, inodes, commands.Bytes()); err != nil {
		return res, err
	}
	if err := tmp.Sync(); err != nil {
		return res, err
	}
	if err := os.Rename(tmp.Name(), dst); err != nil {
		return res, err
	}
	files := 0
	err = t.walk(func(_, _ string, _ *inode) error { files++; return nil })
	return Result{Path: dst, SizeMiB: opts.SizeMiB, UUID: opts.UUID, Files: files, Skipped: t.skipped}, err
}

func (o Options) check() error {
	var errs []error
	if o.SizeMiB != 0 && (o.SizeMiB < minSizeMiB || o.SizeMiB > maxSizeMiB) {
		errs = append(errs, fmt.Errorf("size of %d MiB: allowed are %d to %d, or 0 for what is needed", o.SizeMiB, minSizeMiB, maxSizeMiB))
	}
	if len(o.Label) > 16 || strings.ContainsAny(o.Label, badBytes) {
		errs = append(errs, fmt.Errorf("label %q: at most 16 bytes, no line breaks", o.Label))
	}
	if o.UUID != "" && !uuidForm.MatchString(o.UUID) {
		errs = append(errs, fmt.Errorf("UUID %q: not of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx in lower-case hex", o.UUID))
	}
	return errors.Join(errs...)
}

func autoSize(blocks, inodes int64) int64 {
	bytes := blocks*blockSize + inodes*256
	mib := (bytes+bytes/4)>>20 + 4
	if mib >= journalFrom-4 {
		mib += 4
	}
	return max(mib, minSizeMiB)
}

func (t *Tree) newest() time.Time {
	newest := t.root.ModTime
	_ = t.walk(func(_, _ string, n *inode) error { // it returns no error
		if n.ModTime.After(newest) {
			newest = n.ModTime
		}
		return nil
	})
	return newest
}

// derivedUUID is a digest in the form of a UUID (RFC 9562 version 8: made by a
// rule of one's own).
func (t *Tree) derivedUUID() string {
	h := sha256.New()
	_ = t.walk(func(dir, name string, n *inode) error { // it returns no error
		fmt.Fprintf(h, "%q %q %o %d %d %d %d %q\n", dir, name, unixMode(n), n.UID, n.GID, n.size, n.ModTime.Unix(), n.target)
		return nil
	})
	u := h.Sum(nil)[:16]
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// tools are the programs of e2fsprogs.
type tools struct{ mkfs, debugfs, e2fsck string }

// ErrNoTools is wrapped when e2fsprogs is not there.
var ErrNoTools = errors.New("e2fsprogs is needed: apt-get install e2fsprogs (dnf, apk and pacman call it the same)")

func findTools() (tools, error) {
	var t tools
	for name, path := range map[string]*string{"mkfs.ext4": &t.mkfs, "debugfs": &t.debugfs, "e2fsck": &t.e2fsck} {
		for _, candidate := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} { // users often have no sbin in PATH
			if found, err := exec.LookPath(candidate); err == nil {
				*path = found
				break
			}
		}
		if *path == "" {
			return t, fmt.Errorf("%s not found: %w", name, ErrNoTools)
		}
	}
	return t, nil
}

func (t tools) makeDisk(ctx context.Context, disk, work string, opts Options, inodes int64, commands []byte) error {
	conf := filepath.Join(work, "mke2fs.conf")
	if err := os.WriteFile(conf, []byte("[fs_types]\n\text4 = {\n\t}\n\tmicrovm = {\n\t}\n"), 0o600); err != nil {
		return err
	}
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TZ=UTC", "MKE2FS_CONFIG=" + conf,
		fmt.Sprintf("E2FSPROGS_FAKE_TIME=%d", opts.Epoch.Unix()), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", opts.Epoch.Unix())}
	feats := features
	if opts.SizeMiB >= journalFrom {
		feats += ",has_journal"
	}
	// One inode for 16 KiB, as mke2fs does by default, or for what is there.
	count := max(inodes+inodes/4+64, opts.SizeMiB*64)
	args := []string{"-q", "-F", "-t", "ext4", "-T", "microvm", "-b", fmt.Sprint(blockSize), "-I", "256", "-m", "0",
		"-N", fmt.Sprint(count), "-O", feats, "-U", opts.UUID, "-L", opts.Label,
		// The file is one hole: there is nothing to zero now or in the guest.
		"-E", "hash_seed=" + opts.UUID + ",lazy_itable_init=0,lazy_journal_init=1,root_owner=0:0",
		disk, fmt.Sprintf("%dM", opts.SizeMiB)}
	if _, err := run(ctx, env, t.mkfs, args...); err != nil {
		return err
	}
	// debugfs goes on after a failed command and ends with 0; what failed is on
	// stderr, after one line with its version.
	script := filepath.Join(work, "commands")
	if err := os.WriteFile(script, commands, 0o600); err != nil {
		return err
	}
	stderr, err := run(ctx, env, t.debugfs, "-w", "-f", script, disk)
	if err != nil {
		return err
	}
	if _, failed, _ := strings.Cut(strings.TrimSpace(stderr), "\n"); failed != "" {
		return fmt.Errorf("debugfs: %s: %w", failed, t.full(opts))
	}
	if _, err := run(ctx, env, t.e2fsck, "-f", "-n", disk); err != nil {
		return fmt.Errorf("the new disk is damaged: %w", err)
	}
	return nil
}

var errNotWritten = errors.New("not everything could be written")

func (tools) full(opts Options) error {
	return fmt.Errorf("%w to a disk of %d MiB (is it large enough? 0 takes the size that is needed)", errNotWritten, opts.SizeMiB)
}

// run runs a tool to its end and returns its stderr; ctx kills it.
func run(ctx context.Context, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr headBuffer
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.TrimSpace(stderr.String()+"\n"+stdout.String()))
	}
	return stderr.String(), nil
}

// headBuffer keeps the first 2 KiB: debugfs echoes every command, and of a
// thousand complaints the first one matters.
type headBuffer struct{ bytes.Buffer }

func (b *headBuffer) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), max(0, 2048-b.Len()))])
	return len(p), nil
}
