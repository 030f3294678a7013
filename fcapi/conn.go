package fcapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// conn is one connection to a VMM, used by one call at a time.
type conn struct {
	net.Conn
	raw syscall.RawConn
	br  *bufio.Reader
}

func newConn(nc net.Conn) (*conn, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%T has no descriptor", nc)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("descriptor of connection: %w", err)
	}
	return &conn{Conn: nc, raw: raw, br: bufio.NewReaderSize(nc, maxLine)}, nil
}

// stage is how far a call came.
type stage int

const (
	nothingSent stage = iota
	nothingRead
	answering
)

const (
	// lateAnswer bounds the wait for an answer that the VMM gave before it
	// closed the connection in our face.
	lateAnswer = time.Second
	// atOnce is how many bytes the socket surely takes without being read.
	atOnce = 64 << 10
)

// roundTrip sends msg and reads the answer. It closes the connection when ctx
// ends.
func (c *conn) roundTrip(ctx context.Context, msg []byte) (res response, st stage, err error) {
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { c.Close() })
		defer func() {
			if !stop() {
				res.keep = false
			}
		}()
	}
	var w written
	if len(msg) <= atOnce {
		w = c.send(msg)
		res, st, err = c.receive()
	} else {
		// Firecracker refuses a body over its limit without reading it to the
		// end: read while writing, or both sides wait for ever.
		done := make(chan written, 1)
		go func() { done <- c.send(msg) }()
		res, st, err = c.receive()
		select {
		case w = <-done:
		default:
			c.Close()
			w = <-done
			res.keep = false
		}
	}
	switch {
	case err != nil:
		if w.n == 0 && st == nothingRead {
			st = nothingSent
		}
		if st != answering && w.err != nil && !errors.Is(w.err, net.ErrClosed) {
			err = w.err
		}
		return response{}, st, err
	case w.err != nil && res.status < 400:
		return response{}, st, w.err
	case w.err != nil:
		res.keep = false
	}
	return res, st, nil
}

type written struct {
	n   int
	err error
}

func (c *conn) send(msg []byte) written {
	n, err := c.Write(msg)
	if err != nil {
		// An eleventh client gets its 503 and a closed connection without
		// having been heard. If the connection is closed on our side, so is
		// the wait.
		_ = c.SetReadDeadline(time.Now().Add(lateAnswer))
	}
	return written{n, err}
}

func (c *conn) receive() (response, stage, error) {
	if _, err := c.br.Peek(1); err != nil {
		return response{}, nothingRead, fmt.Errorf("no answer: %w", noEOF(err))
	}
	res, err := readResponse(c.br)
	return res, answering, err
}

// quiet reports that the connection is open and that nothing has come on it
// since the last answer. Anything that has would be taken for the answer to
// the next request.
func (c *conn) quiet() bool {
	if c.br.Buffered() > 0 {
		return false
	}
	quiet := false
	err := c.raw.Read(func(fd uintptr) bool {
		var b [1]byte
		for {
			_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			if err == syscall.EINTR {
				continue
			}
			quiet = err == syscall.EAGAIN
			return true
		}
	})
	return err == nil && quiet
}
