//go:build linux

package console

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func follow(t *testing.T, path string, o FollowOptions) *Follower {
	t.Helper()
	fl, err := Follow(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fl.Close(); err != nil {
			t.Error(err)
		}
	})
	return fl
}

func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// readAll follows until the end.
func readAll(t *testing.T, fl *Follower) string {
	t.Helper()
	var all []byte
	for {
		c, err := fl.Next(patient(t))
		if errors.Is(err, io.EOF) {
			return string(all)
		}
		if err != nil {
			t.Fatal(err)
		}
		if c.Missed != 0 || len(c.Data) == 0 {
			t.Fatalf("%+v", c)
		}
		all = append(all, c.Data...)
	}
}

var dead = func() <-chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}()

func TestFollowBeginsWhereItIsTold(t *testing.T) {
	t.Parallel()
	path, vmm := newConsole(t)
	write(t, vmm, []byte("a\nb\nc\n"))
	for _, tc := range []struct {
		o    FollowOptions
		want string
	}{
		{FollowOptions{Lines: -1}, "a\nb\nc\n"},
		{FollowOptions{Lines: 2}, "b\nc\n"},
		{FollowOptions{Lines: 0}, ""},
		{FollowOptions{From: new(int64(0))}, "a\nb\nc\n"},
		{FollowOptions{From: new(int64(3)), Lines: 1}, "\nc\n"},
		{FollowOptions{From: new(int64(6))}, ""},
	} {
		tc.o.Done = dead
		if got := readAll(t, follow(t, path, tc.o)); got != tc.want {
			t.Errorf("%+v: %q, not %q", tc.o, got, tc.want)
		}
	}
	if _, err := Follow(path, FollowOptions{From: new(int64(-1))}); err == nil || !strings.Contains(err.Error(), "-1") {
		t.Errorf("negative offset: %v", err)
	}
}

func TestWhatIsWrittenLaterArrives(t *testing.T) {
	t.Parallel()
	path, vmm := newConsole(t)
	write(t, vmm, []byte("before\n"))
	fl := follow(t, path, FollowOptions{Lines: 1})
	poller := follow(t, path, FollowOptions{Lines: 1})
	poller.stop() // as where no inotify instance is left
	poller.stop, poller.grown = func() {}, nil
	for _, s := range []string{"before\n", "one", " line\n", "\x00\xff\n"} {
		if s != "before\n" {
			write(t, vmm, []byte(s))
		}
		for name, fl := range map[string]*Follower{"by inotify": fl, "by time": poller} {
			c, err := fl.Next(patient(t))
			if err != nil || string(c.Data) != s || c.Offset+int64(len(s)) != fl.Offset() {
				t.Errorf("%s: %+v, %v, not %q", name, c, err, s)
			}
		}
	}
}

// expectStream checks a chunk against what belongs at its offset, and that it
// goes on where the one before ended.
func expectStream(t *testing.T, c Chunk, at int64) (next int64) {
	t.Helper()
	if c.Offset-c.Missed != at {
		t.Fatalf("a chunk of %d bytes at %d, missed %d: the one before ended at %d", len(c.Data), c.Offset, c.Missed, at)
	}
	if !bytes.Equal(c.Data, numbered(c.Offset, len(c.Data))) {
		t.Fatalf("wrong bytes at %d: %.60q", c.Offset, c.Data)
	}
	return c.Offset + int64(len(c.Data))
}

// Field case 35: a follower that keeps up gets every byte once while the head is
// cut behind it many times, and while one Keeper hands over to the next.
func TestAFollowerThatKeepsUpLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	const total, step = 2 << 20, 8 << 10
	path, vmm := newConsole(t)
	fl := follow(t, path, FollowOptions{Lines: -1})
	var k *Keeper
	at := int64(0)
	for off := int64(0); off < total; off += step {
		if off%(total/4) == 0 {
			if k != nil {
				if err := k.Close(); err != nil {
					t.Error(err)
				}
			}
			k = newKeeper(t)
			keep(t, k, path, MinBound)
		}
		write(t, vmm, numbered(off, step))
		for at < off+step {
			c, err := fl.Next(patient(t))
			if err != nil {
				t.Fatal(err)
			}
			if c.Missed != 0 {
				t.Fatalf("%d bytes missed at %d", c.Missed, at)
			}
			at = expectStream(t, c, at)
		}
	}
	if n := onDisk(t, vmm); n > total/2 {
		t.Errorf("%d bytes on disk: the head was not cut", n)
	}
}

func TestAFollowerThatIsOvertakenKnowsHowMuchItMissed(t *testing.T) {
	t.Parallel()
	const total = 4 << 20
	path, vmm := newConsole(t)
	keep(t, newKeeper(t), path, MinBound)
	done := make(chan struct{})
	var followers sync.WaitGroup
	for i := range 3 {
		fl := follow(t, path, FollowOptions{Lines: -1, Done: done})
		followers.Go(func() {
			at, missed := int64(0), int64(0)
			for {
				c, err := fl.Next(context.Background())
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
				if c.Offset-c.Missed != at || !bytes.Equal(c.Data, numbered(c.Offset, len(c.Data))) {
					t.Errorf("follower %d: at %d: a chunk at %d, missed %d, %.40q", i, at, c.Offset, c.Missed, c.Data)
					return
				}
				at = c.Offset + int64(len(c.Data))
				missed += c.Missed
				time.Sleep(time.Duration(rand.IntN(i*20+1)) * time.Millisecond)
			}
			if at != total {
				t.Errorf("follower %d ended at %d of %d", i, at, total)
			}
			t.Logf("follower %d missed %d of %d bytes", i, missed, total)
		})
	}
	for off := int64(0); off < total; off += 1 << 10 {
		write(t, vmm, numbered(off, 1<<10))
	}
	close(done)
	followers.Wait()
}

func TestAFollowerThatComesLateBeginsBehindTheHole(t *testing.T) {
	t.Parallel()
	const total = 1 << 20
	path, vmm := newConsole(t)
	write(t, vmm, numbered(0, total))
	fl := follow(t, path, FollowOptions{From: new(int64(0)), Done: dead})
	if _, err := Trim(path, 100_000); err != nil {
		t.Fatal(err)
	}
	c, err := fl.Next(patient(t))
	if err != nil || c.Missed == 0 || c.Missed != c.Offset {
		t.Fatalf("offset %d, missed %d, %v", c.Offset, c.Missed, err)
	}
	at := expectStream(t, c, 0)
	for at < total {
		c, err := fl.Next(patient(t))
		if err != nil || c.Missed != 0 {
			t.Fatalf("offset %d, missed %d, %v", c.Offset, c.Missed, err)
		}
		at = expectStream(t, c, at)
	}
	// From the first byte that is left on, nothing is missed.
	all := follow(t, path, FollowOptions{Lines: -1, Done: dead})
	if c, err := all.Next(patient(t)); err != nil || c.Missed != 0 || c.Offset == 0 {
		t.Errorf("offset %d, missed %d, %v", c.Offset, c.Missed, err)
	}
}

// All that the file holds may be cut before a follower comes to read.
func TestAFollowerOfAFileThatIsOneHoleWaitsAtItsEnd(t *testing.T) {
	t.Parallel()
	path, vmm := newConsole(t)
	write(t, vmm, numbered(0, 1<<20))
	fl := follow(t, path, FollowOptions{From: new(int64(0))})
	if _, err := Trim(path, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if c, err := fl.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v", c, err)
	}
	write(t, vmm, []byte("x"))
	if c, err := fl.Next(patient(t)); err != nil || string(c.Data) != "x" || c.Missed != 1<<20 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestAFollowerEnds(t *testing.T) {
	t.Parallel()
	path, vmm := newConsole(t)

	ctx, cancel := context.WithCancel(t.Context())
	fl := follow(t, path, FollowOptions{})
	time.AfterFunc(5*time.Millisecond, cancel)
	if c, err := fl.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with its context: %+v, %v", c, err)
	}
	write(t, vmm, []byte("later\n"))
	if c, err := fl.Next(patient(t)); err != nil || string(c.Data) != "later\n" {
		t.Errorf("with the next context: %+v, %v", c, err)
	}

	time.AfterFunc(5*time.Millisecond, func() { fl.Close() })
	if c, err := fl.Next(patient(t)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("with Close: %+v, %v", c, err)
	}
	write(t, vmm, []byte("more\n"))
	if c, err := fl.Next(patient(t)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %+v, %v", c, err)
	}

	// What a dead writer has written comes first.
	done := make(chan struct{})
	fl = follow(t, path, FollowOptions{Done: done})
	time.AfterFunc(5*time.Millisecond, func() {
		if _, err := vmm.Write([]byte("last words\n")); err != nil {
			t.Error(err)
		}
		close(done)
	})
	if got := readAll(t, fl); got != "last words\n" {
		t.Errorf("with the writer: %q", got)
	}
}

// The name may come to mean another file, as when a VM is destroyed and made
// again. The follower stays with the old one.
func TestAFollowerStaysWithItsFile(t *testing.T) {
	t.Parallel()
	path, vmm := newConsole(t)
	fl := follow(t, path, FollowOptions{})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	write(t, other, []byte("of another VM\n"))
	write(t, vmm, []byte("of this VM\n"))
	if c, err := fl.Next(patient(t)); err != nil || string(c.Data) != "of this VM\n" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestAFileThatWasCutShortIsAnError(t *testing.T) {
	t.Parallel()
	path, vmm := newConsole(t)
	write(t, vmm, numbered(0, 1000))
	fl := follow(t, path, FollowOptions{})
	if err := os.Truncate(path, 10); err != nil {
		t.Fatal(err)
	}
	if c, err := fl.Next(patient(t)); err == nil || !strings.Contains(err.Error(), "10 bytes") {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestFollowersLeaveNothingOpen(t *testing.T) {
	path, vmm := newConsole(t)
	before := openDescriptors(t)
	var wg sync.WaitGroup
	for i := range 20 {
		fl, err := Follow(path, FollowOptions{Lines: -1})
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for {
				if _, err := fl.Next(context.Background()); err != nil {
					if !errors.Is(err, os.ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
		wg.Go(func() {
			time.Sleep(time.Duration(i) * time.Millisecond)
			for range 2 {
				if err := fl.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for off := int64(0); off < 20<<10; off += 1 << 10 {
		write(t, vmm, numbered(off, 1<<10))
		time.Sleep(time.Millisecond)
	}
	wg.Wait()
	eventually(t, "as many descriptors as before", func() bool { return openDescriptors(t) <= before })
}

func TestAReaderMarksWhatIsMissing(t *testing.T) {
	t.Parallel()
	path, vmm := newConsole(t)
	write(t, vmm, []byte("a line\nhalf a "))
	done := make(chan struct{})
	r := NewReader(t.Context(), follow(t, path, FollowOptions{Lines: -1, Done: done}))
	buf := make([]byte, 5) // smaller than the chunks
	var got []byte
	for len(got) < 14 {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:n]...)
	}
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Errorf("empty read: %d, %v", n, err)
	}
	write(t, vmm, bytes.Repeat([]byte("x"), 1<<20-14))
	if _, err := Trim(path, 0); err != nil {
		t.Fatal(err)
	}
	write(t, vmm, []byte("the end\n"))
	close(done)
	rest, err := io.ReadAll(r)
	got = append(got, rest...)
	want := "a line\nhalf a \n[microvm: 1048562 bytes of console output were cut off here]\nthe end\n"
	if err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAReaderEndsWithItsContextAndWithClose(t *testing.T) {
	t.Parallel()
	path, _ := newConsole(t)
	ctx, cancel := context.WithCancel(t.Context())
	r := NewReader(ctx, follow(t, path, FollowOptions{}))
	time.AfterFunc(5*time.Millisecond, cancel)
	if n, err := r.Read(make([]byte, 10)); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("context: %d, %v", n, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	r = NewReader(t.Context(), follow(t, path, FollowOptions{}))
	time.AfterFunc(5*time.Millisecond, func() { r.Close() })
	if n, err := r.Read(make([]byte, 10)); n != 0 || !errors.Is(err, os.ErrClosed) && !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %d, %v", n, err)
	}
}
