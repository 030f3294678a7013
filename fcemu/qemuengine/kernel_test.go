package qemuengine

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"testing"
)

// elfWith is an ELF for x86-64 with one segment of notes.
func elfWith(notes []byte) []byte {
	var b bytes.Buffer
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	for _, v := range []any{h, elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 120, Filesz: uint64(len(notes))}, notes} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err) // fixed sizes: can't be
		}
	}
	return b.Bytes()
}

func note(kind uint32, name string, desc []byte) []byte {
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
	var b []byte
	for _, n := range []int{len(name) + 1, len(desc), int(kind)} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	return append(append(b, pad([]byte(name+"\x00"))...), pad(bytes.Clone(desc))...)
}

func TestKernelHasAPVHEntryOrIsRefused(t *testing.T) {
	t.Parallel()
	pvh := note(noteXen18, "Xen", make([]byte, 8))
	arm := elfWith(nil)
	binary.LittleEndian.PutUint16(arm[18:], uint16(elf.EM_AARCH64))
	for _, c := range []struct {
		name   string
		kernel []byte
		pvh    bool
		bad    bool
	}{
		{"PVH", elfWith(pvh), true, false},
		{"after other notes", elfWith(append(note(1, "GNU", []byte("odd")), pvh...)), true, false},
		{"without", elfWith(note(18, "GNU", nil)), false, false},
		{"garbled notes", elfWith([]byte{255, 255, 255, 255, 255, 255, 255, 255, 18, 0, 0, 0}), false, false},
		{"no ELF", []byte("MZ bzImage"), false, true},
		{"for arm64", arm, false, true},
	} {
		got, err := checkKernel(bytes.NewReader(c.kernel))
		if got != c.pvh || (err != nil) != c.bad {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

func FuzzCheckKernel(f *testing.F) {
	f.Add(elfWith(note(noteXen18, "Xen", make([]byte, 8))))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if pvh, err := checkKernel(bytes.NewReader(b)); pvh && err != nil {
			t.Fatal("a PVH kernel with an error:", err)
		}
	})
}
