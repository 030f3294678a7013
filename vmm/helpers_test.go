package vmm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"
)

const patience = 20 * time.Second // for what should take milliseconds

func newWatcher(t *testing.T) *Watcher {
	t.Helper()
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// start starts a process that is dead at the end of the test.
func start(t *testing.T, w *Watcher, c Command) *Process {
	t.Helper()
	p, err := w.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, err := p.Stop(context.Background(), 0)
		if err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return p
}

func sleeper() Command { return Command{Path: "/bin/sleep", Args: []string{"3600"}} }

// helperCommand runs one of the programs of helper.
func helperCommand(t *testing.T, mode string) Command {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Command{Path: self, Env: []string{helperEnv + "=" + mode}, Stderr: os.Stderr}
}

// startTalking starts a helper and returns what it says first.
func startTalking(t *testing.T, w *Watcher, mode string) (*Process, string) {
	t.Helper()
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := helperCommand(t, mode)
	c.Stdout = wr
	p := start(t, w, c)
	wr.Close()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("helper %q said nothing: %v", mode, err)
	}
	return p, line
}

func decodeIdentity(t *testing.T, line string) Identity {
	t.Helper()
	var id Identity
	if err := json.Unmarshal([]byte(line), &id); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return id
}

func open(t *testing.T, w *Watcher, id Identity) *Process {
	t.Helper()
	p, err := w.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func waitDone(t *testing.T, p *Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatalf("process %d: no death notice in %v", p.PID(), patience)
	}
}

func mustLive(t *testing.T, p *Process) {
	t.Helper()
	stat, err := readStat(p.PID())
	if err != nil || stat.dead() || stat.startTime != p.Identity().StartTime {
		t.Fatalf("process %d should be alive: %+v, %v", p.PID(), stat, err)
	}
}

// eventually waits for something that no event tells.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never in %v: %s", patience, what)
		}
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
