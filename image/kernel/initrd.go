package kernel

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Compression of an initrd. Every distribution's kernel unpacks gzip; zstd needs
// Linux 5.9 with CONFIG_RD_ZSTD.
type Compression string

// The ways to compress an initrd.
const (
	Gzip         Compression = "gzip"
	Zstd         Compression = "zstd"
	Uncompressed Compression = "none"
)

// ModuleDir is where the initrd keeps modules, ModuleOrder the list of their
// names in load order, one a line. cmd/microvm-init reads both.
const (
	ModuleDir   = "modules"
	ModuleOrder = "modules/order"
)

func writeInitrd(w io.Writer, compression Compression, init []byte, modules []loaded) error {
	var z io.WriteCloser
	var err error
	switch compression {
	case Gzip, "":
		z, err = gzip.NewWriterLevel(w, gzip.BestCompression)
	case Zstd:
		z, err = zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	case Uncompressed:
		z = nopCloser{w}
	default:
		return fmt.Errorf("initrd compression %q is none of %s, %s, %s", compression, Gzip, Zstd, Uncompressed)
	}
	if err != nil {
		return err
	}
	c := &cpioWriter{w: z}
	for _, dir := range []string{"dev", "proc", "sys", "newroot", ModuleDir} {
		c.entry(dir, typeDir|0o755, 0, 0, nil)
	}
	// The kernel opens it for init's first three descriptors.
	c.entry("dev/console", typeChar|0o600, 5, 1, nil)
	c.entry("init", typeFile|0o755, 0, 0, init)
	var order bytes.Buffer
	for _, m := range modules {
		fmt.Fprintln(&order, m.name)
		c.entry(ModuleDir+"/"+m.name+".ko", typeFile|0o644, 0, 0, m.elf)
	}
	c.entry(ModuleOrder, typeFile|0o644, 0, 0, order.Bytes())
	if err := c.close(); err != nil {
		return err
	}
	return z.Close()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// readInit reads the program that becomes /init and checks that a kernel for
// arch can run it with nothing else there.
func readInit(path, arch string) ([]byte, error) {
	if path == "" {
		return nil, fmt.Errorf("no init program: set Options.Init to a static microvm-init for %s (CGO_ENABLED=0 GOARCH=%s go build ./cmd/microvm-init)", arch, arch)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("init program: %w", err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("init program %q: %w", path, err)
	}
	machine := map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[f.Machine]
	if machine != arch {
		return nil, fmt.Errorf("init program %q is for %s, the kernel for %s", path, strings.TrimPrefix(f.Machine.String(), "EM_"), arch)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, fmt.Errorf("init program %q is not static, and an initrd has no libraries: build it with CGO_ENABLED=0", path)
		}
	}
	return b, nil
}
