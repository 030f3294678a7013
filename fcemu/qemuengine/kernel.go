package qemuengine

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// noteXen18 is the note XEN_ELFNOTE_PHYS32_ENTRY, the PVH entry point
// (arch/x86/xen/xen-head.S, arch/x86/platform/pvh/head.S in Linux).
const noteXen18 = 18

// maxNotes bounds how much of a kernel's notes is looked at.
const maxNotes = 1 << 20

// checkKernel accepts what Firecracker accepts on x86-64, an ELF for that
// machine, and reports whether it has a PVH entry point.
func checkKernel(r io.ReaderAt) (pvh bool, err error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return false, fmt.Errorf("not an uncompressed ELF kernel (vmlinux): %w", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 {
		return false, fmt.Errorf("an ELF for %v, not for x86-64", f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz == 0 {
			continue
		}
		if p.Filesz > maxNotes {
			return false, errors.New("its ELF notes are too long")
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return false, fmt.Errorf("read its ELF notes: %w", err)
		}
		if hasPVH(b, f.ByteOrder) {
			return true, nil
		}
	}
	return false, nil
}

// hasPVH walks a segment of notes.
func hasPVH(b []byte, order binary.ByteOrder) bool {
	for len(b) >= 12 {
		nameLen, descLen, kind := uint64(order.Uint32(b)), uint64(order.Uint32(b[4:])), order.Uint32(b[8:])
		b = b[12:]
		nameEnd := (nameLen + 3) &^ 3
		end := nameEnd + (descLen+3)&^3
		if nameLen > uint64(len(b)) || end > uint64(len(b)) {
			return false
		}
		if kind == noteXen18 && string(b[:nameLen]) == "Xen\x00" {
			return true
		}
		b = b[end:]
	}
	return false
}
