package firecracker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/image"
)

// evidenceIn is the evidence of an error that must be one of a verb.
func evidenceIn(t *testing.T, what string, err error) *microvm.Error {
	t.Helper()
	var e *microvm.Error
	if !errors.As(err, &e) {
		t.Fatalf("%s: %v is no *microvm.Error", what, err)
	}
	return e
}

func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(bg, 50*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

// Whatever is asked of a VM that has died tells the guest's last words, in a verb
// or outside of one; what is refused to one that lives keeps them to itself.
func TestErrorsAboutAVMThatDiedTellItsLastWords(t *testing.T) {
	t.Parallel()
	var h holds
	c := testConfig(t)
	c.failpoint = h.failpoint
	r := open(t, c)
	start(t, r, "a", microvm.Spec{Vsock: &microvm.Vsock{}, Console: &microvm.Console{Input: true}})
	countsFrom(t, r, "a", 3)
	if e := evidenceIn(t, "start of a running one", r.StartVM(bg, "a")); e.Console != "" || e.Log != "" {
		t.Errorf("a VM that lives: %q", e.Evidence())
	}
	must(t, syscall.Kill(mustGet(t, r, "a").PID, syscall.SIGKILL))
	eventually(t, "it is stopped", func() bool { return mustGet(t, r, "a").Status == microvm.StatusStopped })
	words, err := r.ConsoleTail(bg, "a", 1)
	must(t, err)
	last := strings.TrimSpace(string(words))
	for what, ask := range map[string]func() error{
		"stop":         func() error { return r.StopVM(bg, "a") },
		"dial":         func() error { _, err := r.DialVsock(bg, "a", 52); return err },
		"input":        func() error { _, err := r.ConsoleInput(bg, "a"); return err },
		"read metrics": func() error { _, err := r.ReadMetrics(bg, "a"); return err },
		"wait":         func() error { _, err := r.WaitVM(short(t), "a", microvm.StatusRunning); return err },
		"wait for the lock": func() error {
			entered, release := h.hold("rename.intended")
			done := make(chan error, 1)
			go func() { done <- r.RenameVM(bg, "a", "b") }()
			<-entered
			err := r.StartVM(short(t), "a")
			release()
			must(t, <-done)
			must(t, r.RenameVM(bg, "b", "a"))
			return err
		},
	} {
		e := evidenceIn(t, what, ask())
		if !strings.Contains(e.Console, last) || last == "" {
			t.Errorf("%s: %v\nconsole %q, its last line is %q", what, e, e.Console, last)
		}
		if under.real && e.Log == "" {
			t.Errorf("%s: no log", what)
		}
	}
	if _, err := r.GetVM(bg, "nobody"); evidenceIn(t, "get", err).Evidence() != "" {
		t.Errorf("%v", err)
	}
}

// A guest that lives but does not answer may say why on its console.
func TestADialThatFailsShowsTheGuestsConsole(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	start(t, r, "a", microvm.Spec{Vsock: &microvm.Vsock{}, BootArgs: r.cfg.BootArgs + " fcemu.vsock_after=1h"})
	countsFrom(t, r, "a", 3)
	_, err := r.DialVsock(short(t), "a", 52)
	if e := evidenceIn(t, "dial", err); e.Console == "" || !e.Retry || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, retry %v, console %q", err, e.Retry, e.Console)
	}
	done := make(chan error, 1)
	go func() { _, err := r.DialVsock(bg, "a", 52); done <- err }()
	must(t, syscall.Kill(mustGet(t, r, "a").PID, syscall.SIGKILL))
	err = <-done
	if e := evidenceIn(t, "dial", err); e.Console == "" || e.Retry {
		t.Errorf("%v, retry %v, console %q", err, e.Retry, e.Console)
	}
}

func TestARecordThatCanNotBeReadComesWithTheVMsLastWords(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	start(t, r, "a", microvm.Spec{})
	countsFrom(t, r, "a", 1)
	path := filepath.Join(r.store.Dir("a"), "vm.json")
	good, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte("{"), 0o600))
	_, err = r.GetVM(bg, "a")
	if e := evidenceIn(t, "get", err); !errors.Is(err, microvm.ErrHost) || e.Console == "" {
		t.Errorf("%v, console %q", err, e.Console)
	}
	must(t, os.WriteFile(path, good, 0o600))
}

func TestTheFaultOfAKernelIsReachedThroughTheError(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	text := filepath.Join(t.TempDir(), "text")
	must(t, os.WriteFile(text, []byte("no kernel at all, but some text\n"), 0o600))
	for path, missing := range map[string]bool{text: false, text + ".absent": true} {
		err := r.CreateVMWithSpec(bg, "a", microvm.Spec{Kernel: path})
		var kernel *image.KernelError
		var field *microvm.FieldError
		if !errors.As(err, &kernel) || kernel.Path != path || kernel.Remedy == "" || !errors.As(err, &field) || field.Field != "kernel" || !errors.Is(err, microvm.ErrInvalidSpec) {
			t.Errorf("%s: %v, %+v", path, err, kernel)
		}
		if errors.Is(err, os.ErrNotExist) != missing {
			t.Errorf("%s: not there: %v", path, !missing)
		}
	}
	err := r.CreateVMWithSpec(bg, "a", microvm.Spec{Initrd: text + ".absent"})
	if !errors.Is(err, os.ErrNotExist) || !errors.Is(err, microvm.ErrInvalidSpec) {
		t.Errorf("%v", err)
	}
}
