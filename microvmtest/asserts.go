package microvmtest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/tangle-network/microvm"
)

var sentinels = []error{
	microvm.ErrVMNotFound, microvm.ErrVMExists, microvm.ErrSnapshotNotFound, microvm.ErrSnapshotExists,
	microvm.ErrInvalidTransition, microvm.ErrInvalidSpec, microvm.ErrUnsupported, microvm.ErrHost,
}

// fault says what is wrong with err as an instance of want, and of no other
// sentinel; empty when nothing is.
func fault(err, want error) string {
	if err == nil {
		return "no error; want " + want.Error()
	}
	if !errors.Is(err, want) {
		return "error is not \"" + want.Error() + "\": " + err.Error()
	}
	for _, s := range sentinels {
		if s != want && errors.Is(err, s) {
			return "error is \"" + s.Error() + "\" too: " + err.Error()
		}
	}
	return ""
}

func (b *bench) ok(what string, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// refused checks that err is want, and that its text names the VM.
func (b *bench) refused(what string, err, want error, id string) {
	b.t.Helper()
	if f := fault(err, want); f != "" {
		b.t.Fatalf("%s: %s", what, f)
	}
	if !strings.Contains(err.Error(), id) {
		b.t.Errorf("%s: the error does not name VM %q: %v", what, id, err)
	}
}

// refusedIn checks the error of a verb that is not legal in the VM's state.
func (b *bench) refusedIn(v verb, state microvm.Status, err error, id string) {
	b.t.Helper()
	b.refused(v.name, err, microvm.ErrInvalidTransition, id)
	var e *microvm.TransitionError
	if !errors.As(err, &e) {
		b.t.Fatalf("%s: no *microvm.TransitionError in %v", v.name, err)
	}
	if e.VMID != id || e.From != state {
		b.t.Errorf("%s: TransitionError has VMID %q, From %q; want %q, %q", v.name, e.VMID, e.From, id, state)
	}
	// A verb that keeps the state leads to the state that the VM has.
	if e.To != v.to && (v.to != "" || e.To != state) {
		b.t.Errorf("%s: TransitionError has To %q; want %q", v.name, e.To, v.to)
	}
}

func (b *bench) get(id string) microvm.View {
	b.t.Helper()
	var view microvm.View
	b.ok("GetVM", b.call(func(ctx context.Context) (err error) {
		view, err = b.rt.GetVM(ctx, id)
		return err
	}))
	if view.ID != id {
		b.t.Fatalf("GetVM(%q) has ID %q", id, view.ID)
	}
	return view
}

// is checks a VM's state and, when any are given, its snapshots.
func (b *bench) is(id string, state microvm.Status, snapshots ...string) microvm.View {
	b.t.Helper()
	view := b.get(id)
	if view.Status != state {
		b.t.Fatalf("VM %q is %s; want %s (%s)", id, view.Status, state, asJSON(view))
	}
	if len(snapshots) > 0 && !slices.Equal(view.Snapshots, snapshots) {
		b.t.Fatalf("VM %q has snapshots %q; want %q", id, view.Snapshots, snapshots)
	}
	return view
}

func (b *bench) absent(id string) {
	b.t.Helper()
	err := b.call(func(ctx context.Context) error {
		_, err := b.rt.GetVM(ctx, id)
		return err
	})
	if f := fault(err, microvm.ErrVMNotFound); f != "" {
		b.t.Fatalf("GetVM(%q): %s", id, f)
	}
	for _, v := range b.list() {
		if v.ID == id {
			b.t.Fatalf("ListVMs has %q, which GetVM does not find", id)
		}
	}
}

// list is ListVMs; what must be true of every list is checked here.
func (b *bench) list() []microvm.View {
	b.t.Helper()
	var list []microvm.View
	b.ok("ListVMs", b.call(func(ctx context.Context) (err error) {
		list, err = b.rt.ListVMs(ctx)
		return err
	}))
	if f := listFault(list); f != "" {
		b.t.Fatal(f)
	}
	return list
}

// listFault says what no list may have.
func listFault(list []microvm.View) string {
	for i, v := range list {
		switch {
		case i > 0 && list[i-1].ID == v.ID:
			return "ListVMs has " + v.ID + " twice"
		case i > 0 && list[i-1].ID > v.ID:
			return "ListVMs is not sorted: " + list[i-1].ID + " before " + v.ID
		case v.Snapshots == nil:
			return "ListVMs: Snapshots of " + v.ID + " is nil; want an empty slice"
		case !slices.Contains(states, v.Status):
			return "ListVMs: " + v.ID + " has the unknown status " + string(v.Status)
		}
	}
	return ""
}

func (b *bench) snapshotsOf(id string) []string {
	b.t.Helper()
	var names []string
	b.ok("ListSnapshots", b.call(func(ctx context.Context) (err error) {
		names, err = b.rt.ListSnapshots(ctx, id)
		return err
	}))
	return names
}

// unchanged runs f and checks that no VM of the runtime is other than before.
func (b *bench) unchanged(what string, f func()) {
	b.t.Helper()
	before := asJSON(b.list())
	f()
	if after := asJSON(b.list()); after != before {
		b.t.Errorf("%s changed something:\nbefore %s\nafter  %s", what, before, after)
	}
}

func asJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
