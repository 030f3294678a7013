package microvmtest

import (
	"context"
	"fmt"
	"slices"

	"github.com/tangle-network/microvm"
)

// table tries every verb in every state. VMs go on from cell to cell, so that a
// slow provider needs only four.
func table(b *bench) {
	b.run("absent", func(b *bench) {
		verbs := b.onVMs()
		for _, v := range verbs {
			b.run(v.name, func(b *bench) {
				b.unchanged(v.name, func() {
					b.refused(v.name, b.do(v, "nobody", "new"), microvm.ErrVMNotFound, "nobody")
				})
			})
		}
		b.run("queries", func(b *bench) {
			b.absent("nobody")
			err := b.call(func(ctx context.Context) error {
				_, err := b.rt.ListSnapshots(ctx, "nobody")
				return err
			})
			b.refused("ListSnapshots", err, microvm.ErrVMNotFound, "nobody")
		})
		b.run("CreateVM", func(b *bench) {
			b.ok("CreateVM", b.create("first"))
			b.is("first", microvm.StatusCreated)
		})
	})
	p := pool{microvm.StatusCreated: "first"}
	for _, state := range states {
		b.run(string(state), func(b *bench) {
			b.run("CreateVM", func(b *bench) {
				id := p.take(b, state)
				b.unchanged("CreateVM", func() {
					b.refused("CreateVM", b.create(id), microvm.ErrVMExists, id)
					if !b.lacks(Specs) {
						b.refused("CreateVMWithSpec", b.createWith(id, nil), microvm.ErrVMExists, id)
					}
				})
			})
			// Refusals first: they need a VM in this state and leave it so.
			for _, legal := range []bool{false, true} {
				for _, v := range b.onVMs() {
					if slices.Contains(v.from, state) != legal {
						continue
					}
					b.run(v.name, func(b *bench) {
						id := p.take(b, state)
						if legal {
							p.legal(b, v, state, id)
							return
						}
						b.unchanged(v.name, func() { b.refusedIn(v, state, b.do(v, id, "new"), id) })
					})
				}
			}
		})
	}
	if b.lacks(Renames) {
		b.run("RenameVM is unsupported", func(b *bench) {
			id := p.take(b, microvm.StatusCreated)
			b.unchanged("RenameVM", func() {
				b.refused("RenameVM", b.rename(id, "new"), microvm.ErrUnsupported, id)
			})
		})
	}
}

func (b *bench) do(v verb, id, name string) error {
	return b.call(func(ctx context.Context) error { return v.call(ctx, b, id, name) })
}

// pool is a VM for each state that has one.
type pool map[microvm.Status]string

// take gives a VM in the given state, brought there from another state when it
// must be.
func (p pool) take(b *bench, state microvm.Status) string {
	b.t.Helper()
	id, ok := p[state]
	switch {
	case ok:
	case state == microvm.StatusCreated:
		id = fmt.Sprintf("vm%d", len(b.list()))
		b.ok("CreateVM", b.create(id))
	case state == microvm.StatusRunning:
		from := microvm.StatusStopped
		if _, ok := p[from]; !ok {
			from = microvm.StatusCreated
		}
		id = p.move(b, from, state, b.start)
	case state == microvm.StatusStopped:
		id = p.move(b, microvm.StatusRunning, state, b.stop)
	case state == microvm.StatusDestroyed:
		id = p.move(b, microvm.StatusCreated, state, b.destroy)
	}
	p[state] = id
	b.is(id, state)
	return id
}

func (p pool) move(b *bench, from, to microvm.Status, f func(string) error) string {
	b.t.Helper()
	id := p.take(b, from)
	b.ok(fmt.Sprintf("from %s to %s", from, to), f(id))
	delete(p, from)
	return id
}

// legal carries out a verb that is legal in the state of the VM.
func (p pool) legal(b *bench, v verb, state microvm.Status, id string) {
	before := b.get(id)
	delete(p, state)
	name := "in-" + string(state) // no VM meets this cell twice
	b.ok(v.name, b.do(v, id, name))
	want := before.Snapshots
	switch v.name {
	case verbSnapshot.name:
		want = append(want, name)
		if got := b.snapshotsOf(id); !slices.Equal(got, want) {
			b.t.Errorf("ListSnapshots is %q; want %q", got, want)
		}
	case verbRename.name:
		b.absent(id)
		b.is(name, state)
		b.ok("RenameVM back", b.rename(name, id))
		b.absent(name)
	}
	after := v.to
	if after == "" {
		after = state
	}
	view := b.is(id, after)
	if !slices.Equal(view.Snapshots, want) {
		b.t.Errorf("%s left the snapshots %q; want %q", v.name, view.Snapshots, want)
	}
	p[after] = id
}
