package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/record"
)

func mustRead(t testing.TB, r *Runtime, id string) microvm.Metrics {
	t.Helper()
	m, err := r.ReadMetrics(bg, id)
	must(t, err)
	return m
}

// notLess fails unless all that only grows has not shrunk.
func notLess(t testing.TB, before, after microvm.Metrics) {
	t.Helper()
	if before.Run != after.Run {
		t.Fatalf("another VMM: %s, then %s", before.Run, after.Run)
	}
	if after.CPUTime < before.CPUTime || after.Time.Before(before.Time) || after.CountersAt.Before(before.CountersAt) {
		t.Errorf("time went back: %+v, then %+v", before, after)
	}
	for name, n := range before.Counters {
		if after.Counters[name] < n {
			t.Errorf("%s was %d and is %d", name, n, after.Counters[name])
		}
	}
}

func TestMetricsAreWrittenWhenTheyAreRead(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	start(t, r, "a", microvm.Spec{})
	countsFrom(t, r, "a", 3)
	first := mustRead(t, r, "a")
	if first.Trouble != "" || first.ResidentBytes < 1<<20 || first.Run == "" || first.CountersAt.IsZero() {
		t.Errorf("%+v", first)
	}
	n := len(counts(t, r, "a"))
	countsFrom(t, r, "a", n+3)
	second := mustRead(t, r, "a")
	notLess(t, first, second)
	typed := fcapi.Totals{Counts: second.Counters, Values: second.Gauges}.Typed()
	if was := first.Counters["uart.write_count"]; typed.Serial.WriteCount < was+3 || was == 0 {
		t.Errorf("the guest has written %d bytes, then %d", was, typed.Serial.WriteCount)
	}
	if _, ok := typed.Drives["rootfs"]; !ok || typed.Put.BootSourceCount != 1 {
		t.Errorf("%+v", typed)
	}
	// A VM that stands still is read as well.
	must(t, r.StopVM(bg, "a"))
	still := mustRead(t, r, "a")
	notLess(t, second, still)
	if still.Trouble != "" || under.real && still.Gauges["latencies_us.pause_vm"] == 0 { // the emulator does not measure it
		t.Errorf("trouble %q, gauges %v", still.Trouble, still.Gauges)
	}
	must(t, r.SnapshotVM(bg, "a", "s"))
	notLess(t, still, mustRead(t, r, "a"))
	clone(t, r, "b", "a", "s")
	if b := mustRead(t, r, "b"); b.Run == still.Run || b.Trouble != "" || b.CountersAt.IsZero() {
		t.Errorf("the clone's: %+v", b)
	}
}

func TestMetricsOfAVMMThatIsStartedAnewBeginAnew(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	start(t, r, "a", microvm.Spec{})
	for range 5 {
		mustRead(t, r, "a")
	}
	before := mustRead(t, r, "a")
	must(t, syscall.Kill(mustGet(t, r, "a").PID, syscall.SIGKILL))
	if _, err := r.WaitVM(bg, "a", microvm.StatusStopped); err != nil {
		t.Fatal(err)
	}
	_, err := r.ReadMetrics(bg, "a")
	var transition *microvm.TransitionError
	if !errors.As(err, &transition) || transition.From != microvm.StatusStopped || !errors.Is(err, microvm.ErrInvalidTransition) {
		t.Errorf("of a dead one: %v", err)
	}
	must(t, r.StartVM(bg, "a"))
	after := mustRead(t, r, "a")
	const flushes = "put_api_requests.actions_count"
	if after.Run == before.Run || before.Counters[flushes] < 6 || after.Counters[flushes] >= before.Counters[flushes] || after.Trouble != "" {
		t.Errorf("%+v\nthen\n%+v", before, after)
	}
}

// A VM that was never started has a process, but no counters; one whose spec does
// not want them has none either.
func TestMetricsWithoutCounters(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	no := false
	must(t, r.CreateVM(bg, "new"))
	start(t, r, "uncounted", microvm.Spec{Metrics: &no})
	for _, id := range []string{"new", "uncounted"} {
		if m := mustRead(t, r, id); m.ResidentBytes == 0 || len(m.Counters) != 0 || !m.CountersAt.IsZero() || m.Trouble != "" {
			t.Errorf("%s: %+v", id, m)
		}
	}
	if _, err := r.ReadMetrics(bg, "nobody"); !errors.Is(err, microvm.ErrVMNotFound) {
		t.Errorf("of nobody: %v", err)
	}
	if _, err := r.ReadMetrics(bg, "../x"); !errors.Is(err, microvm.ErrInvalidSpec) {
		t.Errorf("of no id: %v", err)
	}
	ctx, cancel := context.WithCancel(bg)
	cancel()
	if _, err := r.ReadMetrics(ctx, "new"); !errors.Is(err, context.Canceled) {
		t.Errorf("with a dead context: %v", err)
	}
}

// Every line is summed before the file's head is cut, by one program or by two,
// while the VM is renamed, and with readers at the same time.
func TestMetricsAreSummedBeforeTheyAreCut(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.LogBytes = 64 << 10
	r := open(t, c)
	start(t, r, "a", microvm.Spec{})
	other, err := Open(bg, c)
	must(t, err)
	defer func() { must(t, other.Close()) }()
	const perReader = 60
	begin := mustRead(t, r, "a")
	var wg sync.WaitGroup
	for i, rt := range []*Runtime{r, other} {
		wg.Go(func() {
			last, id := begin, "a"
			for n := range perReader {
				m, err := rt.ReadMetrics(bg, id)
				if errors.Is(err, microvm.ErrVMNotFound) {
					id = "b"
					m, err = rt.ReadMetrics(bg, id)
				}
				if err != nil || m.Trouble != "" {
					t.Errorf("reader %d: %v, %q", i, err, m.Trouble)
					return
				}
				notLess(t, last, m)
				last = m
				if i == 0 && n == perReader/2 {
					if err := rt.RenameVM(bg, "a", "b"); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	dir := filepath.Join(r.store.Dir("b"), runName)
	var st unix.Stat_t
	more := uint64(0)
	eventually(t, "the file is cut", func() bool {
		must(t, unix.Stat(filepath.Join(dir, metricsFile), &st))
		if st.Blocks*512 <= c.LogBytes {
			return true
		}
		more++
		mustRead(t, r, "b") // a cut that found the lock taken waits for the next line
		return false
	})
	if st.Size < 2*perReader*5000 {
		t.Fatalf("%d bytes of metrics were written: not enough to be cut", st.Size)
	}
	m := mustRead(t, r, "b")
	// InstanceStart, and a flush for each reading.
	if got, want := m.Counters["put_api_requests.actions_count"], 1+1+2*perReader+more+1; got < want-1 || got > want {
		t.Errorf("%d actions counted, not %d", got, want)
	}
}

// The VMM's answer is waited for a limited time.
func TestMetricsOfAVMMThatDoesNotAnswerAreTheLastOnes(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	start(t, r, "a", microvm.Spec{})
	before := mustRead(t, r, "a")
	pid := mustGet(t, r, "a").PID
	c.APITimeout = 50 * time.Millisecond
	hasty, err := Open(bg, c)
	must(t, err)
	defer func() { must(t, hasty.Close()) }()
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	defer func() { must(t, syscall.Kill(pid, syscall.SIGCONT)) }()
	// The signal's way to each thread takes a moment, in which one may still answer.
	eventually(t, "it stands still", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		must(t, err)
		return len(threads) > 0 && !slices.ContainsFunc(threads, func(path string) bool {
			b, err := os.ReadFile(path)
			return err == nil && !strings.Contains(string(b), ") T ")
		})
	})
	m := mustRead(t, hasty, "a")
	notLess(t, before, m)
	if !strings.Contains(m.Trouble, "did not write its counters") || m.CountersAt.Before(before.CountersAt) || m.ResidentBytes == 0 {
		t.Errorf("%+v", m)
	}
	ctx, cancel := context.WithTimeout(bg, 10*time.Millisecond)
	defer cancel()
	if _, err := r.ReadMetrics(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a context that ends: %v", err)
	}
}

// The layouts of the releases differ; what one does not have is not missed.
func TestMetricsOfEachRelease(t *testing.T) {
	t.Parallel()
	if under.real {
		t.Skip("other releases than the real one are emulated, and MICROVM_TEST_FIRECRACKER is set")
	}
	for _, release := range []string{"1.7.0", "1.10.1", "1.13.2", "1.14.0", "1.16.1", "1.17.0"} {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			c := testConfig(t)
			c.Env = append(c.Env, "FCEMU_EMULATE_VERSION="+release)
			r := open(t, c)
			start(t, r, "a", microvm.Spec{})
			first, second := mustRead(t, r, "a"), mustRead(t, r, "a")
			notLess(t, first, second)
			_, ok := second.Counters["pmem.event_fails"]
			if v, err := fcapi.ParseVersion(release); err != nil || ok != v.AtLeast(fcapi.Version{Major: 1, Minor: 14}) {
				t.Errorf("pmem counted: %v, %v", ok, err)
			}
			if second.Trouble != "" || second.Counters["put_api_requests.actions_count"] < 2 {
				t.Errorf("%+v", second)
			}
		})
	}
}

// handmade is a run directory with metrics of the test's own.
type handmade struct {
	t   *testing.T
	dir *os.File
	p   record.Process
}

func newHandmade(t *testing.T) handmade {
	t.Helper()
	dir, err := os.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { dir.Close() })
	return handmade{t, dir, record.Process{PID: 1, StartTime: 2, BootID: "3"}}
}

func (h handmade) path(name string) string { return filepath.Join(h.dir.Name(), name) }

func (h handmade) append(text string) {
	h.t.Helper()
	f, err := os.OpenFile(h.path(metricsFile), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	must(h.t, err)
	_, err = f.WriteString(text)
	must(h.t, errors.Join(err, f.Close()))
}

func (h handmade) sum(keep bool) *metricsSum {
	h.t.Helper()
	s, err := sumMetrics(bg, h.dir, identity(&h.p), time.Minute, keep)
	must(h.t, err)
	return s
}

func (h handmade) punch(upTo int64) {
	h.t.Helper()
	f, err := os.OpenFile(h.path(metricsFile), os.O_WRONLY, 0)
	must(h.t, err)
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, upTo)
	must(h.t, errors.Join(err, f.Close()))
}

const line = `{"a":{"n":1}}` + "\n"

func TestHalfALineOfMetricsWaitsForItsEnd(t *testing.T) {
	t.Parallel()
	h := newHandmade(t)
	if s := h.sum(false); len(s.Counts) != 0 || s.Offset != 0 {
		t.Errorf("of no file: %+v", s)
	}
	h.append(line + line[:5])
	for _, keep := range []bool{false, true, true, false} {
		if s := h.sum(keep); s.Counts["a.n"] != 1 || s.Offset != int64(len(line)) || s.Broken != 0 {
			t.Errorf("%+v", s)
		}
	}
	h.append(line[5:])
	if s := h.sum(true); s.Counts["a.n"] != 2 || s.Offset != int64(2*len(line)) {
		t.Errorf("%+v", s)
	}
}

func TestGarbledMetricsAreToldAndPassedOver(t *testing.T) {
	t.Parallel()
	h := newHandmade(t)
	h.append(line + line[:5] + line + "\x00\xff\n" + line + strings.Repeat("x", fcapi.MaxMetricsLine+100) + "\n" + line)
	h.sum(true) // a step
	s := h.sum(true)
	var m microvm.Metrics
	if trouble := s.put(&m); m.Counters["a.n"] != 3 || s.Broken != 3 || len(trouble) != 1 || !strings.Contains(trouble[0], "3 lines") {
		t.Errorf("%+v, %q", s, trouble)
	}
	// A sum that is garbled itself, or another process's, is begun anew.
	must(t, os.WriteFile(h.path(sumFile), []byte("{"), 0o600))
	if s := h.sum(false); s.Counts["a.n"] != 3 {
		t.Errorf("%+v", s)
	}
	h.p.PID++
	if s := h.sum(false); s.Counts["a.n"] != 3 || s.Process.PID != 2 {
		t.Errorf("%+v", s)
	}
}

func TestMetricsThatWereCutUnreadAreTold(t *testing.T) {
	t.Parallel()
	h := newHandmade(t)
	const lines = 2000
	h.append(strings.Repeat(line, lines))
	h.punch(8192)
	s := h.sum(true)
	whole := lines - (8192+len(line)-1)/len(line)
	if s.Counts["a.n"] != uint64(whole) || s.Missed != 8192 || s.Broken != 0 {
		t.Errorf("%d of %d, %+v", s.Counts["a.n"], whole, s)
	}
	h.punch(16384)
	if s := h.sum(true); s.Counts["a.n"] != uint64(whole) || s.Missed != 8192 {
		t.Errorf("what was summed before is gone: %+v", s)
	}
	// All of it is gone.
	fresh := newHandmade(t)
	fresh.append(strings.Repeat(line, 4096/len(line)*len(line)))
	fresh.punch(1 << 20)
	if s := fresh.sum(true); len(s.Counts) != 0 || s.Missed == 0 || s.Broken != 0 {
		t.Errorf("%+v", s)
	}
}

// The work before a cut is bounded, and goes on where it ended.
func TestMetricsAreSummedStepByStepBeforeACut(t *testing.T) {
	t.Parallel()
	h := newHandmade(t)
	big := fmt.Sprintf(`{"a":{"n":1},"pad":%q}`+"\n", strings.Repeat("x", 10000))
	h.append(strings.Repeat(big, 300))
	last := int64(0)
	for range 3 {
		s := h.sum(true)
		if step := s.Offset - last; step < sumStep && s.Offset != int64(300*len(big)) || step > sumStep+int64(len(big)) || step == 0 {
			t.Errorf("a step of %d bytes", step)
		}
		last = s.Offset
	}
	if s := h.sum(false); s.Counts["a.n"] != 300 {
		t.Errorf("%+v", s)
	}
}

// The VMM works in the run directory: what it puts there is not trusted.
func TestMetricsFilesThatAreNone(t *testing.T) {
	t.Parallel()
	for what, put := range map[string]func(path string) error{
		"a link":      func(path string) error { return os.Symlink("/etc/passwd", path) },
		"a FIFO":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		for _, name := range []string{metricsFile, sumFile} {
			h := newHandmade(t)
			if name == sumFile {
				h.append(line)
			}
			must(t, put(h.path(name)))
			if s, err := sumMetrics(bg, h.dir, identity(&h.p), time.Minute, true); err == nil {
				t.Errorf("%s in place of %s: %+v", what, name, s)
			}
		}
	}
	// Somebody holds the lock for ever.
	h := newHandmade(t)
	h.append(line)
	f, err := os.Open(h.path(metricsFile))
	must(t, err)
	defer f.Close()
	must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	if _, err := sumMetrics(bg, h.dir, identity(&h.p), 5*time.Millisecond, true); !errors.Is(err, errSumBusy) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithTimeout(bg, 5*time.Millisecond)
	defer cancel()
	if _, err := sumMetrics(ctx, h.dir, identity(&h.p), time.Minute, true); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
