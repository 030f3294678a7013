package microvmtest_test

import (
	"context"
	"errors"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
)

// wrongLives break the rules about failures, deaths, programs that come and go,
// forks, and what is left behind.
var wrongLives = []wrong{
	// Failures.
	{"a failed create leaves its VM", "failures", onVerb("create", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		if err != nil && c.id == "unlucky" {
			return errors.Join(err, rt.CreateVM(ctx, c.id))
		}
		return err
	})},
	{"a failed stop reports success", "failures", onVerb("stop", func(_ *inmem.Runtime, ctx context.Context, c call) error {
		if err := c.next(ctx); err == nil || errors.Is(err, microvm.ErrInvalidTransition) {
			return err
		}
		return nil
	})},
	{"the cause of a failure is lost", "failures", onVerb("start", func(_ *inmem.Runtime, ctx context.Context, c call) error {
		if err := c.next(ctx); err != nil {
			return errors.New("start failed")
		}
		return nil
	})},
	{"a failed start destroys the VM", "failures", onVerb("start", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		if err != nil {
			return errors.Join(err, rt.DestroyVM(ctx, c.id))
		}
		return nil
	})},

	// Deaths.
	{"a killed VMM goes unseen", "killed", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, kill: func(string) error { return nil }}
	}},
	{"a killed VMM is taken for a guest's end", "killed", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, kill: func(id string) error { return rt.GuestExits(id, microvm.StopReason{}) }}
	}},
	{"a killed VM is destroyed", "killed", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, kill: func(id string) error { return rt.DestroyVM(context.Background(), id) }}
	}},
	{"a killed VM cannot be started", "killed", onVerb("start", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		if v, err := rt.GetVM(ctx, c.id); err == nil && v.StopReason != nil && v.StopReason.Cause == microvm.StopVMMDied {
			return &microvm.TransitionError{VMID: c.id, From: v.Status, To: microvm.StatusRunning}
		}
		return c.next(ctx)
	})},

	// Programs that come and go.
	{"a second runtime sees nothing", "another runtime", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, another: func() microvm.Runtime { return inmem.New() }}
	}},
	{"a second runtime shows old views", "another runtime", func(rt *inmem.Runtime) *faulty {
		first := map[string]microvm.View{}
		old := &faulty{Runtime: rt, view: func(v microvm.View) microvm.View {
			if _, ok := first[v.ID]; !ok {
				first[v.ID] = v
			}
			return first[v.ID]
		}}
		return &faulty{Runtime: rt, another: func() microvm.Runtime { return old }}
	}},
	{"a new program finds nothing", "reopen", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, reopen: func() microvm.Runtime { return &faulty{Runtime: inmem.New()} }}
	}},
	{"the end of a program ends its VMs", "reopen", func(rt *inmem.Runtime) *faulty {
		f := &faulty{Runtime: rt}
		f.reopen = func() microvm.Runtime {
			_ = rt.GuestExits("was-running", microvm.StopReason{Cause: microvm.StopVMMDied}) // it does run
			return f
		}
		return f
	}},
	{"something is left behind", "order", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, leftovers: []string{"/run/a.sock"}}
	}},

	// Forks.
	{"a fork is its source under another name", "fork", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, fork: rt.RenameVM}
	}},
	{"a fork starts anew", "fork", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, fork: func(ctx context.Context, id, newID string) error {
			if _, err := rt.GetVM(ctx, id); err != nil {
				return err
			}
			return rt.CreateVM(ctx, newID)
		}}
	}},
	{"a fork stops its source", "fork", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, fork: func(ctx context.Context, id, newID string) error {
			err := rt.ForkVM(ctx, id, newID)
			if err == nil && id == "parent" {
				_ = rt.StopVM(ctx, id) // it may not be running
			}
			return err
		}}
	}},
	{"a fork leaves a snapshot on its source", "fork", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, fork: func(ctx context.Context, id, newID string) error {
			return errors.Join(rt.SnapshotVM(ctx, id, "fork-of-"+newID), rt.ForkVM(ctx, id, newID))
		}}
	}},
	{"a tombstone can be forked", "fork", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, fork: func(ctx context.Context, id, newID string) error {
			if err := rt.ForkVM(ctx, id, newID); !errors.Is(err, microvm.ErrInvalidTransition) {
				return err
			}
			return rt.CreateVM(ctx, newID)
		}}
	}},
}
