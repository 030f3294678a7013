//go:build linux

package qemuengine

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/tangle-network/microvm/fcemu"
)

func TestByteBucketLetsTheBurstAndThenTheRateThrough(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := newByteBucket(&fcemu.TokenBucket{Size: 100, RefillTime: 1000, OneTimeBurst: ptr(uint64(50))})
	l.now = func() time.Time { return now }
	l.last = now
	for _, c := range []struct {
		after time.Duration
		n     int
		want  int
	}{
		{0, 120, 120}, {0, 40, 30}, {0, 1, 0}, {500 * time.Millisecond, 100, 50}, {time.Hour, 500, 100},
	} {
		now = now.Add(c.after)
		if got := l.take(c.n); got != c.want {
			t.Errorf("%d bytes %v later: %d pass, want %d", c.n, c.after, got, c.want)
		}
	}
	if got := newByteBucket(&fcemu.TokenBucket{RefillTime: 100}).take(1 << 20); got != 1<<20 {
		t.Errorf("a bucket of size 0 lets %d bytes through", got)
	}
}

// What the reader of stdout does not take is lost; the guest never waits.
func TestSerialLosesWhatNobodyReads(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	s, vmIn, vmOut, err := newSerial(nil, -1, int(w.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	vmIn.Close()
	s.run()
	const sent = 1 << 20
	if _, err := vmOut.Write(bytes.Repeat([]byte("x"), sent)); err != nil {
		t.Fatal(err)
	}
	vmOut.Close()
	s.stop()
	if got := s.written.Load() + s.lost.Load(); got != sent || s.lost.Load() == 0 {
		t.Errorf("written %d, lost %d, sent %d", s.written.Load(), s.lost.Load(), sent)
	}
}

// A guest that does not read its serial port holds nobody up.
func TestSerialInputThatNobodyReadsCanBeStopped(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, vmIn, vmOut, err := newSerial(nil, int(r.Fd()), -1)
	if err != nil {
		t.Fatal(err)
	}
	defer vmIn.Close()
	s.run()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Ends with the reader.
		_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<20))
	}()
	for s.received.Load() < 32<<10 {
		time.Sleep(time.Millisecond)
	}
	vmOut.Close()
	s.stop()
	r.Close()
	<-done
	w.Close()
}

func TestSerialPathThatCannotBeOpenedIsAnError(t *testing.T) {
	t.Parallel()
	if _, _, _, err := newSerial(&fcemu.Serial{SerialOutPath: ptr("/nowhere/serial")}, -1, -1); err == nil {
		t.Error("taken")
	}
}
