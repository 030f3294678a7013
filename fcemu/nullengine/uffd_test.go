package nullengine_test

import (
	"encoding/json"
	"net"
	"os"
	"testing"
	"unsafe"

	"github.com/tangle-network/microvm/fcemu"
	"github.com/tangle-network/microvm/fcemu/nullengine"
	"golang.org/x/sys/unix"
)

// serveFaults is a page fault handler: it takes one hand-over at l and serves
// pages from the memory file until quit is readable. It returns how many.
func serveFaults(l *net.UnixListener, mem []byte, quit int) (served int, err error) {
	c, err := l.AcceptUnix()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	msg, oob := make([]byte, 4096), make([]byte, 64)
	n, oobn, _, _, err := c.ReadMsgUnix(msg, oob)
	if err != nil {
		return 0, err
	}
	var regions []struct {
		Base     uint64 `json:"base_host_virt_addr"`
		Size     uint64 `json:"size"`
		Offset   uint64 `json:"offset"`
		PageSize uint64 `json:"page_size"`
	}
	if err := json.Unmarshal(msg[:n], &regions); err != nil {
		return 0, err
	}
	scms, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, err
	}
	fds, err := unix.ParseUnixRights(&scms[0])
	if err != nil {
		return 0, err
	}
	uffd := fds[0]
	defer unix.Close(uffd)
	for {
		p := []unix.PollFd{{Fd: int32(uffd), Events: unix.POLLIN}, {Fd: int32(quit), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
			return served, err
		}
		if p[1].Revents != 0 {
			return served, nil
		}
		var event [32]byte // struct uffd_msg
		if _, err := unix.Read(uffd, event[:]); err == unix.EAGAIN {
			continue
		} else if err != nil {
			return served, err
		}
		addr := *(*uint64)(unsafe.Pointer(&event[16])) &^ (regions[0].PageSize - 1)
		copyArg := struct {
			dst, src, size, mode uint64
			copied               int64
		}{dst: addr, src: uint64(uintptr(unsafe.Pointer(&mem[addr-regions[0].Base+regions[0].Offset]))), size: regions[0].PageSize}
		const uffdioCopy = 0xc028aa03
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(uffd), uffdioCopy, uintptr(unsafe.Pointer(&copyArg))); errno != 0 && errno != unix.EEXIST {
			return served, errno
		}
		served++
	}
}

func TestAUserfaultfdHandlerServesEveryPageOfAClone(t *testing.T) {
	t.Parallel()
	if fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0); errno == 0 {
		unix.Close(int(fd))
	} else if f, err := os.OpenFile("/dev/userfaultfd", os.O_RDWR, 0); err == nil {
		f.Close()
	} else {
		t.Skipf("no userfaultfd for this user: %v, %v", errno, err)
	}
	r := newRig(t, "fcemu.pages=60", nullengine.Options{})
	r.start()
	r.ok(r.Pause(t.Context()))
	r.snapshot("Full", "s")
	mem, err := os.ReadFile(r.path("s.mem"))
	r.ok(err)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.path("uffd.sock"), Net: "unix"})
	r.ok(err)
	defer l.Close()
	quit, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	r.ok(err)
	defer unix.Close(quit)
	type result struct {
		served int
		err    error
	}
	done := make(chan result, 1)
	go func() {
		n, err := serveFaults(l, mem, quit)
		done <- result{n, err}
	}()
	c, err := r.clone("s", fcemu.MemBackend{BackendType: "Uffd", BackendPath: r.path("uffd.sock")})
	r.ok(err)
	r.ok(c.Resume(t.Context()))
	r.ok(c.Pause(t.Context()))
	c.snapshot("Full", "copy")
	if g := c.verify("copy"); g.Pages != 60 {
		t.Errorf("guest %+v", g)
	}
	_, err = unix.Write(quit, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	r.ok(err)
	if got := <-done; got.err != nil || got.served != 1024 {
		t.Errorf("%d pages of 1024 were served, %v", got.served, got.err)
	}
	if _, err := r.clone("s", fcemu.MemBackend{BackendType: "Uffd", BackendPath: r.path("nobody.sock")}); err == nil {
		t.Error("a clone without a handler was loaded")
	}
}
