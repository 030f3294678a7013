package fcapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func puts(n int) []Request {
	var all []Request
	for i := range n {
		all = append(all, Request{Method: "PUT", Path: "/mmds", Body: i})
	}
	return all
}

func TestRequestsTogetherAreWrittenBeforeTheFirstAnswer(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []string
	f := newFake(t, func(r received, w net.Conn) error {
		mu.Lock()
		defer mu.Unlock()
		if seen = append(seen, r.body); len(seen) < 5 {
			return nil // all answers come after the last request
		}
		_, err := io.WriteString(w, strings.Repeat(noContent, 5))
		return err
	})
	c := newClient(t, f)
	soon(t, "DoAll", func() {
		if n, err := c.DoAll(t.Context(), time.Minute, puts(5)); n != 5 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(seen, " "); got != "0 1 2 3 4" {
		t.Errorf("the server has seen %s", got)
	}
}

func TestTheFirstOfSeveralRequestsThatFailsIsNamed(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r received, w net.Conn) error {
		a := noContent
		if r.conn == 1 && r.body >= "2" {
			a = answer(400, `{"fault_message":"no `+r.body+`"}`)
		}
		_, err := io.WriteString(w, a)
		return err
	})
	c := newClient(t, f)
	all := puts(5)
	n, err := c.DoAll(t.Context(), time.Minute, all)
	var fault *Error
	if n != 2 || !errors.As(err, &fault) || fault.Fault != "no 2" {
		t.Errorf("%d, %v", n, err)
	}
	// The answers to the others are nobody's: they must not be taken for those to
	// the next ones.
	if n, err := c.DoAll(t.Context(), time.Minute, all); n != 5 || err != nil {
		t.Errorf("then: %d, %v", n, err)
	}
	if err := c.Pause(t.Context()); err != nil {
		t.Error(err)
	}
	if n := f.conns.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

func TestAServerThatFallsSilentAmongSeveralRequests(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r received, w net.Conn) error {
		if r.body == "3" {
			return mute(t)(r, w)
		}
		return always(noContent)(r, w)
	})
	c := newClient(t, f)
	soon(t, "DoAll", func() {
		all := append(puts(5), ResumeRequest())
		n, err := c.DoAll(t.Context(), 150*time.Millisecond, all)
		var ce *ConnError
		if n != 3 || !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &ce) || !ce.Sent {
			t.Errorf("%d, %v", n, err)
		}
		if !strings.Contains(fmt.Sprint(err), "PUT /mmds, PATCH /vm") {
			t.Errorf("%v does not name the other requests that have no answer", err)
		}
	})
}

func TestContextEndsSeveralRequestsAtOnce(t *testing.T) {
	t.Parallel()
	f := newFake(t, mute(t))
	c := newClient(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for f.requests.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	soon(t, "DoAll", func() {
		if n, err := c.DoAll(ctx, time.Hour, puts(3)); n != 0 || !errors.Is(err, context.Canceled) {
			t.Errorf("%d, %v", n, err)
		}
	})
}

func TestAConnectionThatEndsAmongSeveralAnswers(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r received, w net.Conn) error {
		if r.body == "2" {
			return io.EOF
		}
		return always(noContent)(r, w)
	})
	n, err := newClient(t, f).DoAll(t.Context(), time.Minute, puts(4))
	var ce *ConnError
	if n != 2 || !errors.As(err, &ce) || !ce.Sent {
		t.Errorf("%d, %v", n, err)
	}
	if got := f.requests.Load(); got != 3 {
		t.Errorf("%d requests, want 3: nothing may be sent twice", got)
	}
}

func TestNothingIsSentWhenOneOfSeveralRequestsIsWrong(t *testing.T) {
	t.Parallel()
	f := newFake(t, always(noContent))
	c := newClient(t, f)
	c.CheckVersion(Version{1, 7, 0})
	for want, bad := range map[error]Request{
		ErrInvalidRequest: {Method: "PUT", Path: "/drives/a-b"},
		ErrUnsupported:    PutSerialRequest(SerialDevice{}),
	} {
		if n, err := c.DoAll(t.Context(), time.Minute, []Request{PauseRequest(), bad, ResumeRequest()}); n != 1 || !errors.Is(err, want) {
			t.Errorf("%d, %v, want %v", n, err, want)
		}
	}
	if n := f.requests.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestBigRequestsWaitForTheAnswerBefore(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []string
	f := newRaw(t, newFake(t, always(noContent)).socket+"2", func(_ *fake, nc net.Conn, _ int) {
		// What one read gives may be a part of a request; it is never more than
		// what is written together.
		buf := make([]byte, 1<<20)
		for {
			n, err := nc.Read(buf)
			if err != nil {
				return
			}
			requests := strings.Count(string(buf[:n]), "HTTP/1.1\r\n")
			mu.Lock()
			seen = append(seen, fmt.Sprint(requests))
			mu.Unlock()
			if _, err := io.WriteString(nc, strings.Repeat(noContent, requests)); err != nil {
				return
			}
		}
	})
	big := Request{Method: "PUT", Path: "/mmds", Body: strings.Repeat("x", maxTogether)}
	all := append(puts(3), big)
	all = append(all, puts(2)...)
	if n, err := newClient(t, f).DoAll(t.Context(), time.Minute, all); n != len(all) || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(seen, " "); got != "3 1 2" {
		t.Errorf("requests came together as %s, want 3 1 2", got)
	}
}

func TestAnswersOfSeveralRequestsAreDecoded(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(r received, w net.Conn) error {
		a := noContent
		if r.method == "GET" {
			a = answer(200, `{"id":"a","vmm_version":"1.16.1"}`)
		}
		_, err := io.WriteString(w, a)
		return err
	})
	c := newClient(t, f)
	var info InstanceInfo
	all := append([]Request{DescribeRequest()}, puts(2)...)
	if n, err := c.DoAll(t.Context(), time.Minute, all, &info); n != 3 || err != nil || info.ID != "a" {
		t.Errorf("%d, %v, %+v", n, err, info)
	}
	var wrong []int
	n, err := c.DoAll(t.Context(), time.Minute, all, &wrong)
	if n != 0 || !errors.Is(err, ErrProtocol) {
		t.Errorf("%d, %v", n, err)
	}
	if err := c.Pause(t.Context()); err != nil {
		t.Error(err)
	}
}
