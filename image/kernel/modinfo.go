package kernel

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/tangle-network/microvm/image/internal/decompress"
)

// maxModule bounds one module: the largest in distributions are some 20 MiB.
const maxModule = 128 << 20

// module is one loadable module.
type module struct {
	name string // with underscores, as the kernel shows it
	file string // path on this machine
}

// isModule is true for a module's file name: x.ko, x.ko.xz, x.ko.zst, x.ko.gz.
func isModule(base string) bool {
	for _, ext := range []string{".ko", ".ko.xz", ".ko.zst", ".ko.gz"} {
		if strings.HasSuffix(base, ext) {
			return true
		}
	}
	return false
}

// moduleName turns a file name into the module's name: hyphens and underscores
// are the same to the kernel.
func moduleName(file string) string {
	base := path.Base(file)
	if i := strings.Index(base, ".ko"); i >= 0 {
		base = base[:i]
	}
	return strings.ReplaceAll(base, "-", "_")
}

// readModule returns the module's ELF file, decompressed.
func readModule(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, _, err := decompress.Reader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(b) > maxModule {
		return nil, fmt.Errorf("%s: a module of more than %d bytes", file, maxModule)
	}
	return b, nil
}

// modinfo is what a module says about itself in its section .modinfo.
type modinfo struct {
	depends []string // must be loaded before
	pre     []string // softdep: loaded before if they exist
	release string   // of the kernel that it was built for
}

// parseModinfo reads the key=value strings that modpost (scripts/mod in Linux)
// puts into every module. depmod's modules.dep says the same, but packages come
// without it: it is made when they are installed.
func parseModinfo(ko []byte) (modinfo, error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return modinfo{}, err
	}
	sec := f.Section(".modinfo")
	if sec == nil || sec.Type == elf.SHT_NOBITS || sec.Size > uint64(len(ko)) {
		return modinfo{}, fmt.Errorf("not a kernel module: it has no section .modinfo")
	}
	data, err := sec.Data()
	if err != nil {
		return modinfo{}, err
	}
	var m modinfo
	for _, line := range strings.Split(string(data), "\x00") {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "depends":
			for _, d := range strings.Split(value, ",") {
				if d != "" {
					m.depends = append(m.depends, moduleName(d))
				}
			}
		case "softdep":
			pre := false
			for _, w := range strings.Fields(value) {
				if strings.HasSuffix(w, ":") {
					pre = w == "pre:"
				} else if pre {
					m.pre = append(m.pre, moduleName(w))
				}
			}
		case "vermagic":
			m.release, _, _ = strings.Cut(value, " ")
		}
	}
	return m, nil
}
