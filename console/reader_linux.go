package console

import (
	"context"
	"fmt"
)

// Reader is a Follower as an io.ReadCloser. Where bytes were missed the stream
// says so in a line of its own.
type Reader struct {
	follower *Follower
	ctx      context.Context
	cancel   context.CancelFunc
	rest     []byte
	midLine  bool // the last byte delivered was not the end of a line
}

// NewReader returns a reader that ends (io.EOF) when the Follower does, when ctx
// ends, or when it is closed, which closes the Follower. Read must not be called
// concurrently; Close may be called at any time.
func NewReader(ctx context.Context, f *Follower) *Reader {
	ctx, cancel := context.WithCancel(ctx)
	return &Reader{follower: f, ctx: ctx, cancel: cancel}
}

// Read implements io.Reader. After ctx has ended it returns ctx.Err(), wrapped.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.rest) == 0 {
		c, err := r.follower.Next(r.ctx)
		if err != nil {
			return 0, err
		}
		r.rest = c.Data
		if c.Missed > 0 {
			r.rest = append(missedLine(c.Missed, r.midLine), c.Data...)
		}
		r.midLine = c.Data[len(c.Data)-1] != '\n'
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// missedLine is what stands in the stream for bytes that were cut off.
func missedLine(n int64, midLine bool) []byte {
	s := fmt.Sprintf("[microvm: %d bytes of console output were cut off here]\n", n)
	if midLine {
		s = "\n" + s
	}
	return []byte(s)
}

// Close implements io.Closer.
func (r *Reader) Close() error {
	r.cancel()
	return r.follower.Close()
}
