package vmm

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Field case 37: a record whose pid has been given to a stranger.
func TestNothingIsDoneToAProcessWhoseIdentityDiffers(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	stranger := start(t, w, sleeper())
	real := stranger.Identity()
	for name, id := range map[string]Identity{
		"earlier start":   {real.PID, real.StartTime - 1, real.BootID},
		"later start":     {real.PID, real.StartTime + 1, real.BootID},
		"another boot":    {real.PID, real.StartTime, "00000000-0000-0000-0000-000000000000"},
		"no boot":         {real.PID, real.StartTime, ""},
		"no start":        {real.PID, 0, real.BootID},
		"no pid":          {0, real.StartTime, real.BootID},
		"negative pid":    {-real.PID, real.StartTime, real.BootID},
		"init":            {1, real.StartTime, real.BootID},
		"beyond all pids": {1 << 30, real.StartTime, real.BootID},
		"a thread":        {someThread(t), real.StartTime, real.BootID},
		"nothing":         {},
	} {
		p, err := w.Open(id)
		if !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
	mustLive(t, stranger)
	if p := open(t, w, real); p.PID() != real.PID {
		t.Errorf("the true identity: %v", p.Identity())
	}
}

// someThread returns the id of a thread of this process that is not its first.
func someThread(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if tid, err := strconv.Atoi(e.Name()); err == nil && tid != os.Getpid() {
			return tid
		}
	}
	t.Fatal("this process has one thread only")
	return 0
}

func TestOpenTakesAZombieForDeadAndReapsOurOwn(t *testing.T) {
	t.Parallel()
	c := Command{Path: "/bin/sh", Args: []string{"-c", "exit 0"}}
	child, err := fork(&c, true)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child.pidfd)
	boot, err := BootID()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is a zombie", func() bool { s, err := readStat(child.pid); return err == nil && s.dead() })
	w := newWatcher(t)
	id := Identity{child.pid, child.stat.startTime, boot}
	for range 2 {
		if _, err := w.Open(id); !errors.Is(err, ErrGone) {
			t.Errorf("%v", err)
		}
	}
	if _, err := readStat(child.pid); !errors.Is(err, ErrGone) {
		t.Errorf("not reaped: %v", err)
	}
}

func TestOpenOfADeadProcessIsErrGone(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	p := start(t, w, sleeper())
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	waitDone(t, p)
	if _, err := w.Open(p.Identity()); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
}

func TestStartTimesTellProcessesApart(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	a := start(t, w, sleeper()).Identity()
	time.Sleep(20 * time.Millisecond) // two clock ticks
	b := start(t, w, sleeper()).Identity()
	if a.BootID != b.BootID || a.BootID == "" || a.PID == b.PID || a.StartTime >= b.StartTime {
		t.Errorf("%v, then %v", a, b)
	}
}

const sampleStat = "4711 (a) b (c)) S 1 4711 4711 0 -1 4194560 104 0 0 0 17 4 0 0 20 0 1 0 123456 5623808 224 18446744073709551615"

func TestParseStat(t *testing.T) {
	t.Parallel()
	s, err := parseStat([]byte(sampleStat))
	if err != nil || s != (procStat{state: 'S', parent: 1, startTime: 123456, utime: 17, stime: 4, rss: 224}) {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{
		"", "1", "1 (x)", "1 (x) S", "1 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18",
		strings.Replace(sampleStat, "123456", "-5", 1), strings.Replace(sampleStat, " 17 4 ", " -17 4 ", 1),
		strings.Replace(sampleStat, " S ", " SS ", 1),
	} {
		if s, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, s)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(sampleStat))
	f.Add([]byte("1 (x) S"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err != nil && s != (procStat{}) {
			t.Errorf("%+v with %v", s, err)
		}
	})
}
