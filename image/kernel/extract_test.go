package kernel

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/tangle-network/microvm/image"
)

func TestExtractUnpacksEveryPayload(t *testing.T) {
	t.Parallel()
	vmlinux := elfFile(x86)
	n := len(vmlinux)
	tests := []struct {
		name string
		boot func(t *testing.T) []byte
	}{
		{"already uncompressed", func(*testing.T) []byte { return vmlinux }},
		{"bzImage gzip", func(t *testing.T) []byte { return bzImage(gz(t, vmlinux)) }},
		{"bzImage zstd", func(t *testing.T) []byte { return bzImage(withLength(zst(t, vmlinux), n)) }},
		{"bzImage lz4", func(t *testing.T) []byte { return bzImage(withLength(lz4Legacy(t, vmlinux, 5000), n)) }},
		{"bzImage lz4 by lz4 -l", func(t *testing.T) []byte { return bzImage(withLength(tool(t, vmlinux, "lz4", "-l", "-9"), n)) }},
		// What scripts/xz_wrap.sh in Linux runs for x86.
		{"bzImage xz with BCJ filter", func(t *testing.T) []byte {
			return bzImage(withLength(tool(t, vmlinux, "xz", "--check=crc32", "--x86", "--lzma2=dict=32MiB", "-c"), n))
		}},
		{"bzImage bzip2", func(t *testing.T) []byte { return bzImage(withLength(tool(t, vmlinux, "bzip2", "-c"), n)) }},
		{"bzImage uncompressed", func(*testing.T) []byte { return bzImage(vmlinux) }},
		{"gzip of the whole", func(t *testing.T) []byte { return gz(t, vmlinux) }},
		{"zstd of the whole", func(t *testing.T) []byte { return zst(t, vmlinux) }},
		{"zstd of a bzImage", func(t *testing.T) []byte { return zst(t, bzImage(gz(t, vmlinux))) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, info, err := Extract(tt.boot(t))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, vmlinux) || info.Format != image.FormatELF || info.Arch != "amd64" {
				t.Errorf("got %d bytes, %s for %q; want the ELF of %d bytes", len(got), info.Format, info.Arch, n)
			}
			if err := info.BootableOn("amd64"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestExtractRefusesDamagedAndHostilePayloads(t *testing.T) {
	t.Parallel()
	vmlinux := elfFile(x86)
	n := len(vmlinux)
	z := zst(t, vmlinux)
	flip := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 0xff
		return b
	}
	deep := vmlinux
	for range maxNesting + 1 {
		deep = gz(t, deep)
	}
	tests := []struct {
		name string
		boot []byte
		want string
	}{
		{"length too large", bzImage(withLength(z, n+1)), "instead of"},
		{"length too small", bzImage(withLength(z, n-1)), "more than"},
		{"length beyond the limit", bzImage(withLength(z, maxKernel+1)), "the limit is"},
		{"cut payload", bzImage(withLength(z[:len(z)-10], n)), "unpack"},
		{"damaged gzip", bzImage(flip(gz(t, vmlinux))), "unpack"},
		{"damaged zstd", bzImage(withLength(flip(z), n)), "unpack"},
		{"lz4 block beyond the end", bzImage(withLength([]byte("\x02\x21\x4c\x18\xff\xff\xff\x7fxxxx"), n)), "lz4: a block of 2147483647 bytes"},
		{"lz4 block of garbage", bzImage(withLength([]byte("\x02\x21\x4c\x18\x04\x00\x00\x00\xf0\xff\xff\xff"), n)), "lz4"},
		{"lz4 frame of the other kind", bzImage(withLength([]byte("\x04\x22\x4d\x18xxxxxxxx"), n)), "legacy"},
		{"lzma", bzImage(withLength([]byte("\x5d\x00\x00\x80\x00xxxxxxxx"), n)), "lzma is not supported"},
		{"tiny payload", bzImage([]byte("\x28\xb5\x2f\xfd")), "less than 8 bytes"},
		{"kernels inside each other without end", deep, "inside each other"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := Extract(tt.boot)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if _, _, err := Extract(tests[9].boot); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("an lzma payload gives %v, not ErrUnsupported", err)
	}
}

// A small payload that unpacks to much stops at the length that its header admits.
func TestExtractStopsAtTheAdmittedLength(t *testing.T) {
	t.Parallel()
	bomb := zst(t, make([]byte, 64<<20))
	if len(bomb) > 1<<20 {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	_, _, err := Extract(bzImage(withLength(bomb, 1000)))
	if err == nil || !strings.Contains(err.Error(), "more than 1000 bytes") {
		t.Errorf("got %v", err)
	}
}

func FuzzExtract(f *testing.F) {
	vmlinux := elfFile(x86)[:200]
	f.Add(bzImage(gz(f, vmlinux)))
	f.Add(bzImage(withLength(zst(f, vmlinux), len(vmlinux))))
	f.Add(bzImage(withLength(lz4Legacy(f, bytes.Repeat(vmlinux, 5), 300), 5*len(vmlinux))))
	f.Add(bzImage([]byte("\xfd7zXZ\x00xxxxxxxxxxxxx")))
	f.Add(gz(f, vmlinux))
	f.Fuzz(func(t *testing.T, b []byte) {
		// A fuzzer finds bombs; they are for the test above.
		if len(b) > 64<<10 {
			return
		}
		raw, info, err := Extract(b)
		if err == nil && info.PayloadSize != 0 {
			t.Errorf("extracted %d bytes that are still compressed: %s", len(raw), info.Description)
		}
	})
}
