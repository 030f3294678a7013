package microvmtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/tangle-network/microvm"
)

// step is one verb of a history. id and other are VMs, snapshot is a name.
type step struct {
	verb, id, other, snapshot string
	resume                    bool
	forgets                   bool // StopVM loses the memory
}

func (s step) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s %s", s.verb, s.id, s.other, s.snapshot))
}

// histories compares random histories with the model's, step by step.
func histories(b *bench) {
	passed, failed, run := 0, false, 0
	began := time.Now()
	rapid.Check(b.t, func(t *rapid.T) {
		// The number of checks is rapid's, a flag of the whole program: ours
		// is kept by letting the rest pass. Never after a failure: rapid looks
		// for a shorter one then.
		enough := passed >= b.o.Checks || passed > 0 && time.Since(began) > b.o.Budget
		if enough && !failed {
			return
		}
		done := false
		defer func() {
			if failed = failed || !done; !failed {
				passed++
			}
		}()
		run++
		b.history(t, fmt.Sprintf("h%d-", run))
		done = true
	})
	b.t.Logf("%d histories of %d verbs in %v", passed, b.o.Steps, time.Since(began).Round(time.Millisecond))
}

// history is one. All its ids begin with prefix, so that histories can share a
// runtime.
func (b *bench) history(t *rapid.T, prefix string) {
	// Weighed so that VMs live long enough to have a history.
	verbs := []string{"create", "start", "start", "stop", "snapshot", "snapshot", "destroy"}
	if !b.lacks(Renames) {
		verbs = append(verbs, "rename")
	}
	if !b.lacks(Restores) && !b.lacks(Specs) {
		verbs = append(verbs, "restore", "restore", "restore")
	}
	manager, _ := b.rt.(microvm.SnapshotManager)
	if manager != nil {
		verbs = append(verbs, "delete")
	}
	pruner, _ := b.rt.(microvm.Pruner)
	if pruner != nil {
		verbs = append(verbs, "prune")
	}
	ids := []string{prefix + "a", prefix + "b", prefix + "c", prefix + "d"}
	m := model{}
	defer b.clear(t, m)
	for range b.o.Steps {
		s := b.draw(t, m, verbs, ids)
		if s.verb == "prune" {
			want, got := m.prune(), b.pruned(t, pruner, prefix)
			if !slices.Equal(got, want) {
				t.Fatalf("Prune took %q; want %q", got, want)
			}
		} else if err, want := b.step(s, manager), m.do(s); !right(err, want) {
			t.Fatalf("%s: %v; want %v", s, err, want)
		}
		b.compare(t, s, m, prefix)
	}
}

// draw chooses a step: mostly one that is legal now.
func (b *bench) draw(t *rapid.T, m model, verbs, ids []string) step {
	names := []string{"y", "x"}
	if rapid.IntRange(0, 4).Draw(t, "blind") == 4 {
		return step{
			verb:     rapid.SampledFrom(verbs).Draw(t, "verb"),
			id:       rapid.SampledFrom(ids).Draw(t, "id"),
			other:    rapid.SampledFrom(ids).Draw(t, "other"),
			snapshot: rapid.SampledFrom(names).Draw(t, "snapshot"),
			resume:   rapid.Bool().Draw(t, "resume"),
			forgets:  b.forgets(),
		}
	}
	s := step{resume: rapid.Bool().Draw(t, "resume"), forgets: b.forgets()}
	legal := map[string][]step{}
	for _, s.verb = range slices.Compact(slices.Clone(verbs)) {
		others, snapshots := ids, names
		if s.verb != "restore" && s.verb != "rename" {
			others = ids[:1]
		}
		if s.verb != "restore" && s.verb != "snapshot" && s.verb != "delete" {
			snapshots = names[:1]
		}
		for _, s.id = range ids {
			for _, s.other = range others {
				for _, s.snapshot = range snapshots {
					if m.allows(s) {
						legal[s.verb] = append(legal[s.verb], s)
					}
				}
			}
		}
	}
	possible := slices.DeleteFunc(slices.Clone(verbs), func(v string) bool { return legal[v] == nil })
	verb := rapid.SampledFrom(possible).Draw(t, "legal verb")
	return rapid.SampledFrom(legal[verb]).Draw(t, "legal step")
}

// forgets says whether StopVM loses the guest's memory.
func (b *bench) forgets() bool { return b.o.Spec.StopMode == microvm.StopModeShutdown }

// step carries out one step on the provider.
func (b *bench) step(s step, manager microvm.SnapshotManager) error {
	switch s.verb {
	case "create":
		return b.create(s.id)
	case "restore":
		return b.restore(s.id, microvm.RestoreFrom{VMID: s.other, SnapshotID: s.snapshot, ResumeImmediately: s.resume})
	case "start":
		return b.start(s.id)
	case "stop":
		return b.stop(s.id)
	case "snapshot":
		return b.snapshot(s.id, s.snapshot)
	case "destroy":
		return b.destroy(s.id)
	case "rename":
		return b.rename(s.id, s.other)
	default: // "delete"
		return b.call(func(ctx context.Context) error { return manager.DeleteSnapshot(ctx, s.id, s.snapshot) })
	}
}

func (b *bench) pruned(t *rapid.T, p microvm.Pruner, prefix string) (ids []string) {
	err := b.call(func(ctx context.Context) (err error) {
		ids, err = p.Prune(ctx, time.Now().Add(time.Hour))
		return err
	})
	if err != nil {
		t.Fatalf("Prune: %v", err)
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !strings.HasPrefix(id, prefix) })
	slices.Sort(ids)
	return ids
}

// compare looks whether the provider's VMs are the model's.
func (b *bench) compare(t *rapid.T, s step, m model, prefix string) {
	ctx, cancel := context.WithTimeout(context.Background(), b.o.Timeout)
	defer cancel()
	list, err := b.rt.ListVMs(ctx)
	if err != nil {
		t.Fatalf("after %s: ListVMs: %v", s, err)
	}
	if f := listFault(list); f != "" {
		t.Fatalf("after %s: %s", s, f)
	}
	list = slices.DeleteFunc(list, func(v microvm.View) bool { return !strings.HasPrefix(v.ID, prefix) })
	if len(list) != len(m) {
		t.Fatalf("after %s: ListVMs has %s; the model has %d VMs", s, asJSON(list), len(m))
	}
	for _, v := range list {
		want := m[v.ID]
		if want == nil || v.Status != want.status || !slices.Equal(v.Snapshots, want.snapshots) {
			t.Fatalf("after %s: VM %s; the model has %+v", s, asJSON(v), want)
		}
		names, err := b.rt.ListSnapshots(ctx, v.ID)
		if err != nil || !slices.Equal(names, want.snapshots) {
			t.Fatalf("after %s: ListSnapshots(%q): %q, %v; want %q", s, v.ID, names, err, want.snapshots)
		}
	}
}

// clear destroys what a history leaves, so that many of them cost no more
// memory than one.
func (b *bench) clear(t *rapid.T, m model) {
	for id, vm := range m {
		if vm.status == microvm.StatusDestroyed {
			continue
		}
		if err := b.destroy(id); err != nil {
			t.Logf("DestroyVM(%q) after the history: %v", id, err)
		}
	}
}
