package microvm

import (
	"errors"
	"fmt"
	"strings"
)

// What went wrong, for errors.Is.
var (
	ErrVMNotFound        = errors.New("no such VM")
	ErrVMExists          = errors.New("VM exists")
	ErrSnapshotNotFound  = errors.New("no such snapshot")
	ErrSnapshotExists    = errors.New("snapshot exists")
	ErrInvalidTransition = errors.New("not possible in this state")
	ErrInvalidSpec       = errors.New("invalid spec")
	ErrUnsupported       = errors.New("not supported")
	// ErrHost means that the host lacks something or refused something: a
	// binary, /dev/kvm, room on disk, a permission.
	ErrHost = errors.New("host problem")
)

// TransitionError says that a verb is not legal in the VM's state. It is
// ErrInvalidTransition.
type TransitionError struct {
	VMID string
	From Status
	To   Status // the state that the verb would have led to
}

func (e *TransitionError) Error() string {
	return fmt.Sprintf("VM %q is %s: it cannot become %s", e.VMID, e.From, e.To)
}

// Is makes the error ErrInvalidTransition.
func (e *TransitionError) Is(target error) bool { return target == ErrInvalidTransition }

// FieldError is one fault of a Spec or of an argument. It is ErrInvalidSpec.
type FieldError struct {
	Field string // as in a spec file: "drives[1].path"
	Value string // what was given, as Go would print it
	Rule  string // what is allowed
	// Err is what was found instead, such as an *image.KernelError; nil where
	// the value alone is at fault. Rule has its text.
	Err error
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("%s: %s is not allowed: %s", e.Field, e.Value, e.Rule)
}

// Is makes the error ErrInvalidSpec.
func (e *FieldError) Is(target error) bool { return target == ErrInvalidSpec }

// Unwrap returns the cause.
func (e *FieldError) Unwrap() error { return e.Err }

// Error is the evidence that a failed verb leaves. Err is the cause and is what
// errors.Is and errors.As look through to.
type Error struct {
	Verb  string // "create", "start", "stop", "snapshot", "destroy", "rename", "restore", …
	VMID  string
	Stage string // the step that failed, such as "spawn" or "PUT /boot-source"; may be empty
	Err   error
	// Retry says that the same call may succeed later without any change by the
	// caller.
	Retry bool
	// Remedy is what the operator can do about it; may be empty.
	Remedy string
	// Log is the tail of the VMM's log, Console that of the guest's console:
	// made safe to print, bounded, empty when there is none.
	Log     string
	Console string
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s VM %q: ", e.Verb, e.VMID)
	cause := "failed"
	if e.Err != nil {
		cause = e.Err.Error()
	}
	if e.Stage != "" && !strings.HasPrefix(cause, e.Stage) {
		fmt.Fprintf(&b, "%s: ", e.Stage)
	}
	b.WriteString(cause)
	if e.Remedy != "" {
		fmt.Fprintf(&b, " (%s)", e.Remedy)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Evidence returns Log and Console under headings, for people; it is empty when
// there is neither.
func (e *Error) Evidence() string {
	var b strings.Builder
	for _, part := range []struct{ head, text string }{{"VMM log", e.Log}, {"guest console", e.Console}} {
		if part.text != "" {
			fmt.Fprintf(&b, "--- %s ---\n%s\n", part.head, strings.TrimRight(part.text, "\n"))
		}
	}
	return b.String()
}
