package fcapi

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tangle-network/microvm/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// Answers, byte for byte as Firecracker gives them.
const (
	noContent = "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"
	// parserFault has a raw newline within its JSON string.
	parserFault = "{\"error\": \"Invalid Header.\nAll previous unanswered requests will be dropped.\" }"
)

func answer(status int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body)
}

// received is a request as it came over the wire.
type received struct {
	method, path, body string
	head               string // with its closing empty line
	conn               int    // 1 for the first connection
}

// fake is a server that answers as its test says.
type fake struct {
	socket string

	conns    atomic.Int32
	requests atomic.Int32

	mu    sync.Mutex
	open  []net.Conn
	ln    net.Listener
	wg    sync.WaitGroup
	ended bool
}

// reply answers one request. An error ends the connection.
type reply func(r received, w net.Conn) error

// always answers every request with s.
func always(s string) reply {
	return func(_ received, w net.Conn) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

// newFake listens on a socket in a directory of its own, short enough to bind.
func newFake(t testing.TB, re reply) *fake {
	t.Helper()
	dir, err := os.MkdirTemp("", "fc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return newFakeAt(t, filepath.Join(dir, "api.sock"), re)
}

func newFakeAt(t testing.TB, socket string, re reply) *fake {
	t.Helper()
	return newRaw(t, socket, func(f *fake, nc net.Conn, n int) {
		br := bufio.NewReader(nc)
		for {
			r, err := readRequest(br)
			if err != nil {
				if err != io.EOF && !f.over() && !isGone(err) {
					t.Errorf("connection %d: %v", n, err)
				}
				return
			}
			r.conn = n
			f.requests.Add(1)
			if err := re(r, nc); err != nil {
				return
			}
		}
	})
}

// newRaw calls serve for each connection and closes it afterwards.
func newRaw(t testing.TB, socket string, serve func(f *fake, nc net.Conn, n int)) *fake {
	t.Helper()
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{socket: socket, ln: ln}
	f.wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			if f.ended {
				nc.Close()
			}
			f.open = append(f.open, nc)
			f.mu.Unlock()
			n := int(f.conns.Add(1))
			f.wg.Go(func() {
				defer nc.Close()
				serve(f, nc, n)
			})
		}
	})
	t.Cleanup(f.stop)
	return f
}

func (f *fake) stop() {
	f.mu.Lock()
	f.ended = true
	open := f.open
	f.mu.Unlock()
	f.ln.Close()
	for _, nc := range open {
		nc.Close()
	}
	f.wg.Wait()
}

func (f *fake) over() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended
}

func isGone(err error) bool {
	return strings.Contains(err.Error(), "use of closed") || strings.Contains(err.Error(), "reset by peer") || strings.Contains(err.Error(), "unexpected EOF")
}

// readRequest reads as strictly as Firecracker does.
func readRequest(br *bufio.Reader) (received, error) {
	var r received
	length := 0
	for i := 0; ; i++ {
		line, err := br.ReadString('\n')
		if err != nil {
			if err == io.EOF && r.head != "" {
				err = io.ErrUnexpectedEOF
			}
			return r, err
		}
		r.head += line
		if len(line) > 1024 {
			return r, fmt.Errorf("line of %d bytes", len(line))
		}
		line, ok := strings.CutSuffix(line, "\r\n")
		switch {
		case !ok:
			return r, fmt.Errorf("line %q without CRLF", line)
		case i == 0:
			if n, err := fmt.Sscanf(line, "%s %s HTTP/1.1", &r.method, &r.path); n != 2 || err != nil {
				return r, fmt.Errorf("request line %q: %v", line, err)
			}
		case line == "":
			body := make([]byte, length)
			if _, err := io.ReadFull(br, body); err != nil {
				return r, err
			}
			r.body = string(body)
			return r, nil
		case strings.HasPrefix(line, "Content-Length: "):
			if _, err := fmt.Sscanf(line, "Content-Length: %d", &length); err != nil {
				return r, fmt.Errorf("header %q: %v", line, err)
			}
		case strings.HasPrefix(line, "Transfer-Encoding"), strings.HasPrefix(line, "Accept-Encoding"), strings.HasPrefix(line, "Expect"):
			return r, fmt.Errorf("header %q", line)
		}
	}
}

func newClient(t testing.TB, f *fake) *Client {
	t.Helper()
	c := New(f.socket)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}

// soon fails the test when f has not returned after a time that no machine
// should need.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s has not returned after 20 s", what)
	}
}

// eventually waits for something that another goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not so after 10 s", what)
		}
	}
}
