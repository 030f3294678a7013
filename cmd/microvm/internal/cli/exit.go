package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"

	"github.com/tangle-network/microvm"
)

// The exit codes, as docs/cli.md has them. 128 + n is a signal's.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitExists      = 4
	exitState       = 5
	exitInvalidSpec = 6
	exitHost        = 7
	exitTimeout     = 124
)

// Interrupted is the cause with which a signal ends the context of Main.
type Interrupted struct{ Signal syscall.Signal }

func (e Interrupted) Error() string { return "interrupted: " + e.Signal.String() }

var errTimeout = errors.New("time is up")

// usageError is a fault of the command line itself.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// codeError chooses the exit code of a command that has already said what is
// the matter, when err is nil, or still has to.
type codeError struct {
	code int
	err  error
}

func (e *codeError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}
func (e *codeError) Unwrap() error { return e.err }

func exitCode(ctx context.Context, err error) int {
	var (
		usage  *usageError
		chosen *codeError
		signal Interrupted
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &chosen):
		return chosen.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(context.Cause(ctx), &signal):
		return 128 + int(signal.Signal)
	case context.Cause(ctx) == errTimeout:
		return exitTimeout
	case errors.Is(err, microvm.ErrVMNotFound), errors.Is(err, microvm.ErrSnapshotNotFound):
		return exitNotFound
	case errors.Is(err, microvm.ErrVMExists), errors.Is(err, microvm.ErrSnapshotExists):
		return exitExists
	case errors.Is(err, microvm.ErrInvalidTransition):
		return exitState
	case errors.Is(err, microvm.ErrInvalidSpec):
		return exitInvalidSpec
	case errors.Is(err, microvm.ErrUnsupported), errors.Is(err, microvm.ErrHost):
		return exitHost
	}
	return exitFailure
}

// each returns the errors that errors.Join has joined, at any depth, wrappers of
// one error left as they are.
func each(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, each(e)...)
	}
	return all
}

// fault is an error as --json shows it.
type fault struct {
	Error  string `json:"error"`
	Code   int    `json:"code"`
	Verb   string `json:"verb,omitempty"`
	VM     string `json:"vm,omitempty"`
	Stage  string `json:"stage,omitempty"`
	Field  string `json:"field,omitempty"`
	Retry  bool   `json:"retry,omitempty"`
	Remedy string `json:"remedy,omitempty"`
	Log    string `json:"log,omitempty"`
	Guest  string `json:"console,omitempty"`
}

// report prints an error, one line for each that was joined; with -v the
// evidence follows, indented.
func (a *app) report(err error, code int) {
	for _, e := range each(err) {
		if e.Error() == "" {
			continue
		}
		f := describe(e, code)
		a.errMu.Lock()
		if a.flags.json {
			b, merr := json.Marshal(f)
			if merr != nil {
				b = []byte(`{"error":"the error can't be shown as JSON"}`)
			}
			fmt.Fprintf(a.err, "%s\n", b)
		} else {
			fmt.Fprintf(a.err, "microvm: %s\n", f.line(a.flags.verbose))
			if a.flags.verbose {
				fmt.Fprint(a.err, evidence(e))
			}
		}
		a.errMu.Unlock()
	}
}

// line is the fault on one line: what, what to do about it, and whether there
// is more to see.
func (f fault) line(verbose bool) string {
	line := f.Error
	if f.Remedy != "" && !strings.Contains(line, f.Remedy) {
		line += " (" + f.Remedy + ")"
	}
	line = printableLine(line)
	switch {
	case verbose:
	case f.Log != "" && f.Guest != "":
		line += "; -v shows the ends of the VMM's log and of the guest's console"
	case f.Log != "":
		line += "; -v shows the end of the VMM's log"
	case f.Guest != "":
		line += "; -v shows the end of the guest's console"
	}
	return line
}

// untilInterrupted leaves out of an error what is said by the signal already:
// that the context has ended.
func untilInterrupted(err error) error {
	var rest []error
	for _, e := range each(err) {
		var signal Interrupted
		if e != context.Canceled && !errors.As(e, &signal) {
			rest = append(rest, e)
		}
	}
	return errors.Join(rest...)
}

func describe(err error, code int) fault {
	f := fault{Error: err.Error(), Code: code}
	var failed *microvm.Error
	if errors.As(err, &failed) {
		f.Verb, f.VM, f.Stage, f.Retry, f.Remedy = failed.Verb, failed.VMID, failed.Stage, failed.Retry, failed.Remedy
		f.Log, f.Guest = failed.Log, failed.Console
	}
	var field *microvm.FieldError
	if errors.As(err, &field) {
		f.Field = field.Field
	}
	switch {
	case code == exitTimeout:
		f.Remedy = "give --timeout more time"
	case f.Remedy == "":
		f.Remedy = remedy(err)
	}
	return f
}

// remedy is what a user of the command line can do about an error that names
// no remedy itself.
func remedy(err error) string {
	var usage *usageError
	switch {
	case errors.As(err, &usage):
		return `see "microvm help"`
	case errors.Is(err, microvm.ErrVMNotFound):
		return `"microvm ls -a" shows all VMs`
	case errors.Is(err, microvm.ErrSnapshotNotFound):
		return `"microvm snapshot ls VM" shows its snapshots`
	case errors.Is(err, microvm.ErrVMExists):
		return `choose another id; "microvm prune" frees the ids of destroyed VMs`
	case errors.Is(err, exec.ErrNotFound):
		return "--emulator runs guests in fcemu, an emulator, instead"
	case errors.Is(err, microvm.ErrHost):
		return `"microvm doctor" shows what this host lacks`
	}
	return ""
}

// evidence is what a failed verb has left, for people.
func evidence(err error) string {
	var failed *microvm.Error
	if !errors.As(err, &failed) {
		return ""
	}
	var b strings.Builder
	for _, part := range []struct{ head, text string }{{"VMM log", failed.Log}, {"guest console", failed.Console}} {
		text := strings.TrimRight(part.text, "\r\n")
		if text == "" {
			continue
		}
		fmt.Fprintf(&b, "  %s:\n", part.head)
		for l := range strings.Lines(printable(text)) {
			fmt.Fprintf(&b, "    %s\n", strings.TrimRight(l, "\n"))
		}
	}
	return b.String()
}
