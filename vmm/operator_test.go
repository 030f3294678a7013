package vmm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Field case 34: Firecracker makes its stdout non-blocking. That must not be a
// descriptor that the operator has too.
func TestWhatAVMMDoesToItsDescriptorsDoesNotReachTheOperators(t *testing.T) {
	t.Parallel()
	flags := func(fd int) int {
		f, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	null := nullFile(t)
	own := []int{0, 1, 2, int(null.Fd())}
	pipe, pipeIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer pipeIn.Close()
	before := make([]int, len(own))
	for i, fd := range own {
		before[i] = flags(fd)
	}
	path := filepath.Join(t.TempDir(), "console.log")
	console, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	c := helperCommand(t, "nonblock")
	c.Stdout, c.Stderr = console, nil
	p := start(t, newWatcher(t), c)
	console.Close()
	eventually(t, "it is ready", func() bool { b, err := os.ReadFile(path); return err == nil && len(b) > 0 })
	for i, fd := range own {
		if now := flags(fd); now != before[i] {
			t.Errorf("descriptor %d: flags %#o, before %#o", fd, now, before[i])
		}
	}
	// firecracker#1875: an input that ends, or is shared, is no input.
	if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/0", p.PID())); err != nil || to != os.DevNull {
		t.Errorf("stdin is %q, %v", to, err)
	}
	mine, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", pipe.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		if to, err := os.Readlink(l); err == nil && to == mine {
			t.Errorf("%s is a pipe of the operator's", l)
		}
	}
}

// A file that Start hands on stays as it is for the operator.
func TestStartChangesNoFlagOfTheFilesThatItIsGiven(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe() // non-blocking, as all that Go's poller watches
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := sleeper()
	c.Stdout = w
	start(t, newWatcher(t), c)
	defer w.Close()
	conn, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = conn.Control(func(fd uintptr) {
		if f, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || f&unix.O_NONBLOCK == 0 {
			t.Errorf("flags %#o, %v", f, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// Field case 4: no signal of the operator's program is taken away or doubled.
func TestTheOperatorsSignalsStayItsOwn(t *testing.T) {
	t.Parallel()
	p := start(t, newWatcher(t), helperCommand(t, "signals"))
	waitDone(t, p)
	if s, known := p.Exit(); !known || s != (ExitStatus{}) {
		t.Errorf("the helper failed: %v", s)
	}
}

func countSignals() error {
	w, err := NewWatcher()
	if err != nil {
		return err
	}
	p, err := w.Start(Command{Path: "/bin/sleep", Args: []string{"3600"}})
	if err != nil {
		return err
	}
	ch := make(chan os.Signal, 16)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM)
	for range 3 {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			if err := syscall.Kill(os.Getpid(), sig); err != nil {
				return err
			}
			if got := <-ch; got != sig {
				return fmt.Errorf("got %v, not %v", got, sig)
			}
		}
	}
	signal.Stop(ch)
	if len(ch) > 0 {
		return fmt.Errorf("%d signals too many", len(ch))
	}
	// Without a handler a SIGINT would now end this program, as it should.
	if signal.Ignored(syscall.SIGINT) || signal.Ignored(syscall.SIGTERM) {
		return errors.New("a signal is ignored")
	}
	if _, err := p.Stop(context.Background(), patience); err != nil {
		return err
	}
	return w.Close()
}

// Field case 2: a service with a very high limit starts many at once.
func TestAnOperatorsHighDescriptorLimitIsNotHandedOn(t *testing.T) {
	t.Parallel()
	var has unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &has); err != nil {
		t.Fatal(err)
	}
	high := min(has.Max, 1<<19)
	if high <= DefaultNoFile {
		t.Skipf("the limit of open files is only %d here", has.Max)
	}
	c := helperCommand(t, fmt.Sprintf("high-limit %d", high))
	c.NoFile = high
	p := start(t, newWatcher(t), c)
	waitDone(t, p)
	if s, known := p.Exit(); !known || s != (ExitStatus{}) {
		t.Errorf("the helper failed: %v", s)
	}
}

func startUnderAHighLimit(limit string) error {
	limits := func(pid int) (string, error) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil {
			return "", err
		}
		for _, line := range bytes.Split(b, []byte("\n")) {
			if rest, ok := bytes.CutPrefix(line, []byte("Max open files")); ok {
				return strings.Join(strings.Fields(string(rest)), " "), nil
			}
		}
		return "", fmt.Errorf("%s", b)
	}
	const low = "2048 2048 files"
	high := limit + " " + limit + " files"
	if own, err := limits(os.Getpid()); err != nil || own != high {
		return fmt.Errorf("own limits %q, not %q: %w", own, high, err)
	}
	w, err := NewWatcher()
	if err != nil {
		return err
	}
	errs := make([]error, 50)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			p, err := w.Start(Command{Path: "/bin/sleep", Args: []string{"3600"}})
			if err != nil {
				errs[i] = err
				return
			}
			got, err := limits(p.PID())
			if err == nil && got != low {
				err = fmt.Errorf("limits %q, not %q", got, low)
			}
			_, stopErr := p.Stop(context.Background(), 0)
			errs[i] = errors.Join(err, stopErr)
		})
	}
	wg.Wait()
	if own, err := limits(os.Getpid()); err != nil || own != high {
		return fmt.Errorf("own limits %q afterwards: %w", own, err)
	}
	return errors.Join(append(errs, w.Close())...)
}

// The jailer with --new-pid-ns exits at once; the VMM is its child, whose pid is
// in a file.
func TestAProcessThatLeftItsParentIsAdoptedByItsPid(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	jailer, line := startTalking(t, w, "leave")
	waitDone(t, jailer)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	id, err := Identify(pid)
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, w, id)
	mustLive(t, p)
	if step, err := p.Stop(context.Background(), patience); step != StepTerm || err != nil {
		t.Errorf("%v, %v", step, err)
	}
	if _, err := Identify(pid); !errors.Is(err, ErrGone) {
		t.Errorf("after its death: %v", err)
	}
}

func TestIdentifyTellsTheLivingFromTheDead(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	p := start(t, w, sleeper())
	if id, err := Identify(p.PID()); err != nil || id != p.Identity() {
		t.Errorf("%v, %v, not %v", id, err, p.Identity())
	}
	c := Command{Path: "/bin/true"}
	zombie, err := fork(&c, true)
	if err != nil {
		t.Fatal(err)
	}
	defer killAndReap(zombie.pidfd)
	eventually(t, "it is a zombie", func() bool { s, err := readStat(zombie.pid); return err == nil && s.dead() })
	for _, pid := range []int{zombie.pid, 0, -1, -p.PID(), 1 << 30} {
		if id, err := Identify(pid); !errors.Is(err, ErrGone) || !id.IsZero() || !strings.Contains(err.Error(), strconv.Itoa(pid)) {
			t.Errorf("%d: %v, %v", pid, id, err)
		}
	}
}

// What a VMM says before it dies is complete in its file when the death is known.
func TestTheLastWordsAreThereWhenTheDeathIsKnown(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	for range 10 {
		dir := t.TempDir()
		f, err := os.Create(filepath.Join(dir, "log"))
		if err != nil {
			t.Fatal(err)
		}
		c := helperCommand(t, "complain")
		c.Stderr = f
		p := start(t, w, c)
		f.Close()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		var exited *ExitedError
		if err := WaitReady(ctx, p, dir, "a.sock"); !errors.As(err, &exited) || exited.Status.Code != 3 {
			t.Errorf("%v", err)
		}
		cancel()
		if b, err := os.ReadFile(f.Name()); err != nil || string(b) != "the kernel image is no kernel\n" {
			t.Errorf("%q, %v", b, err)
		}
	}
}

// A death is known at once: the bound for a VM's state to follow is 100 ms.
func TestDeathsAreNoticedWithinMilliseconds(t *testing.T) {
	w := newWatcher(t)
	quickest := patience // the others waited for a busy machine
	for range 20 {
		p := start(t, w, sleeper())
		begin := time.Now()
		if err := unix.Kill(p.PID(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitDone(t, p)
		quickest = min(quickest, time.Since(begin))
	}
	if quickest > 20*time.Millisecond {
		t.Errorf("the quickest of 20 took %v", quickest)
	}
}
