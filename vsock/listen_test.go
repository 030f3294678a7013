package vsock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func mustListen(t *testing.T, socket string, port uint32) *Listener {
	t.Helper()
	l, err := Listen(socket, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// guestDials does what a VMM does when its guest connects to a port of the host.
func guestDials(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	c, err := connect(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestListenAcceptsWhatTheGuestConnects(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{t.TempDir(), deepDir(t)} {
		socket := filepath.Join(dir, "v.sock")
		for _, port := range []uint32{0, 52, 4294967295} {
			l := mustListen(t, socket, port)
			if l.Addr() != (Addr{socket, port}) || l.Addr().Network() != "vsock" {
				t.Errorf("address %v", l.Addr())
			}
			guest := guestDials(t, fmt.Sprintf("%s_%d", socket, port))
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if c.LocalAddr() != (Addr{socket, port}) || c.RemoteAddr() != (Addr{Socket: socket}) {
				t.Errorf("addresses %v, %v", c.LocalAddr(), c.RemoteAddr())
			}
			// Connections outlive the listener.
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			send(t, guest, "hello")
			if err := guest.CloseWrite(); err != nil {
				t.Error(err)
			}
			if b, err := io.ReadAll(c); err != nil || string(b) != "hello" {
				t.Errorf("%q, %v", b, err)
			}
			c.Close()
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}

func TestCloseEndsAccept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := mustListen(t, filepath.Join(dir, "v.sock"), 52)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%v", err)
			}
		})
	}
	time.Sleep(5 * time.Millisecond)
	for range 3 {
		wg.Go(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// Field case 20: a stale socket is replaced, a live one never.
func TestListenReplacesOnlyWhatNobodyListensOn(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{t.TempDir(), deepDir(t)} {
		socket := filepath.Join(dir, "v.sock")
		listenIn(t, dir, "v.sock_1").Close()
		l := mustListen(t, socket, 1)

		var used *InUseError
		if _, err := Listen(socket, 1); !errors.As(err, &used) || used.PID != os.Getpid() || used.Path != socket+"_1" {
			t.Errorf("live: %v", err)
		}
		// The attempt to find out is a connection like any other.
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("%q, %v", b, err)
		}
		c.Close()
		guestDials(t, socket+"_1")

		for name, mk := range map[string]func(path string) error{
			"v.sock_2": func(p string) error { return os.WriteFile(p, []byte("x"), 0o600) },
			"v.sock_3": func(p string) error { return os.Mkdir(p, 0o700) },
			"v.sock_4": func(p string) error { return os.Symlink("v.sock_1", p) },
			"v.sock_5": func(p string) error { return unix.Mkfifo(p, 0o600) },
		} {
			if err := mk(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			if _, err := Listen(socket, uint32(name[7]-'0')); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "not a socket") {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
				t.Error(err)
			}
		}
	}
	for _, socket := range []string{"", "/", "..", filepath.Join(t.TempDir(), "none", "v.sock"), strings.Repeat("x", 64)} {
		if l, err := Listen(socket, 1); err == nil {
			l.Close()
			t.Errorf("%q: no error", socket)
		}
	}
}

// A restored VM finds its directory under another name; a new VM has the old one.
func TestCloseRemovesItsOwnSocketOnlyAndWhereverItIs(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := filepath.Join(root, "a")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "v.sock")
	renamed := mustListen(t, socket, 1)
	if err := os.Rename(dir, filepath.Join(root, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	fresh := mustListen(t, socket, 1)
	guestDials(t, filepath.Join(root, "b", "v.sock_1"))
	if err := renamed.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(root, "b", "v.sock_1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the renamed one: %v", err)
	}
	guestDials(t, socket+"_1")

	// Somebody removed the socket and listens there himself.
	if err := os.Remove(socket + "_1"); err != nil {
		t.Fatal(err)
	}
	listenIn(t, dir, "v.sock_1")
	if err := fresh.Close(); err != nil {
		t.Error(err)
	}
	guestDials(t, socket+"_1")
}

func TestListenersLeaveNothingOpen(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "v.sock")
	before := openDescriptors(t)
	for range 100 {
		l, err := Listen(socket, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(socket, 1); err == nil {
			t.Error("twice")
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := Listen(filepath.Join(dir, "none", "v.sock"), 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if after := openDescriptors(t); after > before {
		t.Errorf("%d descriptors, before %d", after, before)
	}
}
