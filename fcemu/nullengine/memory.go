package nullengine

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"github.com/tangle-network/microvm/fcemu"
	"golang.org/x/sys/unix"
)

// memory is the guest's memory: a mapping that is only touched through
// process_vm_readv and process_vm_writev. So a page fault that a userfaultfd
// handler answers late blocks a system call, which Go's scheduler can bear,
// and a page behind the end of a truncated file is an error and no signal.
type memory struct {
	mem     []byte
	tracked bool
	dirty   map[uint64]bool // pages written since the last snapshot
}

// newMemory maps fresh memory.
func newMemory(cfg *fcemu.Config) (*memory, error) {
	flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
	if cfg.Machine.HugePages == "2M" {
		flags |= unix.MAP_HUGETLB | unix.MAP_HUGE_2MB
	}
	return mapMemory(cfg, -1, flags)
}

// mapFile maps a memory file privately: pages are read when they are touched,
// and the file is never written.
func mapFile(cfg *fcemu.Config, path string) (*memory, error) {
	if cfg.Machine.HugePages == "2M" {
		return nil, errors.New("cannot restore a guest with huge pages from a file: use a userfaultfd backend")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the memory file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat the memory file: %w", err)
	}
	if want := int64(cfg.Machine.MemSizeMiB) << 20; st.Size() < want {
		return nil, fmt.Errorf("the memory file %s has %d bytes, the guest needs %d", path, st.Size(), want)
	}
	return mapMemory(cfg, int(f.Fd()), unix.MAP_PRIVATE|unix.MAP_NORESERVE)
}

func mapMemory(cfg *fcemu.Config, fd, flags int) (*memory, error) {
	if cfg.Machine.MemSizeMiB > 1<<40 {
		return nil, fmt.Errorf("map %d MiB of guest memory: %w", cfg.Machine.MemSizeMiB, unix.ENOMEM)
	}
	mem, err := unix.Mmap(fd, 0, cfg.Machine.MemSizeMiB<<20, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, fmt.Errorf("map %d MiB of guest memory: %w", cfg.Machine.MemSizeMiB, err)
	}
	return &memory{mem: mem, tracked: cfg.Machine.TrackDirtyPages, dirty: map[uint64]bool{}}, nil
}

func (m *memory) close() error {
	if m == nil || m.mem == nil {
		return nil
	}
	err := unix.Munmap(m.mem)
	m.mem = nil
	return err
}

func (m *memory) pages() uint64 { return uint64(len(m.mem)) / PageSize }

func (m *memory) base() uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(m.mem))) }

// ReadAt reads guest memory.
func (m *memory) ReadAt(b []byte, off int64) (int, error) { return m.transfer(b, off, false) }

func (m *memory) transfer(b []byte, off int64, write bool) (int, error) {
	if off < 0 || off+int64(len(b)) > int64(len(m.mem)) {
		return 0, fmt.Errorf("guest address %#x: %w", off, unix.EFAULT)
	}
	done := 0
	for done < len(b) {
		local := unix.Iovec{Base: &b[done]}
		local.SetLen(len(b) - done)
		remote := []unix.RemoteIovec{{Base: m.base() + uintptr(off) + uintptr(done), Len: len(b) - done}}
		var n int
		var err error
		if write {
			n, err = unix.ProcessVMWritev(os.Getpid(), []unix.Iovec{local}, remote, 0)
		} else {
			n, err = unix.ProcessVMReadv(os.Getpid(), []unix.Iovec{local}, remote, 0)
		}
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return done, fmt.Errorf("guest address %#x: %w", off+int64(done), err)
		case n == 0:
			return done, fmt.Errorf("guest address %#x: %w", off+int64(done), unix.EFAULT)
		}
		done += max(n, 0)
	}
	return done, nil
}

// writePages writes whole pages from page number first on.
func (m *memory) writePages(first uint64, b []byte) error {
	if _, err := m.transfer(b, int64(first*PageSize), true); err != nil {
		return err
	}
	if m.tracked {
		for p := first; p < first+uint64(len(b))/PageSize; p++ {
			m.dirty[p] = true
		}
	}
	return nil
}

// discard gives pages back to the host, as a balloon does.
func (m *memory) discard(first, end uint64) error {
	if first >= end {
		return nil
	}
	if err := unix.Madvise(m.mem[first*PageSize:end*PageSize], unix.MADV_DONTNEED); err != nil {
		return fmt.Errorf("madvise: %w", err)
	}
	return nil
}

// resident asks the kernel which pages of a part of the memory are there.
func (m *memory) resident(first, end uint64) ([]byte, error) {
	vec := make([]byte, end-first)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, m.base()+uintptr(first*PageSize),
		uintptr((end-first)*PageSize), uintptr(unsafe.Pointer(unsafe.SliceData(vec))))
	if errno != 0 {
		return nil, fmt.Errorf("mincore: %w", errno)
	}
	return vec, nil
}
