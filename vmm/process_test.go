package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestExitTellsHowAChildEnded(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	for _, tc := range []struct {
		script string
		want   ExitStatus
		text   string
	}{
		{"exit 0", ExitStatus{}, "exit code 0"},
		{"exit 3", ExitStatus{Code: 3}, "exit code 3"},
		{"exit 255", ExitStatus{Code: 255}, "exit code 255"},
		{"kill -TERM $$", ExitStatus{Signal: syscall.SIGTERM}, "SIGTERM"},
		{"kill -KILL $$", ExitStatus{Signal: syscall.SIGKILL}, "SIGKILL"},
		{"ulimit -c 0; kill -SEGV $$", ExitStatus{Signal: syscall.SIGSEGV}, "SIGSEGV"},
	} {
		p := start(t, w, Command{Path: "/bin/sh", Args: []string{"-c", tc.script}})
		waitDone(t, p)
		got, known := p.Exit()
		if !known || got != tc.want || got.String() != tc.text {
			t.Errorf("%s: %v, %v", tc.script, got, known)
		}
		if err := p.Signal(0); !errors.Is(err, ErrGone) {
			t.Errorf("%s: signal after death: %v", tc.script, err)
		}
		if err := p.Kill(); !errors.Is(err, ErrGone) {
			t.Errorf("%s: kill after death: %v", tc.script, err)
		}
		if _, err := p.WorksIn("/"); !errors.Is(err, ErrGone) {
			t.Errorf("%s: WorksIn after death: %v", tc.script, err)
		}
		if step, err := p.Stop(context.Background(), time.Hour); step != StepNone || err != nil {
			t.Errorf("%s: stop after death: %v, %v", tc.script, step, err)
		}
		if _, err := os.Stat("/proc/" + strconv.Itoa(p.PID())); err == nil {
			t.Errorf("%s: not reaped", tc.script)
		}
	}
}

func TestALivingProcessHasNoExitStatus(t *testing.T) {
	t.Parallel()
	p := start(t, newWatcher(t), sleeper())
	if s, known := p.Exit(); known {
		t.Errorf("%v", s)
	}
	select {
	case <-p.Done():
		t.Error("done")
	default:
	}
}

func TestStopSaysWhichStepWorked(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	polite := start(t, w, sleeper())
	if step, err := polite.Stop(context.Background(), patience); step != StepTerm || err != nil {
		t.Errorf("polite: %v, %v", step, err)
	}
	slow, _ := startTalking(t, w, "slow-term")
	begin := time.Now()
	if step, err := slow.Stop(context.Background(), patience); step != StepTerm || err != nil || time.Since(begin) > patience/2 {
		t.Errorf("slow: %v, %v after %v", step, err, time.Since(begin))
	}
	deaf, _ := startTalking(t, w, "ignore-term")
	if step, err := deaf.Stop(context.Background(), 20*time.Millisecond); step != StepKill || err != nil {
		t.Errorf("deaf: %v, %v", step, err)
	}
	frozen := start(t, w, sleeper())
	if err := frozen.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is frozen", func() bool { s, err := readStat(frozen.PID()); return err == nil && s.state == 'T' })
	if step, err := frozen.Stop(context.Background(), 20*time.Millisecond); step != StepKill || err != nil {
		t.Errorf("frozen: %v, %v", step, err)
	}
	if s, known := frozen.Exit(); !known || s.Signal != syscall.SIGKILL {
		t.Errorf("frozen: %v, %v", s, known)
	}
	atOnce := start(t, w, sleeper())
	if step, err := atOnce.Stop(context.Background(), 0); step != StepKill || err != nil {
		t.Errorf("without grace: %v, %v", step, err)
	}
}

func TestACancelledStopLeavesTheProcessForTheNextOne(t *testing.T) {
	t.Parallel()
	p, _ := startTalking(t, newWatcher(t), "ignore-term")
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.Stop(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), strconv.Itoa(p.PID())) {
		t.Errorf("%v", err)
	}
	mustLive(t, p)
	if step, err := p.Stop(context.Background(), 0); step != StepKill || err != nil {
		t.Errorf("the next one: %v, %v", step, err)
	}
}

func TestADeathTakesTheProcessGroupAlong(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Process) error{
		"killed from outside": func(p *Process) error { return unix.Kill(p.PID(), unix.SIGKILL) },
		"Kill":                (*Process).Kill,
		"SIGTERM":             func(p *Process) error { return p.Signal(syscall.SIGTERM) },
	} {
		w := newWatcher(t)
		leader, line := startTalking(t, w, "family")
		member := open(t, w, decodeIdentity(t, line))
		if err := end(leader); err != nil {
			t.Fatal(err)
		}
		waitDone(t, leader)
		select {
		case <-member.Done():
		case <-time.After(patience):
			t.Errorf("%s: a member of the group lives on", name)
			member.Kill()
		}
	}
}

func TestAnAdoptedProcessIsWatchedLikeAChild(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	operator, line := startTalking(t, w, "operator")
	p := open(t, w, decodeIdentity(t, line))
	if _, known := p.Exit(); known {
		t.Error("exit status of a living process")
	}
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	waitDone(t, p)
	if d := time.Since(begin); d > patience/2 {
		t.Errorf("the death was noticed after %v", d)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, ErrGone) {
		t.Errorf("signal after death: %v", err)
	}
	mustLive(t, operator)
	if !kernelTellsExitOfStrangers(t) {
		t.Log("this kernel does not tell the exit status of a stranger's child (Linux 6.15 does)")
		return
	}
	eventually(t, "the exit status is known", func() bool { _, known := p.Exit(); return known })
	if s, _ := p.Exit(); s.Signal != syscall.SIGKILL {
		t.Errorf("exit status %v", s)
	}
	eventually(t, "the descriptor is closed", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.pidfd < 0
	})
}

// kernelTellsExitOfStrangers asks about a child that was reaped before.
func kernelTellsExitOfStrangers(t *testing.T) bool {
	t.Helper()
	c := Command{Path: "/bin/sh", Args: []string{"-c", "exit 5"}}
	child, err := fork(&c, true)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child.pidfd)
	if err := unix.Waitid(unix.P_PIDFD, child.pidfd, nil, unix.WEXITED, nil); err != nil {
		t.Fatal(err)
	}
	s, known := exitInfo(child.pidfd)
	if known && s.Code != 5 {
		t.Errorf("exit status %v", s)
	}
	return known
}

func TestAProcessOutlivesItsOperator(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	operator, line := startTalking(t, w, "operator")
	if err := operator.Kill(); err != nil {
		t.Fatal(err)
	}
	waitDone(t, operator)
	p := open(t, w, decodeIdentity(t, line))
	mustLive(t, p)
	if _, err := p.Stop(context.Background(), 0); err != nil {
		t.Error(err)
	}
}

func TestTwoHundredAtOnce(t *testing.T) {
	w := newWatcher(t)
	before := openDescriptors(t)
	procs := make([]*Process, 200)
	var wg sync.WaitGroup
	for i := range procs {
		wg.Go(func() {
			p, err := w.Start(sleeper())
			if err != nil {
				t.Error(err)
				return
			}
			procs[i] = p
		})
	}
	wg.Wait()
	for i, p := range procs {
		if p == nil {
			continue
		}
		wg.Go(func() {
			var err error
			switch i % 3 {
			case 0:
				_, err = p.Stop(context.Background(), patience)
			case 1:
				err = p.Kill()
			default:
				err = p.Signal(syscall.SIGTERM)
			}
			if err != nil {
				t.Error(err)
			}
			waitDoneNoFail(p)
			if _, known := p.Exit(); !known {
				t.Errorf("process %d: exit status unknown", p.PID())
			}
		})
	}
	wg.Wait()
	eventually(t, fmt.Sprintf("as many descriptors as before, %d", before), func() bool { return openDescriptors(t) == before })
}

func waitDoneNoFail(p *Process) {
	select {
	case <-p.Done():
	case <-time.After(patience):
	}
}

func TestCloseLeavesProcessesToTheNextWatcher(t *testing.T) {
	t.Parallel()
	first, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	p, err := first.Start(sleeper())
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	mustLive(t, p)
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrClosed) {
		t.Errorf("signal through a closed watcher: %v", err)
	}
	if _, err := first.Start(sleeper()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("start by a closed watcher: %v", err)
	}
	if _, err := first.Open(p.Identity()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("open by a closed watcher: %v", err)
	}
	second := newWatcher(t)
	again := open(t, second, p.Identity())
	if err := again.Kill(); err != nil {
		t.Fatal(err)
	}
	waitDone(t, again)
	if s, known := again.Exit(); !known || s.Signal != syscall.SIGKILL {
		t.Errorf("a child of this program: %v, %v", s, known)
	}
	select {
	case <-p.Done():
		t.Error("a closed watcher reported a death")
	default:
	}
}

func TestProcessCloseEndsTheWatchOnly(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	p, err := w.Start(sleeper())
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	p.Close()
	mustLive(t, p)
	again := open(t, w, p.Identity())
	if step, err := again.Stop(context.Background(), 0); step != StepKill || err != nil {
		t.Errorf("%v, %v", step, err)
	}
}

func TestAProgramThatReapsAllItsChildrenIsNoHindrance(t *testing.T) {
	t.Parallel()
	p := start(t, newWatcher(t), helperCommand(t, "foreign-reaper"))
	waitDone(t, p)
	if s, known := p.Exit(); !known || s != (ExitStatus{}) {
		t.Errorf("the helper failed: %v", s)
	}
}
