package microvmtest

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/tangle-network/microvm"
)

// badNames are what no id and no name of a snapshot may be.
var badNames = []string{
	"", ".", "..", "...", "a..b", "a/../b", "../a", "/x", "a/b", `a\b`, "-rf", ".hidden", "_x",
	"a b", " a", "a\n", "a\x00b", "a:b", "a%2e", "ü", "a\u202eb", "a\xffb", strings.Repeat("x", 65),
}

func ids(b *bench) {
	b.ok("CreateVM", b.create("good"))
	before := asJSON(b.list())
	for _, bad := range badNames {
		calls := map[string]func(ctx context.Context) error{
			"CreateVM":          func(ctx context.Context) error { return b.rt.CreateVM(ctx, bad) },
			"CreateVMWithSpec":  func(ctx context.Context) error { return b.rt.CreateVMWithSpec(ctx, bad, b.spec(nil)) },
			"StartVM":           func(ctx context.Context) error { return b.rt.StartVM(ctx, bad) },
			"StopVM":            func(ctx context.Context) error { return b.rt.StopVM(ctx, bad) },
			"SnapshotVM":        func(ctx context.Context) error { return b.rt.SnapshotVM(ctx, bad, "s") },
			"SnapshotVM's name": func(ctx context.Context) error { return b.rt.SnapshotVM(ctx, "good", bad) },
			"DestroyVM":         func(ctx context.Context) error { return b.rt.DestroyVM(ctx, bad) },
			"RenameVM":          func(ctx context.Context) error { return b.rt.RenameVM(ctx, bad, "new") },
			"RenameVM's new id": func(ctx context.Context) error { return b.rt.RenameVM(ctx, "good", bad) },
			"RestoreFrom.VMID": func(ctx context.Context) error {
				return b.restoreIn(ctx, "new", microvm.RestoreFrom{VMID: bad, SnapshotID: "s"})
			},
			"RestoreFrom.Snapshot": func(ctx context.Context) error {
				return b.restoreIn(ctx, "new", microvm.RestoreFrom{VMID: "good", SnapshotID: bad})
			},
		}
		if b.lacks(Renames) {
			delete(calls, "RenameVM")
			delete(calls, "RenameVM's new id")
		}
		if b.lacks(Restores) || b.lacks(Specs) {
			delete(calls, "RestoreFrom.VMID")
			delete(calls, "RestoreFrom.Snapshot")
		}
		for name, call := range calls {
			err := b.call(call)
			if f := fault(err, microvm.ErrInvalidSpec); f != "" {
				b.t.Errorf("%s of %q: %s", name, bad, f)
				continue
			}
			var field *microvm.FieldError
			if !errors.As(err, &field) || field.Rule == "" {
				b.t.Errorf("%s of %q: no *microvm.FieldError with a rule in: %v", name, bad, err)
			}
		}
		for name, query := range map[string]func(ctx context.Context) error{
			"GetVM":         func(ctx context.Context) error { _, err := b.rt.GetVM(ctx, bad); return err },
			"ListSnapshots": func(ctx context.Context) error { _, err := b.rt.ListSnapshots(ctx, bad); return err },
		} {
			// A VM of that name cannot exist: both answers are true.
			if err := b.call(query); !errors.Is(err, microvm.ErrVMNotFound) && !errors.Is(err, microvm.ErrInvalidSpec) {
				b.t.Errorf("%s of %q: %v; want ErrVMNotFound or ErrInvalidSpec", name, bad, err)
			}
		}
	}
	if after := asJSON(b.list()); after != before {
		b.t.Errorf("bad names changed something:\nbefore %s\nafter  %s", before, after)
	}
	b.longest()
}

// longest takes names of 64 bytes, with every legal byte, through a whole life.
func (b *bench) longest() {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
	id := alphabet[len(alphabet)-55:] + strings.Repeat("9", 9)
	snap := strings.Repeat("s", 62) + ".-"
	b.make(id, microvm.StatusRunning)
	b.ok("SnapshotVM", b.snapshot(id, snap))
	b.is(id, microvm.StatusRunning, snap)
	if !b.lacks(Renames) {
		long := strings.Repeat("L", 64)
		b.ok("RenameVM", b.rename(id, long))
		id = long
	}
	if !b.lacks(Restores) && !b.lacks(Specs) {
		clone := "0" + strings.Repeat("_", 63)
		b.ok("restore", b.restore(clone, microvm.RestoreFrom{VMID: id, SnapshotID: snap}))
		b.is(clone, microvm.StatusStopped)
	}
	b.ok("StopVM", b.stop(id))
	b.ok("DestroyVM", b.destroy(id))
	b.is(id, microvm.StatusDestroyed, snap)
}

// order creates VMs in no order and finds them sorted, byte by byte.
func order(b *bench) {
	names := []string{"b", "a", "B", "a-1", "a.1", "a_1", "10", "9", "a1", "Z"}
	names = names[:b.o.some(len(names), 3)]
	for _, id := range names {
		b.ok("CreateVM", b.create(id))
	}
	slices.Sort(names)
	var got []string
	for _, v := range b.list() {
		got = append(got, v.ID)
	}
	if !slices.Equal(got, names) {
		b.t.Errorf("ListVMs has %q; want %q", got, names)
	}
}

func specs(b *bench) {
	b.skipIfLacking(Specs)
	b.run("every fault at once", func(b *bench) {
		b.unchanged("CreateVMWithSpec", func() {
			err := b.createWith("bad", func(s *microvm.Spec) {
				s.VCPUs, s.MemoryMiB, s.StopMode = 33, -1, "nap"
				s.Labels = map[string]string{"": "no key"}
			})
			if f := fault(err, microvm.ErrInvalidSpec); f != "" {
				b.t.Fatal(f)
			}
			found := fieldsOf(err)
			for _, want := range []string{"vcpus", "memory_mib", "stop_mode", "labels"} {
				if !slices.Contains(found, want) {
					b.t.Errorf("the error has no *microvm.FieldError for %s: %v", want, err)
				}
			}
		})
		b.absent("bad")
		b.ok("CreateVM of the same id", b.create("bad"))
	})
	b.run("labels", func(b *bench) {
		labels := map[string]string{"owner": "me", "empty": ""}
		b.ok("CreateVMWithSpec", b.createWith("labelled", func(s *microvm.Spec) { s.Labels = labels }))
		labels["owner"] = "you" // the caller's map is the caller's
		got := b.get("labelled").Labels
		if len(got) != 2 || got["owner"] != "me" {
			b.t.Errorf(`Labels are %v; want {"owner": "me", "empty": ""}`, got)
		}
	})
}

// fieldsOf collects the fields of every FieldError in an error's tree.
func fieldsOf(err error) []string {
	var fields []string
	if f, ok := err.(*microvm.FieldError); ok { //nolint:errorlint // each node of the tree is looked at
		fields = append(fields, f.Field)
	}
	switch e := err.(type) { //nolint:errorlint // likewise
	case interface{ Unwrap() error }:
		fields = append(fields, fieldsOf(e.Unwrap())...)
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			fields = append(fields, fieldsOf(err)...)
		}
	}
	return fields
}
