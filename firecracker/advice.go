package firecracker

import (
	"errors"

	"golang.org/x/sys/unix"
)

const makeRoom = "make room on the state directory's file system, or raise its quota, and try again"

// kernelAdvice is what can be done about a refusal of the kernel's.
func kernelAdvice(err error) string {
	for _, a := range []struct {
		errno  unix.Errno
		remedy string
	}{
		{unix.ENOSPC, makeRoom},
		{unix.EDQUOT, makeRoom},
		{unix.EROFS, "the state directory is on a file system that is read-only: see the kernel's log for the reason, and mount it for writing"},
		{unix.EMFILE, "raise this program's limit of open files (ulimit -n, LimitNOFILE=)"},
		{unix.ENFILE, "raise the host's limit of open files (sysctl fs.file-max)"},
		{unix.EIO, "the disk has failed to read or write: see the kernel's log"},
		{unix.EACCES, "run as a user who may, or change the owner or the mode of the file"},
	} {
		if errors.Is(err, a.errno) {
			return a.remedy
		}
	}
	return ""
}

// diskAdvice is what to say of a fault whose cause only the VMM knows: it may have
// found the disk full.
func (r *Runtime) diskAdvice() string {
	var st unix.Statfs_t
	if unix.Statfs(r.cfg.StateDir, &st) == nil && st.Bavail*uint64(st.Bsize) < 1<<20 {
		return makeRoom
	}
	return ""
}
