package fcapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// mute answers nothing, ever.
func mute(t *testing.T) reply {
	return func(_ received, w net.Conn) error {
		_, err := io.Copy(io.Discard, w) // ends with the connection
		return errors.Join(io.EOF, err)
	}
}

func TestNewDoesNoIO(t *testing.T) {
	t.Parallel()
	c := New("/nonexistent/api.sock")
	_, err := c.Describe(t.Context())
	var ce *ConnError
	if !errors.As(err, &ce) || ce.Sent || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("err = %v, want an unsent *ConnError of ENOENT", err)
	}
	for _, part := range []string{"GET /", "/nonexistent/api.sock"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %q", err, part)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestConcurrentCallsShareOneConnectionAndGetTheirOwnAnswers(t *testing.T) {
	t.Parallel()
	var inside atomic.Int32
	f := newFake(t, func(r received, w net.Conn) error {
		if n := inside.Add(1); n != 1 {
			t.Errorf("%d requests at once", n)
		}
		defer inside.Add(-1)
		_, err := io.WriteString(w, answer(200, r.body))
		return err
	})
	c := newClient(t, f)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 50 {
				want := fmt.Sprintf("%d.%d", i, j)
				var got string
				if err := c.Do(t.Context(), Request{Method: "PUT", Path: "/mmds", Body: want}, &got); err != nil || got != want {
					t.Errorf("got %q, %v, want %q", got, err, want)
				}
			}
		})
	}
	wg.Wait()
	if n := f.conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestContextEndsACallToAMuteServerAtOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t, mute(t))
	c := newClient(t, f)
	boom := errors.New("operator went home")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for f.requests.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel(boom)
	}()
	soon(t, "Pause", func() {
		err := c.Pause(ctx)
		var ce *ConnError
		if !errors.As(err, &ce) || !ce.Sent || !errors.Is(err, context.Canceled) || !errors.Is(err, boom) {
			t.Errorf("err = %v, want a sent *ConnError with cancellation and cause", err)
		}
	})
}

func TestDeadlineEndsACallAndTheNextOneWorks(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r received, w net.Conn) error {
		if r.conn == 1 {
			return mute(t)(r, w)
		}
		return always(noContent)(r, w)
	})
	c := newClient(t, f)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	soon(t, "Pause", func() {
		if err := c.Pause(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v", err)
		}
	})
	if err := c.Pause(t.Context()); err != nil {
		t.Errorf("after the deadline: %v", err)
	}
	if n := f.requests.Load(); n != 2 {
		t.Errorf("%d requests, want 2: nothing may be sent twice", n)
	}
}

func TestContextThatIsOverSendsNothing(t *testing.T) {
	t.Parallel()
	f := newFake(t, always(noContent))
	c := newClient(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := c.Pause(ctx)
	var ce *ConnError
	if !errors.As(err, &ce) || ce.Sent || !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want an unsent, canceled *ConnError", err)
	}
	if n := f.conns.Load(); n != 0 {
		t.Errorf("%d connections, want none", n)
	}
}

func TestCanceledWaiterDoesNotWaitForTheCallBeforeIt(t *testing.T) {
	t.Parallel()
	f := newFake(t, mute(t))
	c := newClient(t, f)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Pause(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("first call: %v, want ErrClosed", err)
		}
	})
	eventually(t, "first request arrived", func() bool { return f.requests.Load() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	soon(t, "the waiter", func() {
		err := c.Resume(ctx)
		var ce *ConnError
		if !errors.As(err, &ce) || ce.Sent || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiter: %v, want an unsent *ConnError with the deadline", err)
		}
	})
	c.Close()
	soon(t, "the first call", wg.Wait)
	if n := f.requests.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestCloseEndsCallsInFlightAndInTheQueue(t *testing.T) {
	t.Parallel()
	f := newFake(t, mute(t))
	c := newClient(t, f)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := c.Pause(t.Context()); !errors.Is(err, ErrClosed) {
				t.Errorf("err = %v, want ErrClosed", err)
			}
		})
	}
	eventually(t, "a request arrived", func() bool { return f.requests.Load() > 0 })
	for range 2 {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	soon(t, "the calls", wg.Wait)
	if err := c.Pause(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}

// A VMM that was replaced behind the same path, or that hung up, must not make
// the next call fail.
func TestConnectionThatWasClosedWhileIdleIsReplaced(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{}, 1)
	f := newFake(t, nil)
	f.stop()
	f = newRaw(t, f.socket, func(f *fake, nc net.Conn, n int) {
		serveOne(t, nc, noContent)
		nc.Close()
		closed <- struct{}{}
	})
	c := newClient(t, f)
	for i := range 5 {
		if err := c.Pause(t.Context()); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
		<-closed
	}
	if n := f.conns.Load(); n != 5 {
		t.Errorf("%d connections, want 5", n)
	}
}

func TestBytesThatNobodyAskedForAreNotTakenForAnAnswer(t *testing.T) {
	t.Parallel()
	surplus := make(chan struct{})
	f := newFake(t, func(r received, w net.Conn) error {
		if r.conn > 1 {
			return always(answer(200, `{"firecracker_version":"2"}`))(r, w)
		}
		err := always(answer(200, `{"firecracker_version":"1"}`))(r, w)
		io.WriteString(w, answer(200, `{"firecracker_version":"stale"}`))
		close(surplus)
		return err
	})
	c := newClient(t, f)
	for _, want := range []string{"1", "2"} {
		v, err := c.Version(t.Context())
		if err != nil || v != want {
			t.Errorf("version %q, %v, want %q", v, err, want)
		}
		<-surplus
	}
}

// TestOnlyAGETIsSentTwice lets the server take a request on a kept connection
// and end it without a byte.
func TestOnlyAGETIsSentTwice(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		call     func(context.Context, *Client) error
		fresh    bool // the connection ends at its first request
		requests int32
		fails    bool
	}{
		"GET on a kept connection": {func(ctx context.Context, c *Client) error { _, err := c.Describe(ctx); return err }, false, 3, false},
		"PUT on a kept connection": {func(ctx context.Context, c *Client) error { return c.StartInstance(ctx) }, false, 2, true},
		"GET on a new connection":  {func(ctx context.Context, c *Client) error { _, err := c.Describe(ctx); return err }, true, 2, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var served atomic.Int32
			f := newFake(t, func(r received, w net.Conn) error {
				if served.Add(1) == 2 {
					return io.EOF
				}
				if err := always(answer(200, "{}"))(r, w); err != nil || tt.fresh {
					return errors.Join(io.EOF, err)
				}
				return nil
			})
			c := newClient(t, f)
			if _, err := c.Version(t.Context()); err != nil {
				t.Fatal(err)
			}
			if tt.fresh {
				eventually(t, "the first connection is gone", func() bool { return !c.conn.quiet() })
			}
			err := tt.call(t.Context(), c)
			var ce *ConnError
			if tt.fails != (err != nil) || err != nil && (!errors.As(err, &ce) || !ce.Sent || !errors.Is(err, io.ErrUnexpectedEOF)) {
				t.Errorf("err = %v, want failure: %v", err, tt.fails)
			}
			if n := served.Load(); n != tt.requests {
				t.Errorf("server saw %d requests, want %d", n, tt.requests)
			}
		})
	}
}

// Firecracker refuses a body over its limit on its Content-Length, and takes
// the bytes of the body for requests.
func TestLargeBodyThatIsRefusedUnreadDoesNotBlock(t *testing.T) {
	t.Parallel()
	f := newFake(t, nil)
	f.stop()
	f = newRaw(t, f.socket, func(f *fake, nc net.Conn, n int) {
		one := make([]byte, 1)
		if _, err := io.ReadFull(nc, one); err != nil {
			return
		}
		io.WriteString(nc, answer(400, parserFault))
		for !f.over() { // reads no more, as its own answers are not read
			if _, err := nc.Write(nil); err != nil {
				return
			}
			if _, err := nc.Write([]byte("x")); err != nil {
				return
			}
		}
	})
	c := newClient(t, f)
	soon(t, "PutMMDS", func() {
		err := c.PutMMDS(t.Context(), strings.Repeat("x", 8<<20))
		var fe *Error
		if !errors.As(err, &fe) || fe.Status != 400 {
			t.Errorf("err = %v, want status 400", err)
		}
	})
	soon(t, "PutMMDS with a deadline", func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.PutMMDS(ctx, strings.Repeat("x", 8<<20)); err == nil {
			t.Error("second call succeeded")
		}
	})
}

func TestLargeBodyArrives(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r received, w net.Conn) error { return always(answer(200, fmt.Sprint(len(r.body))))(r, w) })
	c := newClient(t, f)
	for _, size := range []int{atOnce - 500, atOnce, atOnce + 1, 4 << 20} {
		var n int
		err := c.Do(t.Context(), Request{Method: "PUT", Path: "/mmds", Body: strings.Repeat("x", size)}, &n)
		if err != nil || n != size+2 {
			t.Errorf("body of %d: %d arrived, %v", size+2, n, err)
		}
	}
}

// The eleventh connection is answered and closed without being read.
func TestBusyServerIsReportedThoughItReadNothing(t *testing.T) {
	t.Parallel()
	f := newFake(t, nil)
	f.stop()
	busy := "HTTP/1.1 503 \r\nServer: Firecracker API\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n{ \"error\": \"Too many open connections\" }"
	f = newRaw(t, f.socket, func(_ *fake, nc net.Conn, _ int) { io.WriteString(nc, busy) })
	c := newClient(t, f)
	for range 20 { // the server may close before or after the request is written
		err := c.Pause(t.Context())
		var fe *Error
		if !errors.As(err, &fe) || *fe != (Error{"PATCH", "/vm", 503, "Too many open connections"}) {
			t.Fatalf("err = %v, want the 503", err)
		}
	}
}

func TestRawMessageAndNilOutAreServed(t *testing.T) {
	t.Parallel()
	f := newFake(t, always(answer(200, `{"a":1}`)))
	c := newClient(t, f)
	var raw json.RawMessage
	if err := c.Do(t.Context(), Request{Method: "GET", Path: "/mmds"}, &raw); err != nil || string(raw) != `{"a":1}` {
		t.Errorf("%s, %v", raw, err)
	}
	if err := c.Do(t.Context(), Request{Method: "GET", Path: "/mmds"}, nil); err != nil {
		t.Error(err)
	}
}

// serveOne reads one request and answers it.
func serveOne(t *testing.T, nc net.Conn, s string) {
	buf := make([]byte, 4096)
	if _, err := nc.Read(buf); err != nil {
		t.Errorf("read: %v", err)
		return
	}
	if _, err := io.WriteString(nc, s); err != nil {
		t.Errorf("write: %v", err)
	}
}

func TestAClientTakesOverAConnection(t *testing.T) {
	t.Parallel()
	f := newFake(t, always(noContent))
	nc, err := net.Dial("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewConnected("/nonexistent/api.sock", nc)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Pause(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if c, err = NewConnected(f.socket, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Pause(t.Context()); err != nil {
		t.Errorf("without one: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if n := f.conns.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}
