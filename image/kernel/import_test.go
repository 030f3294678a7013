package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
)

// goodTree is a folder of modules with everything that is wanted.
func goodTree() map[string][]byte {
	return map[string][]byte{
		"modules.builtin":                             []byte("kernel/fs/ext4/ext4.ko\nkernel/drivers/input/serio/i8042.ko\n"),
		"kernel/drivers/virtio/virtio.ko":             ko(""),
		"kernel/drivers/virtio/virtio_ring.ko":        ko(""),
		"kernel/drivers/virtio/virtio_mmio.ko":        ko("virtio-ring,virtio"),
		"kernel/drivers/virtio/virtio_pci.ko":         ko("virtio,virtio_ring"),
		"kernel/drivers/block/virtio_blk.ko":          ko("virtio_ring,virtio"),
		"kernel/drivers/char/hw_random/virtio-rng.ko": ko("virtio"),
		"kernel/drivers/net/unwanted.ko":              ko("nothing_there"),
	}
}

func prefixed(prefix string, files map[string][]byte) []entry {
	var list []entry
	for name, b := range files {
		list = append(list, file(prefix+name, b))
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func debOf(t testing.TB, entries ...entry) []byte {
	return arOf(member{"debian-binary", []byte("2.0\n")}, member{"control.tar.gz", gz(t, []byte("x"))},
		member{"data.tar.zst", zst(t, tarOf(t, entries...))})
}

func goodDeb(t testing.TB) []byte {
	vmlinux := elfFile(x86)
	return debOf(t, append(prefixed("./usr/lib/modules/"+release+"/", goodTree()),
		file("./boot/vmlinuz-"+release, bzImage(gz(t, vmlinux))),
		file("./boot/config-"+release, []byte("CONFIG_ACPI=y\nCONFIG_PCI=y\n# CONFIG_X is not set\n")))...)
}

func TestImportMakesABootableFolderAndTheSameTwice(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "with [brackets] *")
	write(t, dir, map[string][]byte{"k.deb": goodDeb(t), "init": elfFile(x86)})
	var first Kernel
	for _, out := range []string{"a", "b"} {
		k, err := Import(t.Context(), Source{Packages: []string{filepath.Join(dir, "k.deb")}}, filepath.Join(dir, out), Options{Init: filepath.Join(dir, "init")})
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"virtio", "virtio_ring", "virtio_pci", "virtio_mmio", "virtio_blk", "virtio_rng"}; !slices.Equal(k.Modules, want) {
			t.Errorf("modules in order %v, want %v", k.Modules, want)
		}
		if !slices.Equal(k.BuiltIn, []string{"i8042", "ext4"}) || !slices.Contains(k.Missing, "virtio_net") || k.Version != release {
			t.Errorf("built in %v, missing %v, version %q", k.BuiltIn, k.Missing, k.Version)
		}
		if !slices.ContainsFunc(k.Warnings, func(w string) bool { return strings.Contains(w, "Firecracker 1.8") }) {
			t.Errorf("a kernel without command-line devices gets no warning: %v", k.Warnings)
		}
		if out == "a" {
			first = k
		} else if first.Digests[FileInitrd] != k.Digests[FileInitrd] || first.Digests[FileKernel] != k.Digests[FileKernel] {
			t.Error("the same input gave other bytes")
		}
		names, err := os.ReadDir(filepath.Join(dir, out))
		if err != nil || len(names) != 4 {
			t.Errorf("the folder has %v, %v; want 4 files", names, err)
		}
	}
	if got, err := os.ReadFile(first.Kernel); err != nil || !bytes.Equal(got, elfFile(x86)) {
		t.Errorf("vmlinux isn't the ELF: %v", err)
	}
	checkInitrd(t, first.Initrd)
}

func checkInitrd(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(z); err != nil {
		t.Fatal(err)
	}
	files := readCpio(t, b.Bytes())
	if got := string(files["modules/order"]); got != "virtio\nvirtio_ring\nvirtio_pci\nvirtio_mmio\nvirtio_blk\nvirtio_rng\n" {
		t.Errorf("order %q", got)
	}
	if !bytes.Equal(files["init"], elfFile(x86)) || !bytes.Equal(files["modules/virtio_ring.ko"], ko("")) {
		t.Error("init or a module differs")
	}
}

func TestImportThatFailsLeavesTheFormerResult(t *testing.T) {
	t.Parallel()
	noBlk := goodTree()
	delete(noBlk, "kernel/drivers/block/virtio_blk.ko")
	dir := t.TempDir()
	write(t, dir, map[string][]byte{
		"good.deb": goodDeb(t), "init": elfFile(x86), "init-arm64": elfFile(arm64), "script": []byte("#!/bin/sh\n"),
		"meta.deb":    debOf(t, file("./usr/share/doc/x", nil)),
		"two.deb":     debOf(t, file("boot/vmlinuz-1", nil), file("boot/vmlinuz-2", nil)),
		"out/vmlinux": []byte("old"),
	})
	write(t, filepath.Join(dir, "noblk"), noBlk)
	write(t, dir, map[string][]byte{"vmlinuz": bzImage(gz(t, elfFile(x86)))})
	in := func(n string) string { return filepath.Join(dir, n) }
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	good := Source{Packages: []string{in("good.deb")}}
	for name, tt := range map[string]struct {
		ctx  context.Context
		src  Source
		opts Options
		want string
	}{
		"cancelled":       {cancelled, good, Options{Init: in("init")}, context.Canceled.Error()},
		"no source":       {t.Context(), Source{}, Options{Init: in("init")}, "either packages"},
		"both sources":    {t.Context(), Source{Packages: good.Packages, Kernel: in("vmlinuz")}, Options{Init: in("init")}, "either packages"},
		"no init":         {t.Context(), good, Options{}, "CGO_ENABLED=0"},
		"init of arm64":   {t.Context(), good, Options{Init: in("init-arm64")}, "AARCH64"},
		"init no program": {t.Context(), good, Options{Init: in("script")}, "init program"},
		"meta package":    {t.Context(), Source{Packages: []string{in("meta.deb")}}, Options{Init: in("init")}, "real package"},
		"two kernels":     {t.Context(), Source{Packages: []string{in("two.deb")}}, Options{Init: in("init")}, "vmlinuz-1, vmlinuz-2"},
		"no such module":  {t.Context(), good, Options{Init: in("init"), ExtraModules: []string{"zfs"}}, `no module "zfs"`},
		"compression":     {t.Context(), good, Options{Init: in("init"), Compression: "rar"}, `"rar"`},
		"no disk driver":  {t.Context(), Source{Kernel: in("vmlinuz"), Modules: in("noblk")}, Options{Init: in("init")}, "virtio_blk"},
		"no modules dir":  {t.Context(), Source{Kernel: in("vmlinuz"), Modules: in("out")}, Options{Init: in("init")}, "/lib/modules/VERSION"},
		"kernel absent":   {t.Context(), Source{Kernel: in("absent")}, Options{Init: in("init")}, "not there"},
	} {
		_, err := Import(tt.ctx, tt.src, in("out"), tt.opts)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
		names, err := os.ReadDir(in("out"))
		if b, _ := os.ReadFile(in("out/vmlinux")); err != nil || len(names) != 1 || string(b) != "old" {
			t.Errorf("%s: the folder now has %v (vmlinux %q)", name, names, b)
		}
	}
}

func TestImportOfAHostilePackageWritesNothingOutside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	link := func(kind byte, name, target string) entry {
		return entry{Header: tar.Header{Typeflag: kind, Name: name, Linkname: target}}
	}
	write(t, dir, map[string][]byte{"init": elfFile(x86), "victim": []byte("mine"), "evil.deb": debOf(t,
		link(tar.TypeSymlink, "boot", dir), link(tar.TypeSymlink, "lib", dir),
		link(tar.TypeLink, "boot/vmlinuz-0", "/etc/passwd"), link(tar.TypeChar, "boot/vmlinuz-c", ""),
		file("../../victim", []byte("x")), file("boot/../../../victim", []byte("x")), file("/boot/../../victim", []byte("x")),
		file("boot/vmlinuz-1", []byte("no kernel")))})
	_, err := Import(t.Context(), Source{Packages: []string{filepath.Join(dir, "evil.deb")}}, filepath.Join(dir, "out"), Options{Init: filepath.Join(dir, "init")})
	if err == nil {
		t.Error("a package without modules was taken")
	}
	names, err := os.ReadDir(dir)
	if b, _ := os.ReadFile(filepath.Join(dir, "victim")); err != nil || len(names) != 4 || string(b) != "mine" {
		t.Errorf("the folder now has %v; victim %q", names, b)
	}
}

func TestUnpackTarIsBounded(t *testing.T) {
	t.Parallel()
	for name, archive := range map[string][]byte{
		"wanted":  tarOf(t, file("boot/vmlinuz-1", make([]byte, 100_000))),
		"skipped": tarOf(t, file("usr/share/x", make([]byte, 100_000)), file("boot/vmlinuz-1", nil)),
	} {
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if err := unpackTar(t.Context(), bytes.NewReader(archive), root, 50_000); err == nil || !strings.Contains(err.Error(), "more than 50000 bytes") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDamagedPackagesAreNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := goodDeb(t)
	for name, b := range map[string][]byte{
		"empty": nil, "text": []byte("hello"), "magic": []byte("!<arch>\n"), "cut": good[:len(good)/2],
		"nodata": arOf(member{"debian-binary", []byte("2.0\n")}),
		"size":   append([]byte("!<arch>\n"), []byte(strings.Repeat("9", 58)+"`\n")...),
	} {
		write(t, dir, map[string][]byte{name: b})
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if err := unpackDeb(t.Context(), filepath.Join(dir, name), root); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestModulesAreLoadedAfterWhatTheyNeed(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, order, err string
		files            map[string][]byte
	}{
		{"circle", "", "circle: a -> b -> a", map[string][]byte{"kernel/a.ko": ko("b"), "kernel/b.ko": ko("a")}},
		{"missing", "", "module gone is needed (a -> gone)", map[string][]byte{"kernel/a.ko": ko("gone")}},
		{"two kernels", "", "two kernels", map[string][]byte{"kernel/a.ko": ko("b"), "kernel/b.ko": koFile("depends=", "vermagic=9 SMP")}},
		{"no module", "", ".modinfo", map[string][]byte{"kernel/a.ko": elfFile(x86)}},
		{"not even ELF", "", "a.ko", map[string][]byte{"kernel/a.ko": []byte("x")}},
		{"softdep", "b a", "", map[string][]byte{"kernel/a.ko": koFile("depends=", "softdep=pre: b absent post: c", "vermagic="+release), "kernel/b.ko": ko(""), "kernel/c.ko": ko("")}},
		{"update wins", "u a", "", map[string][]byte{"kernel/a.ko": ko(""), "updates/a.ko": ko("u"), "kernel/u.ko": ko("")}},
		{"compressed", "b c a", "", map[string][]byte{"kernel/a.ko.gz": gz(t, ko("b,c")), "kernel/b.ko.zst": zst(t, ko("")), "kernel/c.ko": ko("")}},
		{"builtin", "a", "", map[string][]byte{"kernel/a.ko": ko("built-in")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, tt.files)
			write(t, dir, map[string][]byte{"modules.builtin": []byte("kernel/x/built-in.ko\n")})
			tree, err := readTree(dir)
			if err != nil {
				t.Fatal(err)
			}
			sel, err := tree.choose([]string{"a"})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, m := range sel.modules {
				names = append(names, m.name)
			}
			if got := strings.Join(names, " "); got != tt.order {
				t.Errorf("order %q, want %q", got, tt.order)
			}
		})
	}
}

// The row of the field cases: a kernel with virtio_mmio as a module or without
// command-line devices never sees the disk.
func TestImportTellsWhenAKernelWillNotSeeItsDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string][]byte{"init": elfFile(x86), "vmlinuz-1": bzImage(gz(t, elfFile(x86)))})
	in := func(n string) string { return filepath.Join(dir, n) }
	run := func(config string) (Kernel, error) {
		write(t, dir, map[string][]byte{"config-1": []byte(config)})
		return Import(t.Context(), Source{Kernel: in("vmlinuz-1")}, in("out"), Options{Init: in("init")})
	}
	if _, err := run("CONFIG_VIRTIO_MMIO=m\nCONFIG_VIRTIO_BLK=m\n"); err == nil || !strings.Contains(err.Error(), "name their folder") {
		t.Errorf("drivers as modules without their folder: %v", err)
	}
	k, err := run("CONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_BLK=y\n")
	if err != nil || !slices.ContainsFunc(k.Warnings, func(w string) bool { return strings.Contains(w, "no Firecracker shows it its disks") }) {
		t.Errorf("neither ACPI nor command-line devices: %v, %v", k.Warnings, err)
	}
	raw := append(elfFile(x86), append([]byte("IKCFG_ST"), gz(t, []byte("CONFIG_ACPI=y\n"))...)...)
	if c := embeddedConfig(raw); c["ACPI"] != "y" {
		t.Errorf("configuration inside the kernel: %v", c)
	}
	if _, err := findConfig(nil, in("absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a configuration that isn't there: %v", err)
	}
}
