package microvmtest_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/tangle-network/microvm"
)

// devices are the hooks of what a VM in memory does not have: console, vsock,
// metrics. faulty has small ones, so that the suite's sections about them run.
type devices struct {
	tail   func(ctx context.Context, id string, lines int) ([]byte, error)
	follow func(ctx context.Context, id string) (io.ReadCloser, error)
	input  func(ctx context.Context, id string) (io.WriteCloser, error)
	dial   func(ctx context.Context, id string) (net.Conn, error)
	read   func(ctx context.Context, id string) (microvm.Metrics, error)
}

const printed = "hello\nworld\n"

func (f *faulty) ConsoleTail(ctx context.Context, id string, lines int) ([]byte, error) {
	if f.devices.tail != nil {
		return f.devices.tail(ctx, id, lines)
	}
	if _, err := f.Runtime.GetVM(ctx, id); err != nil {
		return nil, err
	}
	if lines == 0 {
		return nil, nil
	}
	return []byte(printed), nil
}

func (f *faulty) FollowConsole(ctx context.Context, id string, _ int) (io.ReadCloser, error) {
	if f.devices.follow != nil {
		return f.devices.follow(ctx, id)
	}
	return f.following(ctx, id)
}

func (f *faulty) following(ctx context.Context, id string) (io.ReadCloser, error) {
	if _, err := f.Runtime.GetVM(ctx, id); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	go func() {
		defer cancel()
		_, err := f.Runtime.WaitVM(ctx, id, microvm.StatusDestroyed)
		_ = w.CloseWithError(err) // it never fails
	}()
	return follower{r, cancel}, nil
}

type follower struct {
	*io.PipeReader
	cancel func()
}

func (f follower) Close() error {
	f.cancel()
	return f.PipeReader.Close()
}

type closed struct{ io.Writer }

func (closed) Close() error { return nil }

func (f *faulty) ConsoleInput(ctx context.Context, id string) (io.WriteCloser, error) {
	if f.devices.input != nil {
		return f.devices.input(ctx, id)
	}
	if _, err := f.Runtime.GetVM(ctx, id); err != nil {
		return nil, err
	}
	spec, err := f.SpecOf(id)
	if err == nil && (spec.Console == nil || !spec.Console.Input) {
		return nil, &microvm.Error{Verb: "write to", VMID: id, Err: microvm.ErrUnsupported}
	}
	return closed{io.Discard}, err
}

func (f *faulty) DialVsock(ctx context.Context, id string, _ uint32) (net.Conn, error) {
	if f.devices.dial != nil {
		return f.devices.dial(ctx, id)
	}
	if _, err := f.Runtime.GetVM(ctx, id); err != nil {
		return nil, err
	}
	spec, err := f.SpecOf(id)
	if err != nil || spec.Vsock == nil {
		return nil, fmt.Errorf("dial VM %q: %w", id, microvm.ErrUnsupported)
	}
	<-ctx.Done() // nobody listens
	return nil, ctx.Err()
}

func (f *faulty) ReadMetrics(ctx context.Context, id string) (microvm.Metrics, error) {
	if f.devices.read != nil {
		return f.devices.read(ctx, id)
	}
	_, err := f.Runtime.GetVM(ctx, id)
	return microvm.Metrics{Time: time.Now(), Counters: map[string]uint64{"net.rx": 7}}, err
}
