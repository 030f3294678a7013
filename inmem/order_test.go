package inmem_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// calls are one call of each verb, in an order in which all succeed.
var calls = []struct {
	verb inmem.Verb
	call func(ctx context.Context, rt *inmem.Runtime) error
}{
	{inmem.VerbCreate, func(ctx context.Context, rt *inmem.Runtime) error {
		return rt.CreateVMWithSpec(ctx, "a", microvm.Spec{Network: &microvm.Network{}})
	}},
	{inmem.VerbStart, func(ctx context.Context, rt *inmem.Runtime) error { return rt.StartVM(ctx, "a") }},
	{inmem.VerbSnapshot, func(ctx context.Context, rt *inmem.Runtime) error { return rt.SnapshotVM(ctx, "a", "s") }},
	{inmem.VerbStop, func(ctx context.Context, rt *inmem.Runtime) error { return rt.StopVM(ctx, "a") }},
	{inmem.VerbRename, func(ctx context.Context, rt *inmem.Runtime) error { return rt.RenameVM(ctx, "a", "b") }},
	{inmem.VerbRestore, func(ctx context.Context, rt *inmem.Runtime) error {
		return rt.CreateVMWithSpec(ctx, "c", microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "b", SnapshotID: "s"}})
	}},
	{inmem.VerbFork, func(ctx context.Context, rt *inmem.Runtime) error { return rt.ForkVM(ctx, "b", "d") }},
	{inmem.VerbEgress, func(ctx context.Context, rt *inmem.Runtime) error { return rt.UpdateEgress(ctx, "b", microvm.Egress{}) }},
	{inmem.VerbDeleteSnapshot, func(ctx context.Context, rt *inmem.Runtime) error { return rt.DeleteSnapshot(ctx, "b", "s") }},
	{inmem.VerbDestroy, func(ctx context.Context, rt *inmem.Runtime) error { return rt.DestroyVM(ctx, "b") }},
	{inmem.VerbPrune, func(ctx context.Context, rt *inmem.Runtime) error {
		_, err := rt.Prune(ctx, time.Now().Add(time.Hour))
		return err
	}},
}

func TestFailNextFailsOneCallOfEachVerbAndChangesNothing(t *testing.T) {
	t.Parallel()
	ctx, rt, boom := t.Context(), inmem.New(), errors.New("boom")
	for _, c := range calls {
		rt.FailNext(c.verb, boom)
		before, err := rt.ListVMs(ctx)
		must(t, err)
		if err := c.call(ctx, rt); !errors.Is(err, boom) {
			t.Fatalf("%s: %v; want %v", c.verb, err, boom)
		}
		after, err := rt.ListVMs(ctx)
		must(t, err)
		if len(before) != len(after) {
			t.Fatalf("%s failed and changed the list", c.verb)
		}
		for i := range before {
			if before[i].ID != after[i].ID || before[i].Status != after[i].Status || len(before[i].Snapshots) != len(after[i].Snapshots) {
				t.Errorf("%s failed and changed %+v to %+v", c.verb, before[i], after[i])
			}
		}
		must(t, c.call(ctx, rt)) // the order is used up
	}
}

func TestFailNextKeepsItsOrderAndSkipsIllegalCalls(t *testing.T) {
	t.Parallel()
	ctx, rt := t.Context(), inmem.New()
	one, two := errors.New("one"), errors.New("two")
	rt.FailNext(inmem.VerbStart, one, nil, two)
	if err := rt.StartVM(ctx, "nobody"); !errors.Is(err, microvm.ErrVMNotFound) || errors.Is(err, one) {
		t.Fatalf("an illegal call: %v", err)
	}
	for _, id := range []string{"a", "b", "c"} {
		must(t, rt.CreateVM(ctx, id))
	}
	for _, c := range []struct {
		id   string
		want error
	}{{"a", one}, {"b", nil}, {"c", two}, {"c", nil}} {
		if err := rt.StartVM(ctx, c.id); !errors.Is(err, c.want) {
			t.Fatalf("StartVM(%q): %v; want %v", c.id, err, c.want)
		}
	}
}

func TestFailNextCarriesTheCallersTypeAndTheEvidence(t *testing.T) {
	t.Parallel()
	rt := inmem.New()
	rt.FailNext(inmem.VerbCreate, &microvm.Error{Verb: "create", VMID: "a", Stage: "spawn", Err: microvm.ErrHost, Retry: true, Log: "no room"})
	err := rt.CreateVM(t.Context(), "a")
	var e *microvm.Error
	if !errors.As(err, &e) || e.Stage != "spawn" || !e.Retry || e.Log != "no room" || !errors.Is(err, microvm.ErrHost) {
		t.Fatalf("CreateVM: %#v", err)
	}
}

func TestHoldNextKeepsACallUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	rt := inmem.New()
	must(t, rt.CreateVM(t.Context(), "a"))
	entered, release := rt.HoldNext(inmem.VerbStart)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- rt.StartVM(ctx, "a") }()
	<-entered
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Fatalf("StartVM: %v", err)
	}
	release()
	release() // twice does no harm
	must(t, rt.StartVM(t.Context(), "a"))
}

func TestASlowWatcherLosesTheOldestEventsOnly(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	rt := inmem.New()
	events, err := rt.Watch(ctx)
	must(t, err)
	must(t, rt.CreateVM(ctx, "quiet"))
	must(t, rt.CreateVM(ctx, "busy"))
	for range 200 {
		must(t, rt.StartVM(ctx, "busy"))
		must(t, rt.StopVM(ctx, "busy"))
	}
	must(t, rt.DestroyVM(ctx, "busy"))
	n, quiet := 0, false
	for e := range events {
		n++
		quiet = quiet || e.View.ID == "quiet"
		if e.View.Status == microvm.StatusDestroyed {
			break
		}
	}
	if n > 100 || !quiet {
		t.Errorf("%d events were kept; that of the quiet VM: %v", n, quiet)
	}
}
