package fcapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// Client speaks to one VMM. It is safe for concurrent use; its calls run one
// after the other on one connection.
type Client struct {
	socket string
	// turn holds one token. Whoever took it owns conn, but for closing it.
	turn   chan struct{}
	closed chan struct{}
	// version is what requests are checked against, nil: nothing.
	version atomic.Pointer[Version]

	mu   sync.Mutex // guards conn for Close
	conn *conn      // nil: dial before the next call
}

// New returns a client of the VMM that listens on the unix socket socketPath.
// It does no I/O: the first call connects. The path may be longer than the 107
// bytes of a socket address on Linux; a relative one is resolved when the
// client connects.
func New(socketPath string) *Client {
	c := &Client{
		socket: socketPath,
		turn:   make(chan struct{}, 1),
		closed: make(chan struct{}),
	}
	c.turn <- struct{}{}
	return c
}

// NewConnected is New with a connection to the VMM, which the client takes over;
// nil is none.
func NewConnected(socketPath string, nc net.Conn) (*Client, error) {
	c := New(socketPath)
	if nc == nil {
		return c, nil
	}
	cn, err := newConn(nc)
	if err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	c.conn = cn
	return c, nil
}

// CheckVersion makes all later calls fail with an *UnsupportedError, and send
// nothing, when the release v does not understand them; see Supports. Without
// it the VMM decides: it refuses nearly all that it does not know with status
// 400, and ignores the rest.
func (c *Client) CheckVersion(v Version) { c.version.Store(&v) }

// Close closes the connection. Calls in flight end at once and, as all later
// ones, fail with ErrClosed. It may be called any number of times.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosed() {
		return nil
	}
	close(c.closed)
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	if errors.Is(err, net.ErrClosed) { // by a ctx that ended
		err = nil
	}
	return err
}

// Do sends r and decodes the answer into out, which may be nil. See the package
// comment for the errors.
func (c *Client) Do(ctx context.Context, r Request, out any) error {
	msg, err := c.encode(r)
	if err != nil {
		return err
	}
	res, sent, err := c.exchange(ctx, r, msg)
	if err != nil {
		return &ConnError{Method: r.Method, Path: r.Path, Sent: sent, Err: err}
	}
	if res.status >= http.StatusBadRequest {
		return &Error{Method: r.Method, Path: r.Path, Status: res.status, Fault: res.fault}
	}
	if out == nil {
		return nil
	}
	return res.decode(r, out)
}

// decode reads the body of the answer to r.
func (res response) decode(r Request, out any) error {
	if err := json.Unmarshal(res.body, out); err != nil {
		return &ConnError{Method: r.Method, Path: r.Path, Sent: true,
			Err: fmt.Errorf("%w: decode body of %d bytes: %w", ErrProtocol, len(res.body), err)}
	}
	return nil
}

// encode checks r and returns it as bytes for the wire.
func (c *Client) encode(r Request) ([]byte, error) {
	body, err := r.body()
	if err != nil {
		return nil, err
	}
	if v := c.version.Load(); v != nil {
		if err := supports(*v, r, body); err != nil {
			return nil, err
		}
	}
	return r.message(body), nil
}

// takeTurn waits until no other call is in flight; give the turn back.
func (c *Client) takeTurn(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctxError(ctx)
	}
	select {
	case <-c.turn:
		return nil
	case <-ctx.Done():
		return ctxError(ctx)
	case <-c.closed:
		return ErrClosed
	}
}

func (c *Client) giveTurn() { c.turn <- struct{}{} }

// exchange waits for its turn, sends msg and reads the answer. sent tells
// whether any byte of msg was written.
func (c *Client) exchange(ctx context.Context, r Request, msg []byte) (res response, sent bool, err error) {
	if err := c.takeTurn(ctx); err != nil {
		return response{}, false, err
	}
	defer c.giveTurn()
	for {
		cn, reused, err := c.connection(ctx)
		if err != nil {
			return response{}, false, c.explain(ctx, err)
		}
		res, st, err := cn.roundTrip(ctx, msg)
		if err == nil && !res.keep || err != nil {
			c.drop(cn)
		}
		if err == nil {
			return res, true, nil
		}
		// A kept connection can end between two calls. Trying again is safe
		// when nothing was written, or when the request changes nothing.
		again := reused && (st == nothingSent || st == nothingRead && r.Method == http.MethodGet)
		if again && ctx.Err() == nil && !c.isClosed() {
			continue
		}
		return response{}, st != nothingSent, c.explain(ctx, err)
	}
}

// connection returns the kept connection or a new one.
func (c *Client) connection(ctx context.Context) (cn *conn, reused bool, err error) {
	if cn := c.conn; cn != nil {
		if cn.quiet() {
			return cn, true, nil
		}
		c.drop(cn)
	}
	if c.isClosed() {
		return nil, false, ErrClosed
	}
	nc, err := dial(ctx, c.socket)
	if err != nil {
		return nil, false, fmt.Errorf("connect to %s: %w", c.socket, err)
	}
	cn, err = newConn(nc)
	if err != nil {
		return nil, false, errors.Join(err, nc.Close())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosed() {
		return nil, false, errors.Join(ErrClosed, cn.Close())
	}
	c.conn = cn
	return cn, false, nil
}

// drop forgets and closes a connection that must not be used again.
func (c *Client) drop(cn *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = nil
	cn.Close() // an error leaves nothing to do: the descriptor is gone, or was before
}

func (c *Client) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// explain replaces the error of a connection that was closed under a call by
// the reason for closing it.
func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctxError(ctx)
	}
	if c.isClosed() {
		return ErrClosed
	}
	return err
}

func ctxError(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}
