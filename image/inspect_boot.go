//go:build linux

package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// Offsets in the x86 setup header: Documentation/arch/x86/boot.rst.
const (
	offSetupSects = 0x1f1
	offBootFlag   = 0x1fe
	offHdrS       = 0x202
	offVersion    = 0x206
	offKernelVer  = 0x20e
	offXloadflags = 0x236
	offPayload    = 0x248
	offPayloadLen = 0x24c
	setupHeader   = 0x250
)

func isBzImage(head []byte) bool {
	return len(head) >= setupHeader &&
		binary.LittleEndian.Uint16(head[offBootFlag:]) == 0xaa55 &&
		string(head[offHdrS:offHdrS+4]) == "HdrS"
}

func inspectBzImage(r io.ReaderAt, head []byte, info *KernelInfo) error {
	le := binary.LittleEndian
	info.Format, info.Arch = FormatBzImage, "386"
	if le.Uint16(head[offXloadflags:])&1 != 0 { // XLF_KERNEL_64
		info.Arch = "amd64"
	}
	info.Version = bzImageVersion(head)
	info.Description = "a bzImage"
	if v := le.Uint16(head[offVersion:]); v < 0x208 {
		info.defect = "its boot protocol is older than 2.08, so it doesn't say where its payload is"
		return nil
	}
	sects := int64(head[offSetupSects])
	if sects == 0 {
		sects = 4 // the boot protocol's rule for very old images
	}
	off := (sects+1)*512 + int64(le.Uint32(head[offPayload:]))
	length := int64(le.Uint32(head[offPayloadLen:]))
	if outside(uint64(off), uint64(length), info.Size) {
		info.defect = "it is cut: its payload ends beyond its end"
		return nil
	}
	info.PayloadOffset, info.PayloadSize = off, length
	magic := make([]byte, min(length, 16))
	if _, err := r.ReadAt(magic, off); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	info.Compression = compressionOf(magic)
	if info.Compression == "" {
		info.defect = "its payload is in an unknown compression"
		return nil
	}
	info.Description = "a bzImage (compressed kernel, " + info.Compression + ")"
	return nil
}

func bzImageVersion(head []byte) string {
	at := int(binary.LittleEndian.Uint16(head[offKernelVer:]))
	if at == 0 || at+0x200 >= len(head) {
		return ""
	}
	text := head[at+0x200:]
	text = text[:min(len(text), 256)]
	text, _, found := bytes.Cut(text, []byte{0})
	if !found {
		return ""
	}
	for _, c := range text {
		if c < ' ' || c > '~' {
			return ""
		}
	}
	return string(text)
}

func isArm64Image(head []byte) bool {
	return len(head) >= 64 && string(head[56:60]) == "ARMd"
}

func inspectArm64Image(head []byte, info *KernelInfo) {
	info.Format, info.Arch = FormatArm64Image, "arm64"
	info.Description = "an arm64 Image"
	// image_size counts the bss too, so it may be larger than the file, but text
	// and data make up most of it.
	if size := binary.LittleEndian.Uint64(head[16:]); size > uint64(info.Size)*4 {
		info.defect = "it is cut"
	}
}

// isZboot recognises drivers/firmware/efi/libstub/zboot-header.S.
func isZboot(head []byte) bool {
	return len(head) >= 64 && head[0] == 'M' && head[1] == 'Z' && string(head[4:8]) == "zimg"
}

func inspectZboot(head []byte, info *KernelInfo) {
	le := binary.LittleEndian
	info.Format = FormatEFIZboot
	info.Description = "an EFI zboot image"
	off, length := int64(le.Uint32(head[8:])), int64(le.Uint32(head[12:]))
	if outside(uint64(off), uint64(length), info.Size) {
		info.defect = "it is cut: its payload ends beyond its end"
		return
	}
	info.PayloadOffset, info.PayloadSize = off, length
	name, _, _ := bytes.Cut(head[24:56], []byte{0})
	switch c := string(name); c {
	case "gzip", "lz4", "lzma", "lzo", "xz", "zstd", "bzip2":
		info.Compression = c
		info.Description = "an EFI zboot image (compressed kernel, " + c + ")"
	case "xzkern":
		info.Compression = "xz"
		info.Description = "an EFI zboot image (compressed kernel, xz)"
	default:
		info.defect = "its payload is in an unknown compression"
	}
}

// compressionOf names a compression by its first bytes; scripts/ in Linux'
// source has the same table for unpacking a vmlinuz.
func compressionOf(b []byte) string {
	for _, m := range []struct{ magic, name string }{
		{"\x1f\x8b\x08", "gzip"},
		{"BZh", "bzip2"},
		{"\xfd7zXZ\x00", "xz"},
		{"\x5d\x00\x00", "lzma"},
		{"\x89LZO", "lzo"},
		{"\x02\x21\x4c\x18", "lz4"},
		{"\x04\x22\x4d\x18", "lz4"},
		{"\x28\xb5\x2f\xfd", "zstd"},
		{"\x7fELF", "none"},
	} {
		if bytes.HasPrefix(b, []byte(m.magic)) {
			return m.name
		}
	}
	return ""
}

// inspectOther guesses what somebody gave as a kernel by mistake.
func inspectOther(head []byte, info *KernelInfo) {
	if c := compressionOf(head); c != "" && c != "none" {
		info.Format, info.Compression = FormatCompressed, c
		info.PayloadSize = info.Size
		info.Description = "a file compressed with " + c
		return
	}
	info.Description = notKernel + guess(head)
}

const (
	notKernel     = "not a kernel: "
	debianPackage = "a Debian package"
)

func guess(head []byte) string {
	at := func(off int, magic string) bool {
		return len(head) >= off+len(magic) && string(head[off:off+len(magic)]) == magic
	}
	switch {
	case at(0, "!<arch>\ndebian-binary"):
		return debianPackage
	case at(0, "\xed\xab\xee\xdb"):
		return "an RPM package"
	case at(0, "070701"), at(0, "070702"):
		return "an initrd (cpio archive)"
	case at(0, "#!"):
		return "a script"
	case at(0, "QFI\xfb"):
		return "a qcow2 disk image"
	case at(0, "hsqs"):
		return "a squashfs image"
	case at(0x438, "\x53\xef"):
		return "an ext4 disk image"
	case at(257, "ustar"):
		return "a tar archive"
	case at(0, "MZ"):
		return "an EFI or Windows program"
	case len(head) < 64:
		return "a file of a few bytes"
	default:
		return "data of no known kind"
	}
}
