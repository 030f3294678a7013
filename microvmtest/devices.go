package microvmtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
)

// console knows nothing of what a guest prints: it looks at how the methods end.
func console(b *bench) {
	c, ok := b.rt.(microvm.ConsoleReader)
	if !ok {
		b.t.Skip("the runtime is no microvm.ConsoleReader")
	}
	const id = "talker"
	tail := func(id string, lines int) (text []byte, err error) {
		err = b.call(func(ctx context.Context) error {
			text, err = c.ConsoleTail(ctx, id, lines)
			return err
		})
		return text, err
	}
	_, err := tail("nobody", -1)
	b.refused("ConsoleTail", err, microvm.ErrVMNotFound, "nobody")
	_, err = c.FollowConsole(b.t.Context(), "nobody", -1)
	b.refused("FollowConsole", err, microvm.ErrVMNotFound, "nobody")

	b.make(id, microvm.StatusRunning)
	_, err = tail(id, -1)
	b.ok("ConsoleTail", err)
	text, err := tail(id, 0)
	b.ok("ConsoleTail", err)
	if len(text) > 0 {
		b.t.Errorf("ConsoleTail of 0 lines is %q", text)
	}

	b.run("the end of the context ends a follower", func(b *bench) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		r, err := c.FollowConsole(ctx, id, 0)
		b.ok("FollowConsole", err)
		cancel()
		b.ends(r)
	})
	b.run("Close ends a follower", func(b *bench) {
		ctx, cancel := context.WithTimeout(context.Background(), b.o.Timeout)
		defer cancel()
		r, err := c.FollowConsole(ctx, id, 0)
		b.ok("FollowConsole", err)
		b.ok("Close", r.Close())
		b.ends(r)
	})
	b.run("DestroyVM ends a follower", func(b *bench) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*b.o.Timeout)
		defer cancel()
		r, err := c.FollowConsole(ctx, id, -1)
		b.ok("FollowConsole", err)
		b.ok("DestroyVM", b.destroy(id))
		b.ends(r)
	})
}

// ends reads to the end, which has to come.
func (b *bench) ends(r io.ReadCloser) {
	b.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, r) // with which error it ends is the provider's to choose
	}()
	select {
	case <-done:
	case <-time.After(b.o.Timeout):
		b.t.Errorf("a follower's Read does not end within %v", b.o.Timeout)
	}
	closeQuietly(b.t, r)
}

func closeQuietly(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Logf("Close of an ended follower: %v", err)
	}
}

// consoleInput opens the guest's serial input; what a guest makes of it is not
// known here.
func consoleInput(b *bench) {
	c, ok := b.rt.(microvm.ConsoleWriter)
	if !ok {
		b.t.Skip("the runtime is no microvm.ConsoleWriter")
	}
	input := func(id string) error {
		return b.call(func(ctx context.Context) error {
			w, err := c.ConsoleInput(ctx, id)
			if err != nil {
				return err
			}
			return w.Close()
		})
	}
	b.refused("ConsoleInput", input("nobody"), microvm.ErrVMNotFound, "nobody")
	b.skipIfLacking(Specs)
	for _, wanted := range []bool{false, true} {
		id := fmt.Sprintf("input-%v", wanted)
		b.ok("CreateVMWithSpec", b.createWith(id, func(s *microvm.Spec) { s.Console = &microvm.Console{Input: wanted} }))
		b.ok("StartVM", b.start(id))
		if !wanted {
			b.refused("ConsoleInput of a VM whose spec has none", input(id), microvm.ErrUnsupported, id)
			continue
		}
		b.ok("ConsoleInput", input(id))
		b.ok("ConsoleInput again", input(id))
	}
}

// vsock dials; whether somebody answers is the guest's affair.
func vsock(b *bench) {
	d, ok := b.rt.(microvm.VsockDialer)
	if !ok {
		b.t.Skip("the runtime is no microvm.VsockDialer")
	}
	dial := func(id string) error {
		return b.call(func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			c, err := d.DialVsock(ctx, id, 5005)
			if err != nil {
				return err
			}
			return c.Close()
		})
	}
	b.refused("DialVsock", dial("nobody"), microvm.ErrVMNotFound, "nobody")
	b.skipIfLacking(Specs)
	b.ok("CreateVMWithSpec", b.createWith("deaf", func(s *microvm.Spec) { s.Vsock = nil }))
	b.ok("StartVM", b.start("deaf"))
	b.refused("DialVsock of a VM without vsock", dial("deaf"), microvm.ErrUnsupported, "deaf")

	b.ok("CreateVMWithSpec", b.createWith("open", func(s *microvm.Spec) { s.Vsock = &microvm.Vsock{} }))
	b.ok("StartVM", b.start("open"))
	done := make(chan error, 1)
	go func() { done <- dial("open") }()
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			b.t.Errorf("DialVsock: %v; want a connection or %v", err, context.DeadlineExceeded)
		}
	case <-time.After(b.o.Timeout):
		b.t.Errorf("DialVsock runs on %v after its context has ended", b.o.Timeout)
	}
}

func metrics(b *bench) {
	m, ok := b.rt.(microvm.MetricsReader)
	if !ok {
		b.t.Skip("the runtime is no microvm.MetricsReader")
	}
	read := func(id string) (got microvm.Metrics, err error) {
		err = b.call(func(ctx context.Context) error {
			got, err = m.ReadMetrics(ctx, id)
			return err
		})
		return got, err
	}
	_, err := read("nobody")
	b.refused("ReadMetrics", err, microvm.ErrVMNotFound, "nobody")
	b.make("measured", microvm.StatusRunning)
	first, err := read("measured")
	b.ok("ReadMetrics", err)
	second, err := read("measured")
	b.ok("ReadMetrics", err)
	if first.Time.IsZero() || second.Time.Before(first.Time) || second.CPUTime < first.CPUTime {
		b.t.Errorf("time goes backwards: %s, then %s", asJSON(first), asJSON(second))
	}
	for name, n := range first.Counters {
		if second.Counters[name] < n {
			b.t.Errorf("counter %s was %d and is %d", name, n, second.Counters[name])
		}
	}
}
