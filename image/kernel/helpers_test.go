package kernel

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

const x86, arm64 = 62, 183

// elfFile makes a 64-bit ELF with one segment to load.
func elfFile(machine uint16) []byte {
	le := binary.LittleEndian
	b := make([]byte, 64+56)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)
	le.PutUint16(b[18:], machine)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], 0x1000000)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	le.PutUint16(b[58:], 64)
	le.PutUint32(b[64:], 1) // PT_LOAD
	return append(b, bytes.Repeat([]byte("kernel text. "), 1000)...)
}

// koFile makes a module: an ELF with a section .modinfo.
func koFile(info ...string) []byte {
	le := binary.LittleEndian
	modinfo := []byte(strings.Join(info, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 1)
	le.PutUint16(b[18:], x86)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[40:], uint64(64+len(modinfo)+len(names)))
	le.PutUint16(b[52:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[58:], 64)
	le.PutUint16(b[60:], 3)
	le.PutUint16(b[62:], 2)
	section := func(name, kind, offset, size int) []byte {
		s := make([]byte, 64)
		le.PutUint32(s, uint32(name))
		le.PutUint32(s[4:], uint32(kind))
		le.PutUint64(s[24:], uint64(offset))
		le.PutUint64(s[32:], uint64(size))
		le.PutUint64(s[48:], 1)
		return s
	}
	b = append(append(b, modinfo...), names...)
	b = append(b, section(0, 0, 0, 0)...)
	b = append(b, section(1, 1, 64, len(modinfo))...)
	return append(b, section(10, 3, 64+len(modinfo), len(names))...)
}

const release = "6.1.0-test"

func ko(depends string) []byte { return koFile("depends="+depends, "vermagic="+release+" SMP") }

// bzImage makes a boot image around a payload; Linux appends the uncompressed
// length itself, so the caller does.
func bzImage(payload []byte) []byte {
	le := binary.LittleEndian
	b := make([]byte, 3*512)
	b[0x1f1] = 2
	le.PutUint16(b[0x1fe:], 0xaa55)
	copy(b[0x202:], "HdrS")
	le.PutUint16(b[0x206:], 0x20f)
	le.PutUint16(b[0x236:], 1)
	le.PutUint16(b[0x20e:], 0x200)
	copy(b[0x400:], "6.9.9-boot (somebody) #1\x00")
	le.PutUint32(b[0x24c:], uint32(len(payload)))
	return append(b, payload...)
}

func withLength(payload []byte, n int) []byte {
	return binary.LittleEndian.AppendUint32(bytes.Clone(payload), uint32(n))
}

func gz(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zst(t testing.TB, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(b, nil)
}

// lz4Legacy makes what `lz4 -l` makes, in blocks of the given size.
func lz4Legacy(t testing.TB, b []byte, block int) []byte {
	t.Helper()
	out := []byte("\x02\x21\x4c\x18")
	for len(b) > 0 {
		n := min(block, len(b))
		packed := make([]byte, lz4.CompressBlockBound(n))
		size, err := lz4.CompressBlock(b[:n], packed, nil)
		if err != nil || size == 0 {
			t.Fatalf("compress a block: %d, %v", size, err)
		}
		out = binary.LittleEndian.AppendUint32(out, uint32(size))
		out = append(out, packed[:size]...)
		b = b[n:]
	}
	return out
}

// tool runs a compressor of the system over b; without it the test is skipped.
func tool(t testing.TB, b []byte, name string, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not here to make test data with", name)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}

// entry is one entry of a tar archive.
type entry struct {
	tar.Header
	data []byte
}

func file(name string, data []byte) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, data}
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		e.Size = int64(len(e.data))
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// member is one member of an ar archive.
type member struct {
	name string
	data []byte
}

func arOf(members ...member) []byte {
	out := []byte("!<arch>\n")
	for _, m := range members {
		out = fmt.Appendf(out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.data))
		out = append(out, m.data...)
		if len(m.data)%2 == 1 {
			out = append(out, '\n')
		}
	}
	return out
}

// write puts files below dir; names are slash separated.
func write(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	for name, b := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
