package nullengine

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tangle-network/microvm/fcemu"
	"golang.org/x/sys/unix"
)

// console is the guest's serial line: standard output, or the file of
// PUT /serial. What its reader doesn't take at once is lost.
type console struct {
	mu      sync.Mutex
	fd      int
	owned   bool
	limit   *fcemu.TokenBucket
	tokens  float64
	filled  time.Time
	counted func(name string, n uint64)
}

func openConsole(stdout int, s *fcemu.Serial, counted func(string, uint64)) (*console, error) {
	c := &console{fd: stdout, counted: counted, filled: time.Now()}
	if s == nil {
		return c, nil
	}
	if l := s.RateLimiter; l != nil && l.Size > 0 && l.RefillTime > 0 {
		c.limit = l
		c.tokens = float64(l.Size)
		if l.OneTimeBurst != nil {
			c.tokens += float64(*l.OneTimeBurst)
		}
	}
	if s.SerialOutPath != nil {
		// As the log: created, neither truncated nor appended to.
		fd, err := unix.Open(*s.SerialOutPath, unix.O_RDWR|unix.O_CREAT|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o666)
		if err != nil {
			return nil, fmt.Errorf("open serial_out_path %s: %w", *s.SerialOutPath, err)
		}
		c.fd, c.owned = fd, true
	}
	return c, nil
}

func (c *console) close() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owned {
		unix.Close(c.fd)
	}
	c.fd = -1 // who still writes, writes nothing
}

func (c *console) write(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.limit != nil {
		b = b[:c.take(len(b))]
	}
	c.counted("uart.write_count", uint64(len(b)))
	for len(b) > 0 && c.fd >= 0 {
		n, err := unix.Write(c.fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			c.counted("uart.missed_write_count", uint64(len(b)))
			return
		}
		b = b[n:]
	}
}

// take spends tokens for up to n bytes; the rest is dropped.
func (c *console) take(n int) int {
	now := time.Now()
	if full := float64(c.limit.Size); c.tokens < full {
		gain := full * float64(now.Sub(c.filled)) / (float64(c.limit.RefillTime) * float64(time.Millisecond))
		c.tokens = min(full, c.tokens+gain)
	}
	c.filled = now
	ok := min(n, int(c.tokens))
	c.tokens -= float64(ok)
	c.counted("uart.rate_limiter_dropped_bytes", uint64(n-ok))
	return ok
}

// rawTerminal puts the terminal of the guest's console into raw mode, as
// Firecracker does when there is a serial device, and returns what undoes it.
// Anything that is no terminal stays as it is.
func rawTerminal(fd int) (restore func(), err error) {
	if fd < 0 {
		return func() {}, nil
	}
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {}, nil // no terminal
	}
	raw := *was
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, fmt.Errorf("set the terminal to raw mode: %w", err)
	}
	// A terminal that is gone needs nothing.
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, was) }, nil
}

// echo is the guest's reader of its console: it writes each line back. It
// reads only while the guest runs.
type echo struct {
	quit int // eventfd
	done chan struct{}
}

func startEcho(stdin int, c *console) (*echo, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	e := &echo{quit: fd, done: make(chan struct{})}
	go func() {
		defer close(e.done)
		e.copy(stdin, c)
	}()
	return e, nil
}

func (e *echo) stop() {
	// An eventfd at its limit is readable all the same.
	_, _ = unix.Write(e.quit, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	<-e.done
	unix.Close(e.quit)
}

// maxLine bounds what is kept of a line without an end.
const maxLine = 4096

func (e *echo) copy(stdin int, c *console) {
	var line []byte
	buf := make([]byte, 1024)
	for {
		fds := []unix.PollFd{{Fd: int32(stdin), Events: unix.POLLIN}, {Fd: int32(e.quit), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if fds[1].Revents != 0 {
			return
		}
		if fds[0].Revents == 0 {
			continue
		}
		n, err := unix.Read(stdin, buf)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return // the input has ended
		}
		c.counted("uart.read_count", uint64(n))
		line = append(line, buf[:n]...)
		for {
			i := bytes.IndexByte(line, '\n')
			if i < 0 && len(line) < maxLine {
				break
			}
			if i < 0 {
				i = len(line) - 1
			}
			c.write(line[:i+1])
			line = append([]byte(nil), line[i+1:]...)
		}
	}
}
