//go:build linux

package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	headSize   = 64 << 10
	ehdrSize   = 64
	phdrSize   = 56
	maxPhdrs   = 1024
	maxNotes   = 1 << 20
	notePVH    = 18       // XEN_ELFNOTE_PHYS32_ENTRY
	highMemory = 0x100000 // Firecracker refuses an entry point below 1 MiB
)

func isELF(head []byte) bool { return bytes.HasPrefix(head, []byte(elf.ELFMAG)) }

// inspectELF checks what Firecracker's loader checks (class, byte order, program
// headers, entry point) and, beyond it, that every segment is in the file.
func inspectELF(r io.ReaderAt, head []byte, info *KernelInfo) error {
	info.Format = FormatELF
	info.Description = "an ELF file"
	if len(head) < ehdrSize {
		info.defect = "it ends inside the ELF header"
		return nil
	}
	if c := elf.Class(head[elf.EI_CLASS]); c != elf.ELFCLASS64 {
		info.Description, info.defect = "a 32-bit ELF", "a 64-bit kernel is needed"
		return nil
	}
	if d := elf.Data(head[elf.EI_DATA]); d != elf.ELFDATA2LSB {
		info.Description, info.defect = "a big-endian ELF", "a little-endian kernel is needed"
		return nil
	}
	le := binary.LittleEndian
	info.Arch = machineName(elf.Machine(le.Uint16(head[18:])))
	info.Description = "an ELF for " + info.Arch
	entry, phoff := le.Uint64(head[24:]), le.Uint64(head[32:])
	phentsize, phnum := le.Uint16(head[54:]), int(le.Uint16(head[56:]))
	switch {
	case phentsize != phdrSize || phoff < ehdrSize:
		info.defect = "its program headers are malformed"
		return nil
	case phnum == 0 || phnum > maxPhdrs:
		info.defect = fmt.Sprintf("it has %d program headers", phnum)
		return nil
	case outside(phoff, uint64(phnum*phdrSize), info.Size):
		info.defect = "it is cut: its program headers lie beyond its end"
		return nil
	}
	table := make([]byte, phnum*phdrSize)
	if _, err := r.ReadAt(table, int64(phoff)); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	loads := 0
	for p := table; len(p) > 0; p = p[phdrSize:] {
		kind, off, filesz := elf.ProgType(le.Uint32(p)), le.Uint64(p[8:]), le.Uint64(p[32:])
		if outside(off, filesz, info.Size) {
			info.defect = fmt.Sprintf("it is cut: %d bytes, a segment ends at %d", info.Size, off+filesz)
			return nil
		}
		switch kind {
		case elf.PT_LOAD:
			loads++
		case elf.PT_INTERP:
			info.defect = "it is a program that wants a dynamic linker, not a kernel"
			return nil
		case elf.PT_NOTE:
			notes := make([]byte, min(filesz, maxNotes))
			if _, err := r.ReadAt(notes, int64(off)); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			info.PVH = info.PVH || hasPVHNote(notes)
		}
	}
	switch {
	case loads == 0:
		info.defect = "it has nothing to load"
	case info.Arch == "amd64" && entry < highMemory:
		info.defect = fmt.Sprintf("its entry point %#x is below 1 MiB", entry)
	}
	return nil
}

// outside is true if the range isn't wholly inside a file of size bytes.
func outside(off, length uint64, size int64) bool {
	return off > uint64(size) || length > uint64(size)-off
}

func hasPVHNote(notes []byte) bool {
	le := binary.LittleEndian
	for len(notes) >= 12 {
		namesz, descsz, kind := le.Uint32(notes), le.Uint32(notes[4:]), le.Uint32(notes[8:])
		notes = notes[12:]
		end := align4(uint64(namesz)) + align4(uint64(descsz))
		if end > uint64(len(notes)) {
			return false
		}
		if kind == notePVH && string(bytes.TrimRight(notes[:namesz], "\x00")) == "Xen" {
			return true
		}
		notes = notes[end:]
	}
	return false
}

func align4(n uint64) uint64 { return (n + 3) &^ 3 }

func machineName(m elf.Machine) string {
	switch m {
	case elf.EM_X86_64:
		return "amd64"
	case elf.EM_AARCH64:
		return "arm64"
	default:
		return strings.ToLower(strings.TrimPrefix(m.String(), "EM_"))
	}
}
