//go:build linux

package qemuengine

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/fcemu"
)

// serial carries the guest's serial port: what it sends goes to this
// process's stdout or to a file, what comes in on stdin goes to the guest.
// As with Firecracker, stdout becomes non-blocking and what it does not take
// at once is lost; the guest never waits.
type serial struct {
	out    int      // stdout, or own's; negative is none
	own    *os.File // serial_out_path
	limit  *byteBucket
	fromVM *os.File // pipe: QEMU's stdout
	toVM   *os.File // pipe: QEMU's stdin; nil with a file
	wake   *os.File // its write end closes to end the reader of stdin
	wakeR  *os.File
	tty    *unix.Termios // stdin as it was

	stdin    int
	drained  chan struct{}
	fed      chan struct{}
	written  atomic.Uint64
	limited  atomic.Uint64 // beyond the rate limit
	lost     atomic.Uint64 // not taken by the reader
	received atomic.Uint64
}

// newSerial opens the outer ends. A negative stdin or stdout is none. The returned
// files are QEMU's ends; the caller closes them once QEMU has them.
func newSerial(cfg *fcemu.Serial, stdin, stdout int) (s *serial, vmIn, vmOut *os.File, err error) {
	s = &serial{out: stdout, stdin: -1, drained: make(chan struct{}), fed: make(chan struct{})}
	opened := s
	defer func() {
		if err != nil {
			opened.closeFiles()
		}
	}()
	toFile := cfg != nil && cfg.SerialOutPath != nil
	if cfg != nil {
		s.limit = newByteBucket(cfg.RateLimiter)
	}
	switch {
	case toFile:
		// Neither truncated nor appended to, and no input: as the original.
		fd, err := unix.Open(*cfg.SerialOutPath, unix.O_RDWR|unix.O_CREAT|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o666)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("open serial_out_path %q: %w", *cfg.SerialOutPath, err)
		}
		s.out, s.own = fd, os.NewFile(uintptr(fd), *cfg.SerialOutPath)
	case stdout >= 0:
		if err := unix.SetNonblock(stdout, true); err != nil {
			return nil, nil, nil, fmt.Errorf("make stdout non-blocking: %w", err)
		}
	}
	if s.fromVM, vmOut, err = os.Pipe(); err != nil {
		return nil, nil, nil, fmt.Errorf("make a pipe for the serial port: %w", err)
	}
	if toFile || stdin < 0 {
		close(s.fed)
		if vmIn, err = os.Open(os.DevNull); err != nil {
			vmOut.Close()
			return nil, nil, nil, fmt.Errorf("give the serial port no input: %w", err)
		}
		return s, vmIn, vmOut, nil
	}
	if err := s.openInput(stdin, &vmIn); err != nil {
		vmOut.Close()
		return nil, nil, nil, fmt.Errorf("connect stdin with the serial port: %w", err)
	}
	return s, vmIn, vmOut, nil
}

func (s *serial) openInput(stdin int, vmIn **os.File) error {
	var in *os.File
	var err error
	if s.stdin, err = unix.FcntlInt(uintptr(stdin), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		s.stdin = -1
		return err
	}
	if s.wakeR, s.wake, err = os.Pipe(); err != nil {
		return err
	}
	if in, s.toVM, err = os.Pipe(); err != nil {
		return err
	}
	if t, err := unix.IoctlGetTermios(s.stdin, unix.TCGETS); err == nil {
		raw := *t
		raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
		if err := unix.IoctlSetTermios(s.stdin, unix.TCSETS, &raw); err != nil {
			in.Close()
			return fmt.Errorf("set the terminal to raw mode: %w", err)
		}
		s.tty = t
	}
	*vmIn = in
	return nil
}

// run starts to carry. It ends by itself when QEMU has closed its end.
func (s *serial) run() {
	go s.drain()
	if s.toVM != nil {
		go s.feed()
	}
}

// stop ends the input and waits until all output is written.
func (s *serial) stop() {
	if s.wake != nil {
		s.wake.Close()
		s.toVM.Close() // a write in progress ends
	}
	<-s.fed
	<-s.drained
	s.closeFiles()
}

// closeFiles also gives the terminal back.
func (s *serial) closeFiles() {
	if s.tty != nil {
		// Nothing can be done about a terminal that went away.
		_ = unix.IoctlSetTermios(s.stdin, unix.TCSETS, s.tty)
	}
	if s.stdin >= 0 {
		unix.Close(s.stdin)
	}
	for _, f := range []*os.File{s.fromVM, s.toVM, s.wake, s.wakeR} {
		if f != nil {
			f.Close()
		}
	}
	if s.own != nil {
		s.own.Close()
	}
}

func (s *serial) drain() {
	defer close(s.drained)
	buf := make([]byte, 32<<10)
	for {
		n, err := s.fromVM.Read(buf)
		s.emit(buf[:n])
		if err != nil {
			return
		}
	}
}

// emit writes what the limit allows and the reader takes.
func (s *serial) emit(b []byte) {
	allowed := s.limit.take(len(b))
	s.limited.Add(uint64(len(b) - allowed))
	b = b[:allowed]
	if s.out < 0 {
		s.lost.Add(uint64(len(b)))
		return
	}
	for len(b) > 0 {
		n, err := unix.Write(s.out, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			s.lost.Add(uint64(len(b)))
			return
		}
		s.written.Add(uint64(n))
		b = b[n:]
	}
}

// feed reads stdin without ever being stuck in it.
func (s *serial) feed() {
	defer close(s.fed)
	buf := make([]byte, 4<<10)
	wake := int(s.wakeR.Fd())
	for {
		p := []unix.PollFd{{Fd: int32(s.stdin), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		if p[1].Revents != 0 {
			return
		}
		n, err := unix.Read(s.stdin, buf)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		if _, err := s.toVM.Write(buf[:n]); err != nil {
			return
		}
		s.received.Add(uint64(n))
	}
}

// byteBucket is Firecracker's token bucket for the serial port: bytes beyond
// it are dropped. A nil one lets everything through.
type byteBucket struct {
	size, burst, level float64
	perSecond          float64
	last               time.Time
	now                func() time.Time
}

func newByteBucket(b *fcemu.TokenBucket) *byteBucket {
	if b == nil || b.Size == 0 || b.RefillTime == 0 {
		return nil
	}
	l := &byteBucket{
		size: float64(b.Size), level: float64(b.Size), now: time.Now,
		perSecond: float64(b.Size) * 1000 / float64(b.RefillTime),
	}
	if b.OneTimeBurst != nil {
		l.burst = float64(*b.OneTimeBurst)
	}
	l.last = l.now()
	return l
}

// take says how many of n bytes may pass now.
func (l *byteBucket) take(n int) int {
	if l == nil {
		return n
	}
	now := l.now()
	l.level = min(l.size, l.level+now.Sub(l.last).Seconds()*l.perSecond)
	l.last = now
	free := min(float64(n), l.burst)
	l.burst -= free
	paid := float64(int(min(float64(n)-free, l.level)))
	l.level -= paid
	return int(free + paid)
}
