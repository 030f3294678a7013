package firecracker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/console"
	"github.com/tangle-network/microvm/fcapi"
)

// lineCheck looks at a console piece by piece: numbered lines, none of them lost
// or doubled but where a gap was told, and no NUL.
type lineCheck struct {
	half          []byte
	last          uint64
	bytes, missed int64
	lines, gaps   int
	afterGap      bool
}

func (c *lineCheck) add(t *testing.T, k console.Chunk) {
	c.bytes += int64(len(k.Data))
	if k.Missed > 0 {
		c.missed, c.gaps = c.missed+k.Missed, c.gaps+1
		c.half, c.afterGap = nil, true
	}
	if bytes.IndexByte(k.Data, 0) >= 0 {
		t.Errorf("a NUL at %d", k.Offset)
	}
	c.half = append(c.half, k.Data...)
	for {
		line, rest, whole := bytes.Cut(c.half, []byte("\n"))
		if !whole {
			return
		}
		c.half = rest
		n, ok := numberOf(string(line))
		switch {
		case c.afterGap:
			c.afterGap, c.last = false, 0 // it may be the end of a line
			continue
		case !ok:
			continue // what is printed at the beginning
		case c.last != 0 && n != c.last+1:
			t.Errorf("line %d follows line %d", n, c.last)
		}
		c.last = n
		c.lines++
	}
}

// numberOf is the number of a line of the flood.
func numberOf(line string) (uint64, bool) {
	line = strings.TrimSpace(line)
	base, digits := 16, line
	if d, ok := strings.CutPrefix(line, "null guest: tick "); ok {
		base, digits = 10, d
	} else if len(line) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, base, 64)
	return n, err == nil
}

// floodBytes is how much the flooding guest writes: MICROVM_TEST_FLOOD_MIB sets it.
func floodBytes(t *testing.T) int64 {
	if s := os.Getenv("MICROVM_TEST_FLOOD_MIB"); s != "" {
		n, err := strconv.ParseInt(s, 10, 32)
		must(t, err)
		return n << 20
	}
	if under.real {
		return 200 << 10 // each byte is an exit of the guest
	}
	return 6 << 20
}

// Field case 35: a guest that prints without end, the program that looks after it
// is killed, another one takes over. A follower and readers of the last lines look
// on all the time. While nobody reads log, metrics and console, the VMM goes on.
func TestAFloodIsBoundedAndFollowedWhileProgramsComeAndGo(t *testing.T) {
	t.Parallel()
	total := floodBytes(t)
	c := testConfig(t)
	c.ConsoleBytes, c.LogBytes, c.SerialBytesPerSecond = console.MinBound, console.MinBound, -1
	c.BootArgs = "tiny=q reboot=k panic=1 fcemu.console=lines:0:0"
	operator := child{Config: c, Steps: []step{{Verb: "create", ID: "a"}, {Verb: "start", ID: "a"}}, Stay: true}.command(t)
	_, err := operator.StdinPipe() // it stays until then
	must(t, err)
	stdout, err := operator.StdoutPipe()
	must(t, err)
	must(t, operator.Start())
	done := make([]byte, 4)
	if _, err := io.ReadFull(stdout, done); err != nil || string(done) != "done" {
		t.Fatalf("the operator's program says %q, %v", done, err)
	}
	dir := filepath.Join(c.StateDir, "vms", "a")
	path := filepath.Join(dir, consoleFile)

	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	var look sync.WaitGroup
	f, err := console.Follow(path, console.FollowOptions{From: new(int64(0))})
	must(t, err)
	defer f.Close()
	ended := make(chan struct{})
	var followed lineCheck
	var upTo atomic.Int64
	look.Go(func() {
		for {
			k, err := f.Next(ctx)
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				return
			}
			followed.add(t, k)
			upTo.Store(k.Offset + int64(len(k.Data)))
		}
	})
	tails := 0
	look.Go(func() {
		for ctx.Err() == nil {
			b, err := console.Tail(path, 50, c.ConsoleBytes)
			if err != nil {
				t.Error(err)
				return
			}
			var lines lineCheck
			lines.add(t, console.Chunk{Data: b})
			tails++
			select {
			case <-ended:
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	grown := func(to int64) {
		t.Helper()
		var st unix.Stat_t
		for end := time.Now().Add(5 * time.Minute); st.Size < to; time.Sleep(time.Millisecond) {
			must(t, unix.Stat(path, &st))
			if time.Now().After(end) {
				t.Fatalf("the guest has written %d bytes, not %d", st.Size, to)
			}
		}
	}
	grown(total / 3)
	must(t, operator.Process.Kill())
	_ = operator.Wait() // it was killed

	// Nobody reads now. The VMM answers as before, and its guest goes on.
	api := fcapi.New(filepath.Join(dir, runName, apiSocket))
	for range 50 {
		call, cancel := context.WithTimeout(bg, 10*time.Second)
		must(t, api.FlushMetrics(call))
		cancel()
	}
	must(t, api.Close())
	grown(total / 3 * 2)

	r := open(t, c)
	grown(total)
	must(t, r.StopVM(bg, "a"))
	m := mustRead(t, r, "a")
	if m.Trouble != "" || m.Counters["uart.missed_write_count"] != 0 || m.Counters["put_api_requests.actions_count"] < 51 {
		t.Errorf("trouble %q, %d bytes lost, %d actions", m.Trouble, m.Counters["uart.missed_write_count"], m.Counters["put_api_requests.actions_count"])
	}
	var st unix.Stat_t
	for file, bound := range map[string]int64{
		path: c.ConsoleBytes, filepath.Join(dir, runName, logFile): c.LogBytes, filepath.Join(dir, runName, metricsFile): c.LogBytes,
	} {
		eventually(t, file+" is within its bound", func() bool {
			must(t, unix.Stat(file, &st))
			return st.Blocks*512 <= bound
		})
	}
	must(t, unix.Stat(path, &st))
	eventually(t, "the follower has all", func() bool { return upTo.Load() == st.Size })
	close(ended)
	cancel()
	look.Wait()
	t.Logf("%d bytes written, %d on disk; followed %d lines, %d gaps of together %d bytes; %d looks at the last lines",
		st.Size, st.Blocks*512, followed.lines, followed.gaps, followed.missed, tails)
	if followed.bytes+followed.missed != st.Size || followed.lines == 0 {
		t.Errorf("followed %d bytes and told of %d missed ones, of %d", followed.bytes, followed.missed, st.Size)
	}
	if st.Size < total {
		t.Errorf("only %d bytes", st.Size)
	}
	if v := mustGet(t, r, "a"); v.Status != microvm.StatusStopped {
		t.Errorf("it is %s", v.Status)
	}
}
