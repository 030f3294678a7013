package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// FollowOptions say where a Follower begins and when it ends.
type FollowOptions struct {
	// Lines is how many of the last lines come first: 0 means only what is
	// written from now on, < 0 all that there is.
	Lines int
	// From, if not nil, is the offset to begin at instead, such as the end of
	// what an earlier Follower delivered.
	From *int64
	// Done says that the writer is dead: when it is closed, what is left in the
	// file is delivered and then the Follower ends. Nil means never.
	Done <-chan struct{}
}

// Chunk is a piece of the output.
type Chunk struct {
	// Offset of the first byte of Data in all that was ever written to the file.
	Offset int64
	// Missed is how many bytes before Offset were cut off before they could be
	// delivered.
	Missed int64
	// Data is never empty. It belongs to the receiver.
	Data []byte
}

const (
	chunkSize = 64 << 10
	// pollStep is used where no inotify instance is left (a user has 128 by
	// default).
	pollStep = 50 * time.Millisecond
)

// Follower delivers a console file while it grows: every byte once and in order,
// save those that the Keeper cut off before they were read, which are counted.
// Next must not be called concurrently; Close may be called at any time.
type Follower struct {
	file    *os.File
	grown   <-chan struct{} // nil: poll
	stop    func()
	done    <-chan struct{}
	closed  chan struct{}
	once    sync.Once
	off     int64
	buf     []byte
	pending *Chunk // what was there at the beginning
}

// Follow opens a console file to follow. Close the Follower.
func Follow(path string, o FollowOptions) (*Follower, error) {
	f, err := open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	fl := &Follower{file: f, done: o.Done, closed: make(chan struct{})}
	fl.grown, fl.stop = watchFile(f)
	if err := fl.begin(o); err != nil {
		_ = fl.Close()
		return nil, fmt.Errorf("follow %s: %w", path, err)
	}
	return fl, nil
}

func (fl *Follower) begin(o FollowOptions) error {
	if o.From != nil {
		if *o.From < 0 {
			return fmt.Errorf("offset %d to follow from (FollowOptions.From) is negative", *o.From)
		}
		fl.off = *o.From
		return nil
	}
	if o.Lines < 0 {
		first, err := dataFrom(fl.file, 0)
		fl.off = first
		return err
	}
	const most = 16 << 20 // lines have no bound of their own
	b, off, err := tail(fl.file, o.Lines, most)
	if err != nil {
		return err
	}
	fl.off = off
	if len(b) > 0 {
		fl.pending = &Chunk{Offset: off, Data: b}
		fl.off += int64(len(b))
	}
	return nil
}

// Offset returns the offset behind all that Next has delivered.
func (fl *Follower) Offset() int64 {
	if fl.pending != nil {
		return fl.pending.Offset
	}
	return fl.off
}

// Next returns the next piece as soon as there is one. It is io.EOF when the
// writer is dead and everything is delivered, os.ErrClosed after Close, and
// ctx.Err() when ctx ends.
func (fl *Follower) Next(ctx context.Context) (Chunk, error) {
	if c := fl.pending; c != nil {
		fl.pending = nil
		return *c, nil
	}
	for {
		// Asked before the file is read: what a dead writer wrote is in the file.
		dead := isClosed(fl.done)
		if isClosed(fl.closed) {
			return Chunk{}, fmt.Errorf("follow console: %w", os.ErrClosed)
		}
		c, err := fl.read()
		if err != nil && isClosed(fl.closed) {
			err = os.ErrClosed
		}
		if err != nil {
			return Chunk{}, fmt.Errorf("follow console: %w", err)
		}
		if len(c.Data) > 0 {
			return c, nil
		}
		if dead {
			return Chunk{}, io.EOF
		}
		if err := fl.wait(ctx); err != nil {
			return Chunk{}, err
		}
	}
}

func (fl *Follower) wait(ctx context.Context) error {
	var poll <-chan time.Time
	if fl.grown == nil {
		t := time.NewTimer(pollStep)
		defer t.Stop()
		poll = t.C
	}
	select {
	case <-fl.grown:
	case <-poll:
	case <-fl.done:
	case <-fl.closed:
	case <-ctx.Done():
		return fmt.Errorf("follow console: %w", ctx.Err())
	}
	return nil
}

// read returns what there is at the offset, or nothing. The offset moves only
// with what is delivered.
func (fl *Follower) read() (Chunk, error) {
	if fl.buf == nil {
		fl.buf = make([]byte, chunkSize)
	}
	off := fl.off
	for {
		n, err := fl.file.ReadAt(fl.buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return Chunk{}, err
		}
		if n == 0 {
			st, err := stat(fl.file)
			if err != nil {
				return Chunk{}, err
			}
			if st.Size < off {
				return Chunk{}, fmt.Errorf("%s: somebody cut it to %d bytes, at %d", fl.file.Name(), st.Size, off)
			}
			if st.Size == off {
				return Chunk{}, nil
			}
			continue // it has grown since
		}
		at, err := dataFrom(fl.file, off)
		if err != nil {
			return Chunk{}, err
		}
		if at > off { // overtaken: what was read may be a hole
			off = at
			continue
		}
		c := Chunk{Offset: off, Missed: off - fl.off, Data: bytes.Clone(fl.buf[:n])}
		fl.off = off + int64(n)
		return c, nil
	}
}

// Close ends the Follower and releases what it holds.
func (fl *Follower) Close() error {
	var err error
	fl.once.Do(func() {
		close(fl.closed)
		fl.stop()
		err = fl.file.Close()
	})
	return err
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// watchFile reports the growth of a file; nil when there is no inotify to be had.
func watchFile(file *os.File) (grown <-chan struct{}, stop func()) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, func() {}
	}
	f := os.NewFile(uintptr(fd), "inotify")
	err = control(file, func(of int) error {
		_, err := unix.InotifyAddWatch(fd, "/proc/self/fd/"+strconv.Itoa(of), unix.IN_MODIFY)
		return err
	})
	if err != nil {
		_ = f.Close()
		return nil, func() {}
	}
	ch := make(chan struct{}, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, 4096)
		for {
			if _, err := f.Read(buf); err != nil {
				return // closed
			}
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}()
	return ch, func() {
		_ = f.Close()
		<-ended
	}
}
