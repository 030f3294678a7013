package vsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// ErrRefused says that the VMM closed the connection without an answer: nobody
// listens on that port in the guest, or the guest's driver is not up yet. It can
// be tried again.
var ErrRefused = errors.New("vsock: the guest refused the connection: nothing listens on the port, or it is not up yet")

// DefaultAttemptTimeout bounds one attempt of a Dialer. A guest whose driver is
// coming up can take seconds to answer.
const DefaultAttemptTimeout = 5 * time.Second

// Dialer connects to ports of a guest. The zero value makes one attempt.
type Dialer struct {
	// AttemptTimeout bounds each attempt, from the connect to the VMM's answer;
	// 0 means DefaultAttemptTimeout. Some VMMs never answer an attempt, but do
	// answer the next one (1.16.1 after a pause, any after a restore).
	AttemptTimeout time.Duration
	// Retry makes fresh attempts until ctx ends, as long as they fail for a
	// reason that can pass: ErrRefused, a time-out, a full queue. A missing
	// socket, a socket that nobody serves and a broken answer end it at once.
	Retry bool
}

// The pauses between attempts grow from the first to the last.
const (
	firstPause = 2 * time.Millisecond
	lastPause  = 100 * time.Millisecond
)

// Dial connects to a port of the guest behind the VMM's vsock socket, in one
// attempt, as the zero Dialer does.
func Dial(ctx context.Context, socket string, port uint32) (*Conn, error) {
	return (&Dialer{}).Dial(ctx, socket, port)
}

// Dial connects to a port of the guest. After it has returned, ctx has no power
// over the connection. Errors wrap ErrRefused, ErrHandshake, os.ErrDeadlineExceeded
// (an attempt took too long) or ctx.Err(); with Retry, ctx.Err() and the error of
// the last whole attempt.
func (d *Dialer) Dial(ctx context.Context, socket string, port uint32) (*Conn, error) {
	var last error
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		c, err := d.attempt(ctx, socket, port)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			if last != nil {
				err = fmt.Errorf("%w (last attempt: %w)", ctx.Err(), last)
			}
			return nil, dialError(socket, port, err)
		}
		full := errors.Is(err, syscall.EAGAIN) // the VMM is there, but its queue is full
		passing := errors.Is(err, ErrRefused) || errors.Is(err, os.ErrDeadlineExceeded) || full
		if !passing || !d.Retry {
			return nil, dialError(socket, port, err)
		}
		last = err
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, dialError(socket, port, fmt.Errorf("%w (last attempt: %w)", ctx.Err(), last))
		}
	}
}

func dialError(socket string, port uint32, err error) error {
	return fmt.Errorf("dial vsock port %d by %s: %w", port, socket, err)
}

func (d *Dialer) attempt(ctx context.Context, socket string, port uint32) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	bound := d.AttemptTimeout
	if bound <= 0 {
		bound = DefaultAttemptTimeout
	}
	raw, err := connect(socket)
	if err != nil {
		return nil, err
	}
	_ = raw.SetDeadline(time.Now().Add(bound))
	// Only the past wakes up whoever waits; the bound above stays otherwise.
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	hostPort, err := handshake(raw, port)
	if !stop() && err == nil || ctx.Err() != nil && err != nil {
		err = ctx.Err()
	}
	if err == nil {
		err = raw.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = raw.Close()
		return nil, plain(err)
	}
	return &Conn{UnixConn: raw, local: Addr{socket, hostPort}, remote: Addr{socket, port}}, nil
}

// Conn is a connection with a program in the guest. CloseWrite and CloseRead
// reach the guest as a shutdown of its vsock connection.
type Conn struct {
	*net.UnixConn
	local, remote Addr
}

// LocalAddr is the host's end.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the guest's end.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }
