package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
)

// memory is a runtime in memory, and can stop in any mode.
type memory struct {
	*inmem.Runtime
	mode microvm.StopMode
}

func (m *memory) Close() error { return nil }

func (m *memory) StopVMMode(ctx context.Context, id string, mode microvm.StopMode) error {
	m.mode = mode
	return m.StopVM(ctx, id)
}

// call runs the program on a runtime.
func call(t *testing.T, ctx context.Context, rt runtime, args ...string) (code int, out, errOut string) {
	t.Helper()
	in, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var o, e bytes.Buffer
	a := &app{in: in, out: &o, err: &e, open: func(context.Context, *app) (runtime, error) { return rt, nil }}
	code = a.execute(ctx, args)
	return code, o.String(), e.String()
}

func newMemory(t *testing.T, ids ...string) *memory {
	t.Helper()
	m := &memory{Runtime: inmem.New()}
	for _, id := range ids {
		if err := m.CreateVM(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestEachKindOfErrorHasItsExitCode(t *testing.T) {
	t.Parallel()
	for err, code := range map[error]int{
		microvm.ErrVMNotFound:                         exitNotFound,
		microvm.ErrSnapshotNotFound:                   exitNotFound,
		microvm.ErrVMExists:                           exitExists,
		microvm.ErrSnapshotExists:                     exitExists,
		&microvm.TransitionError{}:                    exitState,
		&microvm.FieldError{}:                         exitInvalidSpec,
		microvm.ErrHost:                               exitHost,
		microvm.ErrUnsupported:                        exitHost,
		errors.New("anything"):                        exitFailure,
		&usageError{errors.New("x")}:                  exitUsage,
		&codeError{code: 42}:                          42,
		fmt.Errorf("wrap: %w", microvm.ErrVMNotFound): exitNotFound,
	} {
		if got := exitCode(t.Context(), err); got != code {
			t.Errorf("%v: %d, want %d", err, got, code)
		}
	}
	if got := exitCode(t.Context(), nil); got != 0 {
		t.Errorf("no error: %d", got)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(Interrupted{syscall.SIGTERM})
	if got := exitCode(ctx, context.Canceled); got != 143 {
		t.Errorf("SIGTERM: %d, want 143", got)
	}
}

func TestAnErrorIsOneLineAndItsEvidenceComesWithVerbose(t *testing.T) {
	t.Parallel()
	rt := newMemory(t, "a")
	failed := &microvm.Error{Verb: "start", VMID: "a", Stage: "PUT /actions", Err: microvm.ErrHost, Remedy: "do this", Log: "first\nlast\x1b[31m", Console: "panic"}
	rt.FailNext(inmem.VerbStart, failed, failed, failed)
	code, _, errOut := call(t, t.Context(), rt, "start", "a")
	if code != exitHost || strings.Count(errOut, "\n") != 1 || !strings.Contains(errOut, "do this") || !strings.Contains(errOut, "-v shows") {
		t.Errorf("code %d: %q", code, errOut)
	}
	_, _, errOut = call(t, t.Context(), rt, "-v", "start", "a")
	for _, want := range []string{"    first\n", `    last\x1b[31m` + "\n", "    panic\n"} {
		if !strings.Contains(errOut, want) {
			t.Errorf("no %q in %q", want, errOut)
		}
	}
	_, _, errOut = call(t, t.Context(), rt, "--json", "start", "a")
	var f fault
	if err := json.Unmarshal([]byte(errOut), &f); err != nil || f.Stage != "PUT /actions" || f.Remedy != "do this" || f.Log == "" || f.Code != exitHost {
		t.Errorf("%q: %+v, %v", errOut, f, err)
	}
}

func TestAVerbOnSeveralVMsIsDoneOnAllThatAllowIt(t *testing.T) {
	t.Parallel()
	rt := newMemory(t, "a", "b")
	code, out, errOut := call(t, t.Context(), rt, "start", "a", "absent", "b")
	if code != exitNotFound || out != "a\nb\n" || strings.Count(errOut, "\n") != 1 {
		t.Errorf("code %d, %q, %q", code, out, errOut)
	}
}

func TestStopHandsItsModeOn(t *testing.T) {
	t.Parallel()
	rt := newMemory(t, "a")
	if err := rt.StartVM(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if code, _, errOut := call(t, t.Context(), rt, "stop", "--mode", "hibernate", "a"); code != 0 || rt.mode != microvm.StopModeHibernate {
		t.Errorf("code %d, mode %q: %s", code, rt.mode, errOut)
	}
}

func TestWhatARuntimeCannotDoIsSaid(t *testing.T) {
	t.Parallel()
	code, _, errOut := call(t, t.Context(), newMemory(t, "a"), "logs", "a")
	if code != exitHost || !strings.Contains(errOut, "no console") {
		t.Errorf("code %d: %q", code, errOut)
	}
}
