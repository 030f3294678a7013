package microvm_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tangle-network/microvm"
)

func jsonOf(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var names = map[string]bool{ // name → legal
	"a": true, "9": true, "Z": true, "a.b": true, "a-b_c.d": true, "a-": true, "a.": true, long(64): true,
	"": false, ".": false, "..": false, "a..b": false, ".a": false, "-a": false, "_a": false, "a/b": false, "../a": false,
	"/a": false, "a b": false, "a\n": false, "\na": false, "a\x00": false, "ä": false, "a\xff": false, long(65): false, "a%": false, "a:b": false,
}

func TestIDsAreOfTheAlphabetOrRefused(t *testing.T) {
	t.Parallel()
	for name, legal := range names {
		for field, err := range map[string]error{"id": microvm.ValidateID(name), "snapshot": microvm.ValidateSnapshotID(name)} {
			var f *microvm.FieldError
			switch {
			case legal && err != nil:
				t.Errorf("%s %q: %v", field, name, err)
			case !legal && (!errors.Is(err, microvm.ErrInvalidSpec) || !errors.As(err, &f) || f.Field != field || f.Rule == ""):
				t.Errorf("%s %q: %v; want a FieldError of %s", field, name, err, field)
			}
		}
	}
}

func FuzzParseID(f *testing.F) {
	for name := range names {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, id string) {
		err := microvm.ValidateID(id)
		// The rule once more, byte by byte.
		legal := len(id) >= 1 && len(id) <= microvm.MaxIDLength && !strings.Contains(id, "..")
		for i := range len(id) {
			c := id[i]
			letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
			legal = legal && (letter || i > 0 && strings.IndexByte("._-", c) >= 0)
		}
		if legal != (err == nil) {
			t.Fatalf("%q: %v", id, err)
		}
		if err != nil && len(err.Error()) > 700 {
			t.Fatalf("an error of %d bytes", len(err.Error()))
		}
	})
}

func TestErrorsSayWhatWasAskedAndAreFoundByIsAndAs(t *testing.T) {
	t.Parallel()
	cause := &microvm.TransitionError{VMID: "a", From: microvm.StatusCreated, To: microvm.StatusStopped}
	for _, row := range []struct {
		err  error
		text string
		is   error
	}{
		{cause, `VM "a" is created: it cannot become stopped`, microvm.ErrInvalidTransition},
		{&microvm.FieldError{Field: "vcpus", Value: "33", Rule: "1 to 32"}, "vcpus: 33 is not allowed: 1 to 32", microvm.ErrInvalidSpec},
		{&microvm.Error{Verb: "stop", VMID: "a", Err: cause}, `stop VM "a": VM "a" is created: it cannot become stopped`, microvm.ErrInvalidTransition},
		{&microvm.Error{Verb: "create", VMID: "a", Stage: "spawn", Err: microvm.ErrHost, Remedy: "install firecracker"}, `create VM "a": spawn: host problem (install firecracker)`, microvm.ErrHost},
		{&microvm.Error{Verb: "start", VMID: "a"}, `start VM "a": failed`, nil},
		{&microvm.Error{Verb: "start", VMID: "a\n", Err: context.Canceled, Log: "secret"}, `start VM "a\n": context canceled`, context.Canceled},
	} {
		if got := row.err.Error(); got != row.text {
			t.Errorf("text %q; want %q", got, row.text)
		}
		wrapped := fmt.Errorf("deploy: %w", row.err)
		for _, s := range []error{microvm.ErrVMNotFound, microvm.ErrVMExists, microvm.ErrSnapshotNotFound, microvm.ErrSnapshotExists, microvm.ErrInvalidTransition, microvm.ErrInvalidSpec, microvm.ErrUnsupported, microvm.ErrHost} {
			if want := row.is == s; errors.Is(wrapped, s) != want { //nolint:errorlint // which sentinel it is
				t.Errorf("%v: errors.Is %q is %v", row.err, s, !want)
			}
		}
	}
	var e *microvm.TransitionError
	if !errors.As(fmt.Errorf("x: %w", &microvm.Error{Err: cause}), &e) || e.VMID != "a" || e.From != microvm.StatusCreated || e.To != microvm.StatusStopped {
		t.Errorf("errors.As finds %+v", e)
	}
}

func TestEvidenceHasHeadingsAndNothingWhenThereIsNone(t *testing.T) {
	t.Parallel()
	if got := (&microvm.Error{}).Evidence(); got != "" {
		t.Errorf("evidence of nothing: %q", got)
	}
	got := (&microvm.Error{Log: "one\ntwo\n\n", Console: "boot"}).Evidence()
	if want := "--- VMM log ---\none\ntwo\n--- guest console ---\nboot\n"; got != want {
		t.Errorf("evidence %q; want %q", got, want)
	}
}

type creator struct {
	microvm.UnimplementedProvider
	created []string
}

func (c *creator) CreateVM(_ context.Context, id string) error {
	c.created = append(c.created, id)
	return nil
}

func TestUnimplementedProviderDelegatesOrIsUnsupported(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := &creator{}
	if err := c.CreateVMWithSpec(ctx, "a", microvm.Spec{}); !errors.Is(err, microvm.ErrUnsupported) || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("without Create: %v", err)
	}
	c.Create = c
	if err := c.CreateVMWithSpec(ctx, "a", microvm.Spec{VCPUs: 2}); err != nil || len(c.created) != 1 || c.created[0] != "a" {
		t.Errorf("with Create: %v, created %q", err, c.created)
	}
	if err := c.RenameVM(ctx, "a", "b"); !errors.Is(err, microvm.ErrUnsupported) || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("RenameVM: %v", err)
	}
}

func TestStopReasonsReadAsSentences(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]microvm.StopReason{
		"paused":                       {Cause: microvm.StopPaused},
		"guest (exit code 0)":          {Cause: microvm.StopGuest, ExitCode: ptr(0)},
		"vmm-died (SIGKILL)":           {Cause: microvm.StopVMMDied, Signal: "SIGKILL"},
		"host: the host was restarted": {Cause: microvm.StopHost, Detail: "the host was restarted"},
	} {
		if got := r.String(); got != want {
			t.Errorf("%q; want %q", got, want)
		}
	}
}

// The JSON of a view is read by programs: its keys are part of the contract.
func TestAViewOfANewVMHasNoEmptyKeys(t *testing.T) {
	t.Parallel()
	got := jsonOf(t, microvm.View{ID: "a", Status: microvm.StatusCreated, Snapshots: []string{}})
	if want := `{"id":"a","status":"created","snapshots":[]}`; got != want {
		t.Errorf("%s; want %s", got, want)
	}
}
