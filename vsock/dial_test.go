package vsock

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDialAsksForThePortAndLeavesTheRestToTheCaller(t *testing.T) {
	t.Parallel()
	const banner = "hello\nOK 1\n" // a peer that talks first (field case 19)
	for name, tc := range map[string]struct {
		pieces []string
		pause  time.Duration // before each
		banner string
	}{
		"at once":           {[]string{"OK 1073741824\n"}, 0, ""},
		"late":              {[]string{"OK 1073741824\n"}, 20 * time.Millisecond, ""},
		"with a banner":     {[]string{"OK 1073741824\n" + banner}, 0, banner},
		"byte by byte":      {strings.Split("OK 1073741824\n"+banner, ""), time.Millisecond, banner},
		"across its border": {[]string{"OK 1073741824", "\nhello\nOK 1\n"}, time.Millisecond, banner},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, dir := range []string{t.TempDir(), deepDir(t)} {
				asked := make(chan string, 1)
				path := serve(t, dir, func(c net.Conn, line string, _ int) {
					asked <- line
					for _, piece := range tc.pieces {
						time.Sleep(tc.pause)
						send(t, c, piece)
					}
					_, _ = io.Copy(c, c) // echo, until the host has closed its half
					send(t, c, "bye")
				})
				c, err := Dial(patient(t), path, 4294967295)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				if got := <-asked; got != "CONNECT 4294967295\n" {
					t.Errorf("asked %q", got)
				}
				if c.LocalAddr() != (Addr{path, 1073741824}) || c.RemoteAddr() != (Addr{path, 4294967295}) {
					t.Errorf("addresses %v, %v", c.LocalAddr(), c.RemoteAddr())
				}
				send(t, c, "echo")
				if err := c.CloseWrite(); err != nil {
					t.Error(err)
				}
				if b, err := io.ReadAll(c); err != nil || string(b) != tc.banner+"echobye" {
					t.Errorf("%q, %v", b, err)
				}
			}
		})
	}
}

// Field case 19: a broken answer is an error, and no reason to try again.
func TestABrokenAnswerIsNeverTakenForSuccess(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		"OK\n", "OK \n", "OK  1\n", "OK 12x\n", "OK x\n", "OK -1\n", "OK +1\n", "OK 01\n", "OK 1 \n", "OK 1\r\n", "OK 0x1\n",
		"OK 4294967296\n", "OK 99999999999\n", "ok 1\n", "OK1\n", " OK 1\n", "\nOK 1\n", "\n", "OK 1", "OK ", "O", "\x00",
		"ERR no such port\n", "HTTP/1.1 400 \r\nServer: Firecracker API\r\n\r\n",
		"OK 1\x002\n", "OK ١\n", strings.Repeat("O", 10_000), strings.Repeat("9", 10_000) + "\n",
		"OK " + strings.Repeat("0", 10_000) + "1\n",
	} {
		var conns atomic.Int32
		closed := make(chan struct{}, 16)
		path := serve(t, t.TempDir(), func(c net.Conn, _ string, _ int) {
			conns.Add(1)
			send(t, c, reply)
			if !strings.HasSuffix(reply, "\n") && len(reply) < maxReply {
				return // the line never ends, the connection does
			}
			hangUp(c)
			closed <- struct{}{}
		})
		c, err := (&Dialer{Retry: true}).Dial(patient(t), path, 52)
		if !errors.Is(err, ErrHandshake) || len(err.Error()) > 500 {
			if c != nil {
				c.Close()
			}
			t.Errorf("%.40q: %v", reply, err)
		}
		if n := conns.Load(); n != 1 {
			t.Errorf("%.40q: %d attempts", reply, n)
		}
		if strings.HasSuffix(reply, "\n") || len(reply) >= maxReply {
			<-closed // the host's end is closed
		}
	}
}

func TestAClosedConnectionIsARefusal(t *testing.T) {
	t.Parallel()
	path := serve(t, t.TempDir(), func(net.Conn, string, int) {})
	_, err := Dial(patient(t), path, 52)
	if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "52") || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	// One that is closed before the request was read is reset instead.
	dir := t.TempDir()
	l := listenIn(t, dir, "v.sock")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	for range 50 {
		if _, err := Dial(patient(t), filepath.Join(dir, "v.sock"), 52); !errors.Is(err, ErrRefused) {
			t.Errorf("%v", err)
		}
	}
	l.Close()
	<-done
}

// A guest that comes up refuses for a while.
func TestRetryGoesOnUntilTheGuestListens(t *testing.T) {
	t.Parallel()
	const refusals = 5
	path := serve(t, t.TempDir(), func(c net.Conn, _ string, n int) {
		if n >= refusals {
			send(t, c, "OK 1\n")
			hangUp(c)
		}
	})
	c, err := (&Dialer{Retry: true}).Dial(patient(t), path, 52)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// Field case 22: after a restore a connection can hang for ever while the next
// one works.
func TestAnAttemptThatIsNeverAnsweredIsGivenUpForAFreshOne(t *testing.T) {
	t.Parallel()
	var abandoned sync.WaitGroup
	path := serve(t, t.TempDir(), func(c net.Conn, _ string, n int) {
		if n < 3 {
			abandoned.Add(1)
			defer abandoned.Done()
			if n == 2 {
				send(t, c, "OK 1073")
			}
		} else {
			send(t, c, "OK 1\n")
		}
		hangUp(c)
	})
	d := Dialer{AttemptTimeout: 20 * time.Millisecond}
	begin := time.Now()
	if _, err := d.Dial(patient(t), path, 52); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one attempt: %v", err)
	}
	if took := time.Since(begin); took < d.AttemptTimeout || took > patience/2 {
		t.Errorf("one attempt took %v", took)
	}
	d = Dialer{AttemptTimeout: 50 * time.Millisecond, Retry: true}
	c, err := d.Dial(patient(t), path, 52)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	abandoned.Wait() // the given-up ones are closed
}

func TestTheContextEndsADial(t *testing.T) {
	t.Parallel()
	var conns atomic.Int32
	mute := serve(t, t.TempDir(), func(c net.Conn, _ string, _ int) {
		conns.Add(1)
		hangUp(c)
	})
	for _, d := range []Dialer{{}, {Retry: true}} {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Millisecond, cancel)
		begin := time.Now()
		if _, err := d.Dial(ctx, mute, 52); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if took := time.Since(begin); took > DefaultAttemptTimeout/2 {
			t.Errorf("it took %v", took)
		}
		eventually(t, "the attempts were seen", func() bool { return conns.Load() > 0 })
		before := conns.Load()
		if _, err := d.Dial(ctx, mute, 52); !errors.Is(err, context.Canceled) {
			t.Errorf("a context that is over: %v", err)
		}
		if conns.Load() != before {
			t.Error("a context that is over: a connection was made")
		}
	}
	refusing := serve(t, t.TempDir(), func(net.Conn, string, int) {})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := (&Dialer{Retry: true}).Dial(ctx, refusing, 52)
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrRefused) {
		t.Errorf("the error should tell the last attempt's too: %v", err)
	}
}

func TestAContextHasNoPowerOverAConnection(t *testing.T) {
	t.Parallel()
	path := serve(t, t.TempDir(), func(c net.Conn, _ string, _ int) {
		send(t, c, "OK 1\n")
		_, _ = io.Copy(c, c)
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	c, err := (&Dialer{AttemptTimeout: time.Second}).Dial(ctx, path, 52)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel()
	time.Sleep(1100 * time.Millisecond) // the attempt's time is over as well
	send(t, c, "still there")
	b := make([]byte, len("still there"))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "still there" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestWhatCannotPassIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	listenIn(t, dir, "stale").Close()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		filepath.Join(dir, "none"):           os.ErrNotExist,
		filepath.Join(dir, "none", "v.sock"): os.ErrNotExist,
		filepath.Join(dir, "stale"):          syscall.ECONNREFUSED,
		filepath.Join(dir, "file"):           syscall.ECONNREFUSED,
		filepath.Join(dir, "file", "v.sock"): syscall.ENOTDIR,
		"":                                   nil,
		"/":                                  nil,
		dir + "/..":                          nil,
		filepath.Join(dir, strings.Repeat("x", 65)): nil,
	} {
		_, err := (&Dialer{Retry: true}).Dial(patient(t), path, 52)
		if err == nil || errors.Is(err, context.DeadlineExceeded) || want != nil && !errors.Is(err, want) {
			t.Errorf("%q: %v", path, err)
		}
		if err != nil && strings.Contains(err.Error(), "/proc/") {
			t.Errorf("%q: the error names a path below /proc: %v", path, err)
		}
	}
}

func TestAFullQueueIsWaitedFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "v.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	var fill *net.UnixConn
	for { // until it is full
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path})
		if err != nil {
			break
		}
		defer c.Close()
		fill = c
	}
	if fill == nil {
		t.Fatal("the queue took nothing")
	}
	if _, err := Dial(patient(t), path, 52); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("one attempt: %v", err)
	}
	dialed := make(chan error, 1)
	go func() {
		c, err := (&Dialer{Retry: true}).Dial(patient(t), path, 52)
		if err == nil {
			c.Close()
		}
		dialed <- err
	}()
	time.Sleep(10 * time.Millisecond)
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := io.ReadAtLeast(c, make([]byte, 16), len("CONNECT 52\n")); err == nil {
				send(t, c, "OK 1\n")
			}
			c.Close()
		}
	}()
	fill.Close()
	if err := <-dialed; err != nil {
		t.Errorf("with Retry: %v", err)
	}
	l.Close()
	<-served
}

func TestAThousandDialsLeaveNothingOpen(t *testing.T) {
	path := serve(t, t.TempDir(), func(c net.Conn, _ string, n int) {
		if n%3 != 0 {
			send(t, c, "OK 1\nbanner")
		}
	})
	before := openDescriptors(t)
	var wg sync.WaitGroup
	var good atomic.Int32
	for range 20 {
		wg.Go(func() {
			for range 50 {
				c, err := Dial(t.Context(), path, 52)
				switch {
				case errors.Is(err, ErrRefused), errors.Is(err, syscall.EAGAIN):
					continue
				case err != nil:
					t.Error(err)
					continue
				}
				good.Add(1)
				if b, err := io.ReadAll(c); err != nil || string(b) != "banner" {
					t.Errorf("%q, %v", b, err)
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	if good.Load() < 300 {
		t.Errorf("only %d of 1000 dials worked", good.Load())
	}
	eventually(t, "as many descriptors as before", func() bool { return openDescriptors(t) <= before })
}

// The rest of a file's path does not matter to its socket: a VM that is renamed
// is reached under its new one, also by a relative path.
func TestARelativePathIsReached(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir, func(c net.Conn, _ string, _ int) { send(t, c, "OK 1\n") })
	t.Chdir(dir)
	for _, path := range []string{"v.sock", "./v.sock"} {
		c, err := Dial(patient(t), path, 52)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		c.Close()
	}
}
