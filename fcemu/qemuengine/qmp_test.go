//go:build linux

package qemuengine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

const greeting = `{"QMP":{"version":{"qemu":{"major":7,"minor":2,"micro":22},"package":"Debian"},"capabilities":[]}}` + "\n"

// fakeQEMU answers each command by what answer returns; after "" it hangs up.
func fakeQEMU(t *testing.T, answer func(command, id string) string) *net.UnixConn {
	t.Helper()
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]*net.UnixConn, 2)
	for i, f := range []*os.File{ours, theirs} {
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		conns[i] = c.(*net.UnixConn)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer conns[1].Close()
		if _, err := io.WriteString(conns[1], greeting); err != nil {
			return
		}
		lines := bufio.NewScanner(conns[1])
		for lines.Scan() {
			var m struct{ Execute, ID string }
			if json.Unmarshal(lines.Bytes(), &m) != nil {
				return
			}
			s := `{"return":{},"id":"` + m.ID + `"}`
			if m.Execute != "qmp_capabilities" {
				s = answer(m.Execute, m.ID)
			}
			if s == "" {
				return
			}
			if _, err := io.WriteString(conns[1], s+"\n"); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		conns[0].Close()
		<-done
	})
	return conns[0]
}

func TestQMPGivesResultsEventsAndRefusals(t *testing.T) {
	t.Parallel()
	conn := fakeQEMU(t, func(command, id string) string {
		if command == "refused" {
			return `{"error":{"class":"GenericError","desc":"no such thing"},"id":"` + id + `"}`
		}
		return `{"event":"STOP","timestamp":{}}` + "\n" + `{"return":{"answer":42},"id":"` + id + `"}`
	})
	events := make(chan string, 8)
	q, err := newQMP(t.Context(), conn, func(m qmpMessage) { events <- m.Event })
	if err != nil {
		t.Fatal(err)
	}
	defer q.close()
	if got, want := q.greeting.String(), "7.2.22 (Debian)"; got != want {
		t.Errorf("version %q, want %q", got, want)
	}
	var r struct{ Answer int }
	if err := q.get(t.Context(), &r, "query-it", nil); err != nil || r.Answer != 42 {
		t.Errorf("%+v, %v", r, err)
	}
	if e := <-events; e != "STOP" {
		t.Errorf("event %q", e)
	}
	_, err = q.run(t.Context(), "refused", nil)
	var refused *qmpError
	if !errors.As(err, &refused) || refused.Command != "refused" || refused.Desc != "no such thing" {
		t.Errorf("refusal: %v", err)
	}
}

func TestQMPEndsWaitingCommandsWithItself(t *testing.T) {
	t.Parallel()
	conn := fakeQEMU(t, func(command, id string) string {
		switch command {
		case "silence":
			return `{"event":"NOTHING"}`
		case "garbage":
			return `{"return":`
		}
		return ""
	})
	q, err := newQMP(t.Context(), conn, func(qmpMessage) {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := q.run(ctx, "silence", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer in time: %v", err)
	}
	if _, err := q.run(t.Context(), "garbage", nil); !errors.Is(err, errQMPClosed) {
		t.Errorf("after garbage: %v", err)
	}
	if _, err := q.run(t.Context(), "more", nil); !errors.Is(err, errQMPClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func TestQMPHandshakeHonoursItsContext(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	a.Close()
	b.Close()
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	c, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := newQMP(ctx, c.(*net.UnixConn), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a QEMU that does not greet: %v", err)
	}
}

// Whoever gives up in the middle of a command does not take the connection
// from the others.
func TestQMPOutlivesCancelledCommands(t *testing.T) {
	t.Parallel()
	c, err := newQMP(t.Context(), fakeQEMU(t, func(_, id string) string { return `{"return":{},"id":"` + id + `"}` }), func(qmpMessage) {})
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for range 2000 {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		if _, err := c.run(ctx, "query-status", nil); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		cancel()
	}
	if _, err := c.run(t.Context(), "query-status", nil); err != nil {
		t.Error(err)
	}
}

func TestQMPMessagesAreBounded(t *testing.T) {
	t.Parallel()
	if _, err := readQMP(bufio.NewReader(strings.NewReader(strings.Repeat("x", maxQMPMessage+1)))); err == nil {
		t.Error("an endless message was taken")
	}
}

func FuzzReadQMP(f *testing.F) {
	f.Add([]byte(greeting))
	f.Add([]byte(`{"return":{},"id":"1"}` + "\r\n"))
	f.Add([]byte(`{"event":"SHUTDOWN","data":{"reason":"guest-reset"}}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readQMP(bufio.NewReader(strings.NewReader(string(b))))
		if err != nil {
			return
		}
		v := &vm{reset: make(chan struct{})}
		v.event(m)
	})
}
