package fcemu

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// maxConnections is how many clients may be connected at a time.
const maxConnections = 10

// server is the HTTP server: one loop over epoll which serves one request at a
// time, as the original does, so that order, pipelining, hang-ups and the
// answer to one client too many come out the same.
type server struct {
	listener int // -1 without an API
	wake     int // eventfd: something outside wants the loop to look up
	epoll    int
	maxBody  int
	rel      *release
	conns    map[int]*conn

	handle func(request) response
}

type conn struct {
	fd      int
	parser  requestParser
	out     [][]byte
	writing bool // waits for EPOLLOUT, not for EPOLLIN
	closed  bool
	ending  bool // to be closed as soon as out is written
}

type pendingRequest struct {
	conn *conn
	req  request
}

// listenUnix binds and listens at path, as UnixListener::bind of the original
// does: a name that exists is an error.
func listenUnix(path string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	if err := unix.Listen(fd, 128); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// newServer makes a server on an already listening socket, or with none.
func newServer(listener, wake, maxBody int, rel *release, handle func(request) response) (*server, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	s := &server{listener: listener, wake: wake, epoll: ep, maxBody: maxBody, rel: rel, conns: map[int]*conn{}, handle: handle}
	for _, fd := range []int{listener, wake} {
		if fd < 0 {
			continue
		}
		if err := s.ctl(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN); err != nil {
			unix.Close(ep)
			return nil, err
		}
	}
	return s, nil
}

func (s *server) ctl(op, fd int, events uint32) error {
	ev := unix.EpollEvent{Events: events | unix.EPOLLRDHUP, Fd: int32(fd)}
	if err := unix.EpollCtl(s.epoll, op, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// close closes the connections, not the listener.
func (s *server) close() {
	for _, c := range s.conns {
		unix.Close(c.fd)
	}
	unix.Close(s.epoll)
}

// serveOnce waits for events until the deadline (the zero time: for ever) and
// deals with them. woken says that the wake descriptor fired; nothing else is
// looked at then.
func (s *server) serveOnce(deadline time.Time, stop func() bool) (woken bool, err error) {
	var events [maxConnections + 2]unix.EpollEvent
	timeout := -1
	if !deadline.IsZero() {
		timeout = max(0, int(time.Until(deadline)/time.Millisecond)+1)
	}
	n, err := unix.EpollWait(s.epoll, events[:], timeout)
	if errors.Is(err, unix.EINTR) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("epoll_wait: %w", err)
	}
	var pending []pendingRequest
	for _, ev := range events[:n] {
		switch fd := int(ev.Fd); fd {
		case s.wake:
			return true, nil
		case s.listener:
			if err := s.accept(); err != nil {
				return false, err
			}
		default:
			pending = append(pending, s.event(s.conns[fd], ev.Events)...)
		}
	}
	for _, p := range pending {
		r := s.handle(p.req)
		s.answer(p.conn, r)
		if stop() {
			break
		}
	}
	for fd, c := range s.conns {
		if c.closed {
			delete(s.conns, fd)
			unix.Close(fd)
		}
	}
	return false, nil
}

func (s *server) accept() error {
	fd, _, err := unix.Accept4(s.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		if errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EINTR) {
			return nil
		}
		return fmt.Errorf("accept: %w", err)
	}
	if len(s.conns) == maxConnections {
		// The client may already be gone; it loses nothing by that.
		_, _ = unix.SendmsgN(fd, []byte(fullMessage), nil, nil, unix.MSG_NOSIGNAL)
		return unix.Close(fd)
	}
	if err := s.ctl(unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN); err != nil {
		unix.Close(fd)
		return err
	}
	c := &conn{fd: fd}
	c.parser.maxBody, c.parser.rel = s.maxBody, s.rel
	s.conns[fd] = c
	return nil
}

// event deals with one event of a connection and returns the requests that it
// completed. A hang-up comes before the bytes that may still be unread: a
// request whose sender has gone is not executed.
func (s *server) event(c *conn, events uint32) []pendingRequest {
	switch {
	case events&(unix.EPOLLERR|unix.EPOLLHUP|unix.EPOLLRDHUP) != 0:
		c.closed, c.out = true, nil
	case events&unix.EPOLLIN != 0:
		return s.read(c)
	case events&unix.EPOLLOUT != 0:
		s.write(c)
	}
	return nil
}

func (s *server) read(c *conn) []pendingRequest {
	n, err := unix.Read(c.fd, c.parser.space())
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return nil
	case err != nil || n == 0:
		c.closed = true
		return nil
	}
	done, continues, err := c.parser.feed(n)
	for _, version := range continues {
		s.respond(c, response{status: 100}.render(version))
	}
	if err != nil {
		s.respond(c, parseFault(err).render("HTTP/1.1"))
	}
	pending := make([]pendingRequest, len(done))
	for i, r := range done {
		pending[i] = pendingRequest{c, r}
	}
	return pending
}

func (s *server) answer(c *conn, r response) {
	out := r.render("HTTP/1.1")
	if r.sent == sentWhole {
		s.respond(c, out)
		return
	}
	if out = r.cut(out); len(out) > 0 {
		s.respond(c, out)
	}
	c.ending = true
	c.closed = c.closed || len(c.out) == 0
}

func (s *server) respond(c *conn, bytes []byte) {
	if c.closed || c.ending {
		return
	}
	c.out = append(c.out, bytes)
	if !c.writing {
		c.writing = true
		if s.ctl(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLOUT) != nil {
			c.closed = true
		}
	}
}

func (s *server) write(c *conn) {
	n, err := unix.SendmsgN(c.fd, c.out[0], nil, nil, unix.MSG_NOSIGNAL)
	switch {
	case errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN):
		return
	case err != nil || n == 0:
		c.closed, c.out = true, nil
		return
	}
	if n < len(c.out[0]) {
		c.out[0] = c.out[0][n:]
		return
	}
	c.out = c.out[1:]
	if len(c.out) == 0 {
		c.out, c.writing = nil, false
		if c.ending {
			c.closed = true
			return
		}
		if s.ctl(unix.EPOLL_CTL_MOD, c.fd, unix.EPOLLIN) != nil {
			c.closed = true
		}
	}
}

// flush writes what is still to be answered, before the process goes.
func (s *server) flush() {
	for _, c := range s.conns {
		for !c.closed && len(c.out) > 0 {
			before := len(c.out[0])
			s.write(c)
			if len(c.out) > 0 && len(c.out[0]) == before {
				break // its buffer is full: the client doesn't read
			}
		}
	}
}
