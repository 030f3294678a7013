// Package kernel makes what a microVM boots from out of a distribution's kernel
// package: the uncompressed kernel, which Firecracker needs, and an initrd with
// the virtio modules and a small init that finds the root disk.
package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/tangle-network/microvm/image"
)

// Names of the files that Import writes.
const (
	FileKernel = "vmlinux"
	FileInitrd = "initrd"
	FileBoot   = "vmlinuz"
	FileRecord = "kernel.json"
)

// Source is a distribution's kernel: either packages, or an installed kernel.
type Source struct {
	// Packages are .deb files: one for Debian (linux-image-…-cloud-amd64), two for
	// Ubuntu (linux-image-… and linux-modules-…).
	Packages []string
	// Kernel is a boot image (/boot/vmlinuz-VERSION) or an uncompressed kernel,
	// Modules its folder of modules (/lib/modules/VERSION). Without Modules
	// everything that a microVM needs must be built in.
	Kernel, Modules string
	// Config is the kernel's configuration, which tells what will not work. Empty
	// means the one inside the kernel, in the packages, or next to Kernel
	// (config-VERSION beside vmlinuz-VERSION), if there is one.
	Config string
}

// Options of Import. Init is required.
type Options struct {
	// Init is the path of a static microvm-init for the kernel's architecture.
	Init string
	// Compression of the initrd; empty means gzip.
	Compression Compression
	// ExtraModules are loaded after the usual ones. It is an error if the kernel
	// doesn't have one.
	ExtraModules []string
}

// Kernel is what Import made. It is also written as kernel.json.
type Kernel struct {
	// Version is the release (uname -r), Arch amd64 or arm64.
	Version string `json:"version"`
	Arch    string `json:"arch"`
	// Kernel is the uncompressed kernel, Initrd the initrd, Boot the distribution's
	// boot image as it came; empty if it came uncompressed. Paths are below dstDir
	// as it was given, in kernel.json relative to it.
	Kernel string `json:"kernel"`
	Initrd string `json:"initrd"`
	Boot   string `json:"boot,omitempty"`
	// PVH is true if QEMU's -kernel can boot the uncompressed kernel directly.
	PVH bool `json:"pvh"`
	// Modules are in the initrd, in load order; BuiltIn are those that need no
	// loading; Missing are wanted ones that the kernel doesn't have.
	// For a kernel without a folder of modules BuiltIn and Missing are known only
	// if its configuration is.
	Modules []string `json:"modules"`
	BuiltIn []string `json:"built_in"`
	Missing []string `json:"missing"`
	// Warnings say what will not work with this kernel, a sentence each, as far as
	// its configuration is known.
	Warnings []string `json:"warnings"`
	// Digests has the sha256 of each file by its name.
	Digests map[string]string `json:"digests"`
}

// Import makes vmlinux, initrd and kernel.json in dstDir, which is created if
// need be. The files are replaced one by one, each atomically, and only after
// everything was made; the same input gives the same bytes. Nothing is
// installed and no right is needed but to write there.
func Import(ctx context.Context, src Source, dstDir string, opts Options) (Kernel, error) {
	k, err := importKernel(ctx, src, dstDir, opts)
	if err != nil {
		return Kernel{}, fmt.Errorf("import kernel: %w", err)
	}
	return k, nil
}

func importKernel(ctx context.Context, src Source, dstDir string, opts Options) (k Kernel, err error) {
	if err := src.check(); err != nil {
		return k, err
	}
	if err := os.MkdirAll(dstDir, 0o755); err != nil {
		return k, err
	}
	// Beside the result, so that publishing is a rename.
	tmp, err := os.MkdirTemp(dstDir, ".import-")
	if err != nil {
		return k, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if len(src.Packages) > 0 {
		if src, err = unpackPackages(ctx, src.Packages, filepath.Join(tmp, "unpacked")); err != nil {
			return k, err
		}
	}
	if k, err = build(ctx, src, tmp, opts); err != nil {
		return k, err
	}
	return k, publish(&k, tmp, dstDir)
}

func (s Source) check() error {
	if len(s.Packages) > 0 == (s.Kernel != "") {
		return errors.New("a source is either packages (.deb) or a kernel with its folder of modules")
	}
	if len(s.Packages) > 0 && (s.Modules != "" || s.Config != "") {
		return errors.New("modules and configuration come from the packages: don't name them as well")
	}
	return nil
}

// unpackPackages turns packages into a kernel file and a folder.
func unpackPackages(ctx context.Context, packages []string, dir string) (Source, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return Source{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Source{}, err
	}
	defer root.Close()
	for _, p := range packages {
		if err := unpackDeb(ctx, p, root); err != nil {
			return Source{}, fmt.Errorf("package %w", err)
		}
	}
	kernel, err := only(dir, "boot/vmlinu*", "lib/modules/*/vmlinu*")
	if err != nil {
		return Source{}, fmt.Errorf("boot image: %w; linux-image-cloud-amd64 itself is empty and names the real package in its dependencies", err)
	}
	modules, err := only(dir, "lib/modules/*")
	if err != nil {
		return Source{}, fmt.Errorf("modules: %w", err)
	}
	config, err := configBeside(kernel)
	return Source{Kernel: kernel, Modules: modules, Config: config}, err
}

// only returns the single match of the patterns below dir.
func only(dir string, patterns ...string) (string, error) {
	var all []string
	for _, p := range patterns {
		found, err := fs.Glob(os.DirFS(dir), p) // dir's own name may have brackets
		if err != nil {
			return "", err
		}
		all = append(all, found...)
	}
	if len(all) != 1 {
		names := make([]string, len(all))
		for i, a := range all {
			names[i] = path.Base(a)
		}
		return "", fmt.Errorf("the packages have %d, not one: %s", len(all), strings.Join(names, ", "))
	}
	return filepath.Join(dir, all[0]), nil
}

// build makes the files in dir.
func build(ctx context.Context, src Source, dir string, opts Options) (Kernel, error) {
	boot, err := readKernel(src.Kernel)
	if err != nil {
		return Kernel{}, err
	}
	raw, info, err := Extract(boot)
	if err != nil {
		return Kernel{}, fmt.Errorf("%q: %w", src.Kernel, err)
	}
	arch := info.Arch
	if arch == "" {
		arch = runtime.GOARCH
	}
	info.Path = src.Kernel
	if err := info.BootableOn(arch); err != nil {
		return Kernel{}, err
	}
	init, err := readInit(opts.Init, arch)
	if err != nil {
		return Kernel{}, err
	}
	if src.Config == "" {
		if src.Config, err = configBeside(src.Kernel); err != nil {
			return Kernel{}, err
		}
	}
	conf, err := findConfig(raw, src.Config)
	if err != nil {
		return Kernel{}, fmt.Errorf("kernel's configuration: %w", err)
	}
	sel, err := selectModules(src.Modules, conf, opts.ExtraModules)
	if err != nil {
		return Kernel{}, err
	}
	k := Kernel{Arch: arch, Version: sel.release, PVH: info.PVH, Modules: []string{}, BuiltIn: sel.builtin, Missing: sel.missing,
		Warnings: conf.warnings(arch, opts.Compression)}
	if k.Version == "" {
		k.Version = versionOf(boot)
	}
	for _, m := range sel.modules {
		k.Modules = append(k.Modules, m.name)
	}
	if err := ctx.Err(); err != nil {
		return Kernel{}, err
	}
	files := map[string]func(io.Writer) error{
		FileKernel: writeBytes(raw),
		FileInitrd: func(w io.Writer) error { return writeInitrd(w, opts.Compression, init, sel.modules) },
	}
	if len(raw) != len(boot) {
		files[FileBoot] = writeBytes(boot)
	}
	k.Digests = map[string]string{}
	for name, write := range files {
		if err := writeFile(filepath.Join(dir, name), write); err != nil {
			return Kernel{}, err
		}
		if k.Digests[name], err = image.Digest(ctx, filepath.Join(dir, name)); err != nil {
			return Kernel{}, err
		}
	}
	return k, nil
}

// selectModules reads the folder and chooses; without a folder, the configuration
// says what is built in.
func selectModules(dir string, conf config, extra []string) (selection, error) {
	if dir == "" {
		if len(extra) > 0 {
			return selection{}, fmt.Errorf("module %q: a kernel that comes without its folder of modules has none", extra[0])
		}
		var s selection
		s.builtin, s.missing = conf.builtIn()
		if conf == nil {
			return s, nil
		}
		if err := s.check(); err != nil {
			return s, fmt.Errorf("%w; if it has modules, name their folder", err)
		}
		return s, nil
	}
	tree, err := readTree(dir)
	if err != nil {
		return selection{}, err
	}
	sel, err := tree.choose(slices.Concat(wantedModules, extra))
	if err != nil {
		return sel, err
	}
	for _, name := range extra {
		if slices.Contains(sel.missing, moduleName(name)) {
			return sel, fmt.Errorf("the kernel has no module %q", name)
		}
	}
	return sel, sel.check()
}

// publish moves the files into place; the record goes last.
func publish(k *Kernel, tmp, dstDir string) error {
	k.Kernel, k.Initrd = FileKernel, FileInitrd
	names := []string{FileKernel, FileInitrd}
	if _, ok := k.Digests[FileBoot]; ok {
		k.Boot = FileBoot
		names = append(names, FileBoot)
	}
	record, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(tmp, FileRecord), writeBytes(append(record, '\n'))); err != nil {
		return err
	}
	for _, name := range append(names, FileRecord) {
		if err := os.Rename(filepath.Join(tmp, name), filepath.Join(dstDir, name)); err != nil {
			return err
		}
	}
	if k.Boot == "" {
		// One of an earlier import would be another kernel's.
		if err := os.Remove(filepath.Join(dstDir, FileBoot)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	} else {
		k.Boot = filepath.Join(dstDir, FileBoot)
	}
	k.Kernel, k.Initrd = filepath.Join(dstDir, FileKernel), filepath.Join(dstDir, FileInitrd)
	d, err := os.Open(dstDir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func writeBytes(b []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	}
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// readKernel reads the whole boot image, after InspectKernel has refused what
// can't be one (and what would block).
func readKernel(path string) ([]byte, error) {
	info, err := image.InspectKernel(path)
	if err != nil {
		return nil, err
	}
	if info.Size > maxKernel {
		return nil, fmt.Errorf("kernel %q has %d bytes; the limit is %d", path, info.Size, maxKernel)
	}
	return os.ReadFile(path)
}
