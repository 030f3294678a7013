//go:build linux

package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// elfFile makes a 64-bit little-endian ELF with one segment that holds the note.
func elfFile(machine uint16, entry uint64, note []byte) []byte {
	le := binary.LittleEndian
	b := make([]byte, ehdrSize+2*phdrSize)
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2) // ET_EXEC
	le.PutUint16(b[18:], machine)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], entry)
	le.PutUint64(b[32:], ehdrSize)
	le.PutUint16(b[52:], ehdrSize)
	le.PutUint16(b[54:], phdrSize)
	le.PutUint16(b[56:], 2)
	for i, kind := range []uint32{1, 4} { // PT_LOAD, PT_NOTE
		p := b[ehdrSize+i*phdrSize:]
		le.PutUint32(p, kind)
		le.PutUint64(p[8:], uint64(len(b)))
		le.PutUint64(p[32:], uint64(len(note)))
	}
	return append(b, note...)
}

func xenNote(kind uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 4)
	b = binary.LittleEndian.AppendUint32(b, 8)
	b = binary.LittleEndian.AppendUint32(b, kind)
	return append(b, "Xen\x00\x00\x00\x00\x01\x00\x00\x00\x00"...)
}

// bzImage makes a boot image of 2 setup sectors around a payload.
func bzImage(payload []byte) []byte {
	le := binary.LittleEndian
	b := make([]byte, 3*512)
	b[offSetupSects] = 2
	le.PutUint16(b[offBootFlag:], 0xaa55)
	copy(b[offHdrS:], "HdrS")
	le.PutUint16(b[offVersion:], 0x20f)
	le.PutUint16(b[offXloadflags:], 1)
	le.PutUint16(b[offKernelVer:], 0x200)
	copy(b[0x400:], "6.1.0-test (somebody) #1\x00")
	le.PutUint32(b[offPayload:], 16)
	le.PutUint32(b[offPayloadLen:], uint32(len(payload)))
	return append(append(b, make([]byte, 16)...), payload...)
}

func arm64Image() []byte {
	b := make([]byte, 4096)
	copy(b, "MZ")
	binary.LittleEndian.PutUint64(b[16:], 8192)
	copy(b[56:], "ARMd")
	return b
}

func zboot(compression string) []byte {
	b := make([]byte, 4096)
	copy(b, "MZ\x00\x00zimg")
	binary.LittleEndian.PutUint32(b[8:], 1024)
	binary.LittleEndian.PutUint32(b[12:], 2048)
	copy(b[24:], compression)
	return b
}

func TestInspectKernelTellsWhatAFileIs(t *testing.T) {
	t.Parallel()
	const x86, arm = 62, 183
	good := elfFile(x86, 0x1000000, xenNote(18))
	pie := elfFile(x86, 0x1000000, xenNote(18))
	pie[ehdrSize+phdrSize] = 3 // PT_INTERP
	elf32 := bytes.Clone(good)
	elf32[4] = 1
	tests := []struct {
		name    string
		content []byte
		format  KernelFormat
		arch    string
		payload string
		amd64   string // part of the refusal; empty: bootable
		arm64   string
	}{
		{"vmlinux", good, FormatELF, "amd64", "", "", "another processor"},
		{"arm64 vmlinux", elfFile(arm, 0x1000000, nil), FormatELF, "arm64", "", "another processor", "uncompressed arm64 Image"},
		{"riscv vmlinux", elfFile(243, 0x1000000, nil), FormatELF, "riscv", "", "another processor", "another processor"},
		{"cut vmlinux", good[:len(good)-1], FormatELF, "amd64", "", "is cut", "another processor"},
		{"ELF header only", good[:ehdrSize], FormatELF, "amd64", "", "is cut", "another processor"},
		{"half an ELF header", good[:30], FormatELF, "", "", "ends inside the ELF header", "ends inside"},
		{"low entry point", elfFile(x86, 0x1000, nil), FormatELF, "amd64", "", "entry point 0x1000 is below 1 MiB", "another"},
		{"program", pie, FormatELF, "amd64", "", "dynamic linker", "another"},
		{"32-bit ELF", elf32, FormatELF, "", "", "32-bit ELF", "32-bit ELF"},
		{"bzImage gzip", bzImage([]byte("\x1f\x8b\x08xxxxxxxxxxxxx")), FormatBzImage, "amd64", "gzip", "bzImage (compressed kernel, gzip)", "another"},
		{"bzImage xz", bzImage([]byte("\xfd7zXZ\x00xxxxxxxxxx")), FormatBzImage, "amd64", "xz", "microvm kernel import", "another"},
		{"bzImage zstd", bzImage([]byte("\x28\xb5\x2f\xfdxxxxxxxxxxxx")), FormatBzImage, "amd64", "zstd", "needed: an uncompressed x86-64 ELF", "another"},
		{"bzImage lz4", bzImage([]byte("\x02\x21\x4c\x18xxxxxxxxxxxx")), FormatBzImage, "amd64", "lz4", "lz4", "another"},
		{"cut bzImage", bzImage([]byte("\x1f\x8b\x08xxxxxxxxxxxxx"))[:1540], FormatBzImage, "amd64", "", "is cut", "another"},
		{"bzImage of what", bzImage([]byte("????????????????")), FormatBzImage, "amd64", "", "unknown compression", "another"},
		{"arm64 Image", arm64Image(), FormatArm64Image, "arm64", "", "another processor", ""},
		{"arm64 zboot", zboot("zstd"), FormatEFIZboot, "", "zstd", "EFI zboot", "EFI zboot"},
		{"Image.gz", []byte("\x1f\x8b\x08rest"), FormatCompressed, "", "gzip", "compressed with gzip", "compressed with gzip"},
		{"deb", []byte("!<arch>\ndebian-binary   "), FormatUnknown, "", "", "a Debian package", "a Debian package"},
		{"script", []byte("#!/bin/sh\n"), FormatUnknown, "", "", "a script", "a script"},
		{"one byte", []byte("x"), FormatUnknown, "", "", "a few bytes", "a few bytes"},
		{"ext4", append(append(make([]byte, 0x438), 0x53, 0xef), make([]byte, 100)...), FormatUnknown, "", "", "ext4 disk", "ext4 disk"},
		{"zeroes", make([]byte, 4096), FormatUnknown, "", "", "no known kind", "no known kind"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "kernel")
			if err := os.WriteFile(path, tt.content, 0o600); err != nil {
				t.Fatal(err)
			}
			k, err := InspectKernel(path)
			if err != nil {
				t.Fatal(err)
			}
			if k.Format != tt.format || k.Arch != tt.arch || k.Compression != tt.payload {
				t.Errorf("got %s, arch %q, payload %q; want %s, %q, %q", k.Format, k.Arch, k.Compression, tt.format, tt.arch, tt.payload)
			}
			for arch, want := range map[string]string{"amd64": tt.amd64, "arm64": tt.arm64} {
				err := k.BootableOn(arch)
				if want == "" {
					if err != nil {
						t.Errorf("on %s: %v", arch, err)
					}
					continue
				}
				var ke *KernelError
				if !errors.As(err, &ke) || !strings.Contains(err.Error(), want) {
					t.Errorf("on %s: got %v, want a KernelError with %q", arch, err, want)
				} else if ke.Needed == "" || !strings.Contains(ke.Remedy, "microvm kernel import") {
					t.Errorf("on %s: no need or remedy in %v", arch, err)
				}
			}
		})
	}
}

func TestInspectKernelReadsVersionAndPVHNote(t *testing.T) {
	t.Parallel()
	k, err := InspectKernelReader(bytes.NewReader(bzImage([]byte("\x28\xb5\x2f\xfd"))), 4096)
	if err != nil {
		t.Fatal(err)
	}
	if want := "6.1.0-test (somebody) #1"; k.Version != want {
		t.Errorf("version %q, want %q", k.Version, want)
	}
	for kind, want := range map[uint32]bool{18: true, 6: false} {
		elf := elfFile(62, 0x1000000, append(xenNote(1), xenNote(kind)...))
		k, err := InspectKernelReader(bytes.NewReader(elf), int64(len(elf)))
		if err != nil || k.PVH != want {
			t.Errorf("note %d: PVH %v, %v; want %v", kind, k.PVH, err, want)
		}
	}
}

func TestInspectKernelRefusesWhatIsNoFileWithoutBlocking(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.WriteFile(in("empty"), nil, 0o600),
		unix.Mkfifo(in("fifo"), 0o600),
		os.Symlink("loop", in("loop")),
		os.Symlink("nowhere", in("dangling")),
		os.Symlink("fifo", in("to-fifo")),
	); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", in("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for path, want := range map[string]string{
		in("empty"):    "an empty file",
		in("fifo"):     "a FIFO",
		in("to-fifo"):  "a FIFO",
		in("loop"):     "leads back to itself",
		in("dangling"): "not there",
		in("socket"):   "a socket",
		dir:            "a directory",
		"/dev/null":    "a character device",
	} {
		done := make(chan error, 1)
		go func() {
			_, err := InspectKernel(path)
			done <- err
		}()
		select {
		case err := <-done:
			var ke *KernelError
			if !errors.As(err, &ke) || !strings.Contains(ke.What, want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: got %v, want %q", path, err, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: InspectKernel blocks", path)
		}
	}
	if _, err := InspectKernel(in("absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent file gives %v, not fs.ErrNotExist", err)
	}
}

func TestInspectKernelNamesTheEndOfASymlinkChain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "vmlinuz-1"), bzImage([]byte("\x1f\x8b\x08x")), 0o600),
		os.Symlink("vmlinuz-1", filepath.Join(dir, "vmlinuz")),
		os.Symlink("vmlinuz", filepath.Join(dir, "kernel")),
	); err != nil {
		t.Fatal(err)
	}
	k, err := InspectKernel(filepath.Join(dir, "kernel"))
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(real, "vmlinuz-1"); k.RealPath != want {
		t.Errorf("real path %q, want %q", k.RealPath, want)
	}
	if err := k.BootableOn(runtime.GOARCH); err == nil || !strings.Contains(err.Error(), "vmlinuz-1") {
		t.Errorf("the error doesn't name the file at the end: %v", err)
	}
}

func FuzzInspectKernel(f *testing.F) {
	f.Add(elfFile(62, 0x1000000, xenNote(18)))
	f.Add(bzImage([]byte("\x02\x21\x4c\x18")))
	f.Add(arm64Image())
	f.Add(zboot("gzip"))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := InspectKernelReader(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatalf("a reader of bytes gave %v", err)
		}
		if k.Description == "" {
			t.Error("no description")
		}
		if k.PayloadOffset < 0 || k.PayloadSize < 0 || k.PayloadOffset+k.PayloadSize > int64(len(b)) {
			t.Errorf("payload %d+%d of %d bytes", k.PayloadOffset, k.PayloadSize, len(b))
		}
		for _, arch := range []string{"amd64", "arm64", "riscv64"} {
			if err := k.BootableOn(arch); err != nil && err.Error() == "" {
				t.Error("empty error")
			}
		}
	})
}
