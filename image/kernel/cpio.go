package kernel

import (
	"fmt"
	"io"
)

// File types in a mode, as in stat(2).
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeChar = 0o020000
)

// cpioWriter writes a newc archive, the format of initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst in Linux). Owner and
// times are 0, so that the same input gives the same bytes.
type cpioWriter struct {
	w   io.Writer
	ino int
	err error
}

// entry writes one file. major and minor matter for devices only.
func (c *cpioWriter) entry(name string, mode, major, minor int, data []byte) {
	c.ino++
	nlink := 1
	if mode&typeDir != 0 && mode&typeFile == 0 {
		nlink = 2
	}
	c.header(c.ino, mode, nlink, len(data), major, minor, name)
	c.padded(data)
}

func (c *cpioWriter) close() error {
	c.header(0, 0, 1, 0, 0, 0, "TRAILER!!!")
	return c.err
}

func (c *cpioWriter) header(ino, mode, nlink, size, major, minor int, name string) {
	h := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		ino, mode, 0, 0, nlink, 0, size, 0, 0, major, minor, len(name)+1, 0, name)
	c.padded([]byte(h))
}

// padded writes b and fills up to a multiple of 4.
func (c *cpioWriter) padded(b []byte) {
	if c.err != nil {
		return
	}
	if _, c.err = c.w.Write(b); c.err == nil && len(b)%4 != 0 {
		_, c.err = c.w.Write(make([]byte, 4-len(b)%4))
	}
}
