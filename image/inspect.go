//go:build linux

package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// KernelFormat is the container that a kernel file is in.
type KernelFormat string

// The formats that InspectKernel tells apart.
const (
	// FormatELF is an ELF file: what Linux builds as vmlinux.
	FormatELF KernelFormat = "ELF"
	// FormatBzImage is the x86 boot image that distributions install as
	// /boot/vmlinuz (Documentation/arch/x86/boot.rst in Linux).
	FormatBzImage KernelFormat = "bzImage"
	// FormatArm64Image is the uncompressed arm64 boot image
	// (Documentation/arch/arm64/booting.rst in Linux).
	FormatArm64Image KernelFormat = "arm64 Image"
	// FormatEFIZboot is a compressed kernel inside an EFI program.
	FormatEFIZboot KernelFormat = "EFI zboot image"
	// FormatCompressed is a file that is compressed as a whole, as an arm64
	// Image.gz.
	FormatCompressed KernelFormat = "compressed file"
	// FormatUnknown is anything else; KernelInfo.Description has a guess.
	FormatUnknown KernelFormat = "unknown"
)

// KernelInfo says what a kernel file is.
type KernelInfo struct {
	// Path is the name as it was asked for, RealPath the file that it led to.
	Path, RealPath string
	// Size is the file's length in bytes.
	Size int64
	// Format is the container, Arch the processor in Go's words (amd64, arm64);
	// for other ELF machines it is a name or number. Empty when the file does not
	// tell.
	Format KernelFormat
	Arch   string
	// Compression of the payload: gzip, bzip2, lzma, xz, lzo, lz4, zstd, or none.
	// Empty for formats without a payload.
	Compression string
	// PayloadOffset and PayloadSize are where the compressed kernel lies in the
	// file, for formats that have one.
	PayloadOffset, PayloadSize int64
	// Version is the kernel's release with its build remarks, where the header
	// has it (bzImage).
	Version string
	// PVH is true for an ELF with the PVH entry note, which QEMU's -kernel needs
	// to boot an ELF directly.
	PVH bool
	// Description is one line for people: "ELF for amd64", "bzImage with an lz4
	// payload", "gzip-compressed data".
	Description string

	// defect is why the file can't be booted although its format is right.
	defect string
}

// KernelError says that a kernel file can't be used.
type KernelError struct {
	// Path of the file, What it is, what is Needed instead, and the Remedy: a
	// command or a step that mends it.
	Path, What, Needed, Remedy string
	// Err is the cause when the operating system refused, else nil.
	Err error
}

func (e *KernelError) Error() string {
	s := fmt.Sprintf("kernel %q is %s", e.Path, e.What)
	if e.Needed != "" {
		s += "; needed: " + e.Needed
	}
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the operating system's error.
func (e *KernelError) Unwrap() error { return e.Err }

const neededFile = "an uncompressed kernel file"

// InspectKernel opens the file and says what it is. It follows symlinks, never
// blocks (a FIFO is refused, not waited for) and reads only headers. Whatever can
// be named without an answer about booting is returned without error, so ask
// KernelInfo.BootableOn next. Files that can't be read as a file at all (absent,
// directory, FIFO, device, empty) give a *KernelError.
func InspectKernel(path string) (KernelInfo, error) {
	const remedy = "name a kernel file, or make one: microvm kernel import PACKAGE.deb"
	// O_NONBLOCK: opening a FIFO must not wait for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		what := "not readable"
		switch {
		case errors.Is(err, os.ErrNotExist):
			what = "not there"
		case errors.Is(err, syscall.ELOOP):
			what = "a symlink that leads back to itself"
		case errors.Is(err, syscall.ENXIO):
			what = "a socket or a device"
		}
		return KernelInfo{}, &KernelError{Path: path, What: what, Needed: neededFile, Remedy: remedy, Err: errors.Unwrap(err)}
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return KernelInfo{}, fmt.Errorf("inspect kernel: %w", err)
	}
	if what := notRegular(st.Mode()); what != "" {
		return KernelInfo{}, &KernelError{Path: path, What: what, Needed: neededFile, Remedy: remedy}
	}
	if st.Size() == 0 {
		return KernelInfo{}, &KernelError{Path: path, What: "an empty file", Needed: neededFile, Remedy: remedy}
	}
	info, err := InspectKernelReader(f, st.Size())
	if err != nil {
		return KernelInfo{}, fmt.Errorf("inspect kernel %q: %w", path, err)
	}
	info.Path = path
	// For the messages only: what was inspected is the open file.
	if real, err := filepath.EvalSymlinks(path); err == nil {
		info.RealPath = real
	}
	return info, nil
}

// InspectKernelReader is InspectKernel for contents of size bytes. Its error is a
// read error; foreign or damaged contents are described, not an error.
func InspectKernelReader(r io.ReaderAt, size int64) (KernelInfo, error) {
	head := make([]byte, min(size, headSize))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return KernelInfo{}, err
	}
	info := KernelInfo{Size: size, Format: FormatUnknown}
	var err error
	switch {
	case isELF(head):
		err = inspectELF(r, head, &info)
	case isBzImage(head):
		err = inspectBzImage(r, head, &info)
	case isArm64Image(head):
		inspectArm64Image(head, &info)
	case isZboot(head):
		inspectZboot(head, &info)
	default:
		inspectOther(head, &info)
	}
	return info, err
}

// BootableOn returns nil if Firecracker 1.7 and newer can boot the kernel on a
// host of the architecture arch (runtime.GOARCH), else a *KernelError that says
// what the file is, what is needed and which command mends it. On amd64 that is
// an uncompressed ELF with an entry point at or above 1 MiB; on arm64 the
// uncompressed Image. Firecracker 1.17 takes a bzImage as well.
func (k KernelInfo) BootableOn(arch string) error {
	name := k.Path
	if k.RealPath != "" && k.RealPath != k.Path {
		name += " -> " + k.RealPath
	}
	e := &KernelError{Path: name, What: k.Description, Remedy: "run: microvm kernel import " + k.Path}
	if k.Path == "" {
		e.Remedy = "run: microvm kernel import"
	}
	want := FormatELF
	switch arch {
	case "amd64":
		e.Needed = "an uncompressed x86-64 ELF (vmlinux)"
	case "arm64":
		e.Needed = "an uncompressed arm64 Image"
		want = FormatArm64Image
	default:
		e.Needed = "a host that Firecracker runs on (amd64 or arm64), not " + arch
		e.Remedy = ""
		return e
	}
	if k.Arch != "" && k.Arch != arch {
		e.What += ", made for another processor than this host's " + arch
		e.Remedy = "run: microvm kernel import with a package for " + arch
		return e
	}
	if k.defect != "" {
		e.What += ": " + k.defect
		e.Remedy = "make it again: microvm kernel import PACKAGE.deb"
		return e
	}
	if k.Format == want {
		return nil
	}
	if k.Format == FormatELF || k.Format == FormatUnknown && k.Description != notKernel+debianPackage {
		e.Remedy = "run: microvm kernel import PACKAGE.deb"
	}
	return e
}

// notRegular names what a file is when it isn't a plain file; empty if it is.
func notRegular(m os.FileMode) string {
	switch {
	case m.IsRegular():
		return ""
	case m.IsDir():
		return "a directory"
	case m&os.ModeNamedPipe != 0:
		return "a FIFO"
	case m&os.ModeSocket != 0:
		return "a socket"
	case m&os.ModeCharDevice != 0:
		return "a character device"
	case m&os.ModeDevice != 0:
		return "a block device"
	default:
		return "a special file"
	}
}
