package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Wanted are the modules that a microVM needs, in the order in which they are
// loaded; what they depend on comes before them. Firecracker's devices sit on
// virtio over MMIO or PCI, QEMU's on PCI. Those that a kernel doesn't have are
// left out; what is built into it needs no loading.
var wantedModules = []string{
	"virtio_pci", "virtio_mmio",
	"virtio_blk", "virtio_net",
	"vmw_vsock_virtio_transport",
	"virtio_balloon", "virtio_rng",
	"i8042", "atkbd", // Ctrl-Alt-Del
	"overlay",
	"crc32c_generic", "crc32c_intel", "ext4", // older ext4 asks the crypto layer for crc32c at mount time
	"squashfs",
}

// required modules, each with those that can stand in for it: without them no
// root disk is found.
var requiredModules = [][]string{{"virtio_pci", "virtio_mmio"}, {"virtio_blk"}}

// moduleTree is a /lib/modules/VERSION folder.
type moduleTree struct {
	modules map[string]module // by name
	builtin map[string]bool
}

// readTree finds the modules below dir.
func readTree(dir string) (moduleTree, error) {
	t := moduleTree{modules: map[string]module{}, builtin: map[string]bool{}}
	dir, err := filepath.EvalSymlinks(dir) // WalkDir follows no symlink, not even the first
	if err != nil {
		return t, err
	}
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() && isModule(d.Name()) {
			m := module{name: moduleName(d.Name()), file: p}
			// updates/ and extra/ hold replacements for what is in kernel/; the
			// sort order of the walk (extra, kernel, updates) is not depmod's, so
			// the rule is written down: a replacement wins.
			if old, ok := t.modules[m.name]; !ok || inKernel(dir, old.file) && !inKernel(dir, p) {
				t.modules[m.name] = m
			}
		}
		return nil
	})
	if err != nil {
		return t, err
	}
	f, err := os.Open(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return t, fmt.Errorf("not a folder of modules (as /lib/modules/VERSION): %w", err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		t.builtin[moduleName(s.Text())] = true
	}
	return t, s.Err()
}

func inKernel(dir, file string) bool {
	return strings.HasPrefix(file, filepath.Join(dir, "kernel")+string(filepath.Separator))
}

// loaded is one module of the initrd.
type loaded struct {
	name string
	elf  []byte
}

// selection is what the initrd of a kernel holds.
type selection struct {
	modules          []loaded // in load order
	builtin, missing []string // of the wanted ones
	release          string   // of the kernel, as the modules have it
}

// choose resolves the wanted modules to a load order.
func (t moduleTree) choose(wanted []string) (selection, error) {
	s := selection{builtin: []string{}, missing: []string{}} // not null in JSON
	r := resolver{tree: t, state: map[string]int{}}
	for _, name := range wanted {
		name = moduleName(name)
		if t.builtin[name] {
			s.builtin = append(s.builtin, name)
			continue
		}
		if _, ok := t.modules[name]; !ok {
			s.missing = append(s.missing, name)
			continue
		}
		if err := r.add(name, nil); err != nil {
			return s, err
		}
	}
	s.modules, s.release = r.order, r.release
	return s, nil
}

// check returns an error if no root disk could ever be found.
func (s selection) check() error {
	has := func(name string) bool {
		return slices.Contains(s.builtin, name) || slices.ContainsFunc(s.modules, func(l loaded) bool { return l.name == name })
	}
	for _, group := range requiredModules {
		if !slices.ContainsFunc(group, has) {
			return fmt.Errorf("the kernel has no driver %s, neither built in nor as a module: "+
				"take a kernel made for virtual machines (Debian: linux-image-cloud-amd64), and with Ubuntu's linux-image name the package linux-modules as well",
				strings.Join(group, " or "))
		}
	}
	return nil
}

type resolver struct {
	tree    moduleTree
	state   map[string]int // 1 on the way, 2 done
	order   []loaded
	release string
}

// add appends the module after everything that it depends on.
func (r *resolver) add(name string, path []string) error {
	if r.tree.builtin[name] || r.state[name] == 2 {
		return nil
	}
	path = append(path, name)
	if r.state[name] == 1 {
		return fmt.Errorf("modules depend on each other in a circle: %s", strings.Join(path, " -> "))
	}
	m, ok := r.tree.modules[name]
	if !ok {
		return fmt.Errorf("module %s is needed (%s) but not there", name, strings.Join(path, " -> "))
	}
	r.state[name] = 1
	ko, err := readModule(m.file)
	if err != nil {
		return err
	}
	info, err := parseModinfo(ko)
	if err != nil {
		return fmt.Errorf("%s: %w", m.file, err)
	}
	if r.release != "" && info.release != r.release {
		return errors.New("modules of two kernels: " + r.release + " and " + info.release)
	}
	r.release = info.release
	for _, dep := range info.depends {
		if err := r.add(dep, path); err != nil {
			return err
		}
	}
	for _, dep := range info.pre {
		if _, there := r.tree.modules[dep]; there && r.state[dep] == 0 {
			if err := r.add(dep, path); err != nil {
				return err
			}
		}
	}
	r.state[name] = 2
	r.order = append(r.order, loaded{name: name, elf: ko})
	return nil
}
