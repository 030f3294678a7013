//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// parseExt reads UUID and label out of an ext2, ext3 or ext4 superblock
// (Documentation/filesystems/ext4/super.rst in Linux).
func parseExt(sb []byte) (uuid, label string) {
	if len(sb) < 136 || binary.LittleEndian.Uint16(sb[56:]) != 0xef53 {
		return "", ""
	}
	u := sb[104:120]
	name, _, _ := bytes.Cut(sb[120:136], []byte{0})
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:]), string(name)
}

// parseMBR returns the id of a partition on a disk with an MBR that isn't the
// protective one of a GPT: disk signature and number, as the kernel has it.
func parseMBR(head []byte, number int) string {
	if len(head) < 512 || head[510] != 0x55 || head[511] != 0xaa {
		return ""
	}
	for entry := 446; entry < 510; entry += 16 {
		if head[entry+4] == 0xee {
			return ""
		}
	}
	signature := binary.LittleEndian.Uint32(head[440:])
	return fmt.Sprintf("%08x-%02x", signature, number)
}

// parseGPTHeader returns where a GPT's entries begin, in bytes, and the size of
// one; zero if there is no GPT with 512-byte sectors. UEFI specification 5.3.
func parseGPTHeader(head []byte) (entries, size int64) {
	if len(head) < 1024 || string(head[512:520]) != "EFI PART" {
		return 0, 0
	}
	le := binary.LittleEndian
	lba, each := le.Uint64(head[512+72:]), le.Uint32(head[512+84:])
	if lba == 0 || lba > 1<<40 || each < 128 || each > 4096 {
		return 0, 0
	}
	return int64(lba) * 512, int64(each)
}

// parseGPTEntry returns the unique id of a partition, in the mixed byte order
// that GUIDs are stored in.
func parseGPTEntry(e []byte) string {
	if len(e) < 128 || bytes.Equal(e[16:32], make([]byte, 16)) {
		return ""
	}
	le := binary.LittleEndian
	u := e[16:32]
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(u), le.Uint16(u[4:]), le.Uint16(u[6:]), u[8:10], u[10:])
}
