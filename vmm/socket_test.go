package vmm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deepDir is longer than a unix address.
func deepDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 200), strings.Repeat("e", 200))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// listen listens below dir, however deep, and leaves the socket when closed.
func listen(t *testing.T, dir, name string) net.Listener {
	t.Helper()
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name)})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	t.Cleanup(func() { l.Close() })
	return l
}

func TestWaitReadyReturnsAsSoonAsTheSocketAnswers(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	for _, delay := range []string{"0s", "30ms"} {
		for _, dir := range []string{t.TempDir(), deepDir(t)} {
			c := helperCommand(t, "serve a.sock "+delay)
			c.Dir = dir
			p := start(t, w, c)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			if err := WaitReady(ctx, p, dir, "a.sock"); err != nil {
				t.Error(err)
			}
			cancel()
			if pid, err := SocketOwner(dir, "a.sock"); pid != p.PID() || err != nil {
				t.Errorf("owner %d, %v", pid, err)
			}
		}
	}
}

func TestWaitReadyOfManyAtOnce(t *testing.T) {
	w := newWatcher(t)
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			name := fmt.Sprintf("%d.sock", i)
			c := helperCommand(t, "serve "+name+" 10ms")
			c.Dir = dir
			p := start(t, w, c)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := WaitReady(ctx, p, dir, name); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestWaitReadyEndsWhenTheProcessDies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := helperCommand(t, "exit 42")
	p := start(t, newWatcher(t), c)
	begin := time.Now()
	err := WaitReady(context.Background(), p, dir, "a.sock")
	var exited *ExitedError
	if !errors.As(err, &exited) || !exited.Known || exited.Status.Code != 42 || exited.PID != p.PID() || !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
	if d := time.Since(begin); d > patience/2 {
		t.Errorf("it took %v", d)
	}
}

func TestWaitReadyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p := start(t, newWatcher(t), sleeper())
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := WaitReady(ctx, p, t.TempDir(), "a.sock"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	mustLive(t, p)
}

func TestWaitReadyDoesNotTakeAnotherProcessForTheVMM(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	listen(t, dir, "a.sock")
	p := start(t, newWatcher(t), sleeper())
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var used *SocketInUseError
	if err := WaitReady(ctx, p, dir, "a.sock"); !errors.As(err, &used) || used.PID != os.Getpid() {
		t.Errorf("%v", err)
	}
}

// A socket that is bound but not yet listened on refuses.
func TestWaitReadyWaitsFromBindToListen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, newWatcher(t), sleeper())
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: dir + "/a.sock"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ready := make(chan error, 1)
	go func() { ready <- WaitReady(ctx, p, dir, "a.sock") }()
	select {
	case err := <-ready:
		t.Fatalf("before listen: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if err := unix.Listen(fd, 5); err != nil {
		t.Fatal(err)
	}
	var used *SocketInUseError // by this test
	if err := <-ready; !errors.As(err, &used) {
		t.Errorf("after listen: %v", err)
	}
}

// Field case 20. Not in parallel: a child that another test forks holds our
// listeners until its exec.
func TestRemoveSocketRemovesOnlyWhatNobodyListensOn(t *testing.T) {
	for _, dir := range []string{t.TempDir(), deepDir(t)} {
		if err := RemoveSocket(dir, "none"); err != nil {
			t.Errorf("none: %v", err)
		}
		listen(t, dir, "stale").Close()
		if _, err := SocketOwner(dir, "stale"); !errors.Is(err, ErrGone) {
			t.Errorf("owner of a stale socket: %v", err)
		}
		if err := RemoveSocket(dir, "stale"); err != nil {
			t.Errorf("stale: %v", err)
		}
		if _, err := os.Lstat(filepath.Join(dir, "stale")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("stale: still there, %v", err)
		}
		listen(t, dir, "live")
		var used *SocketInUseError
		err := RemoveSocket(dir, "live")
		if !errors.As(err, &used) || used.PID != os.Getpid() || used.Path != filepath.Join(dir, "live") {
			t.Errorf("live: %v", err)
		}
		for name, mk := range map[string]func(path string) error{
			"file": func(p string) error { return os.WriteFile(p, nil, 0o600) },
			"dir":  func(p string) error { return os.Mkdir(p, 0o700) },
			"fifo": func(p string) error { return unix.Mkfifo(p, 0o600) },
			"link": func(p string) error { return os.Symlink("live", p) },
		} {
			path := filepath.Join(dir, name)
			if err := mk(path); err != nil {
				t.Fatal(err)
			}
			if err := RemoveSocket(dir, name); err == nil || !strings.Contains(err.Error(), "not a socket") {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, name := range []string{"", ".", "..", "a/b", "../x", strings.Repeat("x", 81)} {
			if err := RemoveSocket(dir, name); err == nil {
				t.Errorf("%q: no error", name)
			}
		}
	}
	if err := RemoveSocket(filepath.Join(t.TempDir(), "none"), "a.sock"); err != nil {
		t.Errorf("no directory: %v", err)
	}
}

func TestAListenerWithAFullQueueIsInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: dir + "/a.sock"}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var used *SocketInUseError
		if err := RemoveSocket(dir, "a.sock"); !errors.As(err, &used) {
			t.Errorf("%v", err)
		}
		c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(c)
		_ = unix.Connect(c, &unix.SockaddrUnix{Name: dir + "/a.sock"}) // fills the queue
	}
}

func TestConnectKeepsTheConnectionThatItHasProven(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	for _, dir := range []string{t.TempDir(), deepDir(t)} {
		c := helperCommand(t, "serve a.sock 10ms")
		c.Dir = dir
		p := start(t, w, c)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		conn, err := Connect(ctx, p, dir, "a.sock")
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := conn.(*net.UnixConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
			if err != nil || int(cred.Pid) != p.PID() {
				t.Errorf("the other end is %+v, %v, want process %d", cred, err, p.PID())
			}
		}); err != nil {
			t.Error(err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	dir := t.TempDir()
	listen(t, dir, "a.sock")
	var used *SocketInUseError
	if conn, err := Connect(t.Context(), start(t, w, sleeper()), dir, "a.sock"); conn != nil || !errors.As(err, &used) {
		t.Errorf("another process's socket: %v, %v", conn, err)
	}
}
