package microvmtest_test

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
)

// wrongDevices break the rules about console, vsock and metrics.
var wrongDevices = []wrong{
	{"the console of a missing VM is empty", "console", device(func(f *faulty) {
		f.devices.tail = func(context.Context, string, int) ([]byte, error) { return nil, nil }
	})},
	{"the last 0 lines are all lines", "console", device(func(f *faulty) {
		f.devices.tail = func(ctx context.Context, id string, _ int) ([]byte, error) {
			_, err := f.Runtime.GetVM(ctx, id)
			return []byte(printed), err
		}
	})},
	{"a follower outlives its context", "console", device(func(f *faulty) {
		f.devices.follow = func(ctx context.Context, id string) (io.ReadCloser, error) {
			return f.following(context.WithoutCancel(ctx), id)
		}
	})},
	{"a follower outlives its VM", "console", device(func(f *faulty) {
		f.devices.follow = func(ctx context.Context, id string) (io.ReadCloser, error) {
			if _, err := f.Runtime.GetVM(ctx, id); err != nil {
				return nil, err
			}
			r, w := io.Pipe()
			stop := context.AfterFunc(ctx, func() { _ = w.Close() }) // it never fails
			return follower{r, func() { stop() }}, nil
		}
	})},
	{"a console that the spec does not open takes input", "console input", device(func(f *faulty) {
		f.devices.input = func(ctx context.Context, id string) (io.WriteCloser, error) {
			_, err := f.Runtime.GetVM(ctx, id)
			return closed{io.Discard}, err
		}
	})},
	{"a dial outlives its context", "vsock", device(func(f *faulty) {
		dial := (&faulty{Runtime: f.Runtime}).DialVsock
		f.devices.dial = func(ctx context.Context, id string) (net.Conn, error) {
			if id == "open" {
				ctx = context.WithoutCancel(ctx)
			}
			if id == "open" && ctx.Done() == nil {
				time.Sleep(5 * time.Second) // longer than the suite waits here; then it gives up
				return nil, context.DeadlineExceeded
			}
			return dial(ctx, id, 0)
		}
	})},
	{"a dial to a VM without vsock waits", "vsock", device(func(f *faulty) {
		f.devices.dial = func(ctx context.Context, id string) (net.Conn, error) {
			if _, err := f.Runtime.GetVM(ctx, id); err != nil {
				return nil, err
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})},
	{"counters shrink", "metrics", device(func(f *faulty) {
		n := uint64(100)
		f.devices.read = func(ctx context.Context, id string) (microvm.Metrics, error) {
			n--
			_, err := f.Runtime.GetVM(ctx, id)
			return microvm.Metrics{Time: time.Now(), Counters: map[string]uint64{"net.rx": n}}, err
		}
	})},
}

func device(set func(f *faulty)) func(*inmem.Runtime) *faulty {
	return func(rt *inmem.Runtime) *faulty {
		f := &faulty{Runtime: rt}
		set(f)
		return f
	}
}
