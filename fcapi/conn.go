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

// lateAnswer bounds the wait for an answer that the VMM gave before it closed
// the connection in our face.
const lateAnswer = time.Second

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
	n, writeErr := c.Write(msg)
	if n > 0 {
		st = nothingRead
	}
	if writeErr != nil {
		// An eleventh client gets its 503 and a closed connection without
		// having been heard.
		if errors.Is(writeErr, net.ErrClosed) || c.SetReadDeadline(time.Now().Add(lateAnswer)) != nil {
			return response{}, st, writeErr
		}
	}
	if _, err := c.br.Peek(1); err != nil {
		if writeErr != nil {
			err = writeErr
		}
		return response{}, st, fmt.Errorf("no answer: %w", noEOF(err))
	}
	res, err = readResponse(c.br)
	if err != nil {
		return response{}, answering, err
	}
	if writeErr != nil {
		if res.status < 400 {
			return response{}, answering, writeErr
		}
		res.keep = false
	}
	return res, answering, nil
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
