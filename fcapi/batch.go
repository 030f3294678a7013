package fcapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// maxTogether is how many bytes of requests are written without waiting for an
// answer. Firecracker drops what it has read and not answered when it can't parse
// a request, one with a body over its limit (50 KiB, see api_server) for example:
// what is big goes alone.
const maxTogether = 8 << 10

// DoAll carries out requests in order and ends at the first that fails: n is how
// many did not, so that r[n] is the one that err speaks of. Small ones are
// written together, and within is how long they may take: Firecracker answers one
// after the other, and each is spared a round trip. Those behind the one that
// failed may have been carried out all the same, so it is for requests that are
// of no use without each other. Where there is no answer at all, Firecracker may
// stand at any of those that were written together, and err names them. The body
// of the answer to r[i] is decoded into out[i], where there is one.
//
// When one of the requests is wrong, or not supported, none is sent.
func (c *Client) DoAll(ctx context.Context, within time.Duration, r []Request, out ...any) (n int, err error) {
	msgs := make([][]byte, len(r))
	for i := range r {
		if msgs[i], err = c.encode(r[i]); err != nil {
			return i, err
		}
	}
	for n < len(r) {
		batch, end := msgs[n], n+1
		for end < len(r) && len(batch)+len(msgs[end]) <= maxTogether {
			batch = append(batch, msgs[end]...)
			end++
		}
		answers, err := c.together(ctx, within, r[n:end], batch)
		for _, a := range answers {
			if n < len(out) {
				if err := a.decode(r[n], out[n]); err != nil {
					return n, err
				}
			}
			n++
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// together writes the requests r, of which batch consists, and returns the good
// answers to them.
func (c *Client) together(ctx context.Context, within time.Duration, r []Request, batch []byte) (good []response, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	fail := func(st stage, err error) ([]response, error) {
		n := len(good)
		err = c.explain(ctx, err)
		if others := r[n+1:]; st == nothingRead && len(others) > 0 {
			var names []string
			for _, o := range others {
				names = append(names, o.String())
			}
			err = fmt.Errorf("no answer to it, nor to what was sent with it (%s): %w", strings.Join(names, ", "), err)
		}
		return good, &ConnError{Method: r[n].Method, Path: r[n].Path, Sent: st != nothingSent, Err: err}
	}
	if err := c.takeTurn(ctx); err != nil {
		return fail(nothingSent, err)
	}
	defer c.giveTurn()
	for {
		cn, reused, err := c.connection(ctx)
		if err != nil {
			return fail(nothingSent, err)
		}
		all, st, err := cn.roundTrips(ctx, batch, len(r))
		good = all
		n := len(good)
		refused := n > 0 && good[n-1].status >= http.StatusBadRequest
		if err != nil || refused || !good[n-1].keep {
			c.drop(cn)
		}
		switch {
		case refused:
			n--
			return good[:n], &Error{Method: r[n].Method, Path: r[n].Path, Status: good[n].status, Fault: good[n].fault}
		case err == nil:
			return good, nil
		case reused && st == nothingSent && ctx.Err() == nil && !c.isClosed():
			continue // the kept connection has ended between two calls
		}
		return fail(st, err)
	}
}

// roundTrips sends what are so many requests and reads their answers, to the
// first that is a refusal. It closes the connection when ctx ends.
func (c *conn) roundTrips(ctx context.Context, batch []byte, requests int) (all []response, st stage, err error) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer func() {
		if n := len(all); !stop() && n > 0 {
			all[n-1].keep = false
		}
	}()
	w := c.send(batch)
	for range requests {
		var res response
		res, st, err = c.receive()
		if err != nil && st == nothingRead && w.err != nil && !errors.Is(w.err, net.ErrClosed) {
			err = w.err
		}
		if err != nil && w.n == 0 && len(all) == 0 && st == nothingRead {
			st = nothingSent
		}
		if err != nil {
			return all, st, err
		}
		all = append(all, res)
		if res.status >= http.StatusBadRequest {
			return all, st, nil
		}
	}
	if w.err != nil { // it has answered what it was not asked
		return all[:requests-1], st, w.err
	}
	return all, st, nil
}
