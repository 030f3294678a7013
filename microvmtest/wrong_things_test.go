package microvmtest_test

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
)

// wrongThings break the rules about snapshots, tombstones, renames and restores.
var wrongThings = []wrong{
	// Snapshots and tombstones.
	{"a used snapshot name is overwritten", "snapshots", onVerb("snapshot", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		if errors.Is(err, microvm.ErrSnapshotExists) {
			return errors.Join(rt.DeleteSnapshot(ctx, c.id, c.arg), c.next(ctx))
		}
		return err
	})},
	{"snapshots are sorted by name", "snapshots", func(rt *inmem.Runtime) *faulty {
		return &faulty{
			Runtime: rt,
			view: func(v microvm.View) microvm.View {
				slices.Sort(v.Snapshots)
				return v
			},
			names: func(ctx context.Context, id string) ([]string, error) {
				names, err := rt.ListSnapshots(ctx, id)
				slices.Sort(names)
				return names, err
			},
		}
	}},
	{"tombstones are not listed", "tombstones", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, list: func(views []microvm.View) []microvm.View {
			return slices.DeleteFunc(views, func(v microvm.View) bool { return v.Status == microvm.StatusDestroyed })
		}}
	}},
	{"tombstones forget their snapshots", "tombstones", showing(func(v *microvm.View) {
		if v.Status == microvm.StatusDestroyed {
			v.Snapshots = []string{}
		}
	})},
	{"a tombstone gives its id away", "tombstones", onVerb("create", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		if v, err := rt.GetVM(ctx, c.id); err == nil && v.Status == microvm.StatusDestroyed {
			return nil
		}
		return c.next(ctx)
	})},
	{"snapshots die with their VM", "tombstones", onVerb("restore", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		if v, err := rt.GetVM(ctx, c.spec.RestoreFrom.VMID); err == nil && v.Status == microvm.StatusDestroyed && c.id != v.ID {
			return &microvm.Error{Verb: "restore", VMID: c.id, Err: microvm.ErrSnapshotNotFound}
		}
		return c.next(ctx)
	})},
	{"Prune takes young tombstones", "prune", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, prune: func(ctx context.Context, _ time.Time) ([]string, error) {
			return rt.Prune(ctx, time.Now().Add(time.Hour))
		}}
	}},
	{"Prune takes tombstones that have snapshots", "prune", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, prune: func(ctx context.Context, before time.Time) ([]string, error) {
			views, err := rt.ListVMs(ctx)
			for _, v := range views {
				for _, s := range v.Snapshots {
					if v.Status == microvm.StatusDestroyed && before.After(time.Now()) {
						err = errors.Join(err, rt.DeleteSnapshot(ctx, v.ID, s))
					}
				}
			}
			if err != nil {
				return nil, err
			}
			return rt.Prune(ctx, before)
		}}
	}},
	{"delete of a missing snapshot is yes", "delete snapshot", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, deleteSnapshot: func(ctx context.Context, id, name string) error {
			if err := rt.DeleteSnapshot(ctx, id, name); !errors.Is(err, microvm.ErrSnapshotNotFound) {
				return err
			}
			return nil
		}}
	}},
	{"delete takes the clones along", "delete snapshot", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, deleteSnapshot: func(ctx context.Context, id, name string) error {
			err := rt.DeleteSnapshot(ctx, id, name)
			if err == nil {
				_ = rt.DestroyVM(ctx, "clone") // only there in the section about it
			}
			return err
		}}
	}},

	// Renames.
	{"rename onto a used id is yes", "rename", forgiving("rename", microvm.ErrVMExists)},
	{"rename onto itself is yes", "rename", onVerb("rename", func(_ *inmem.Runtime, ctx context.Context, c call) error {
		if err := c.next(ctx); c.id != c.arg || !errors.Is(err, microvm.ErrVMExists) {
			return err
		}
		return nil
	})},
	{"rename takes the place of a tombstone", "rename", onVerb("rename", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		if v, err := rt.GetVM(ctx, c.arg); err == nil && v.Status == microvm.StatusDestroyed && c.id != c.arg {
			if _, err := rt.Prune(ctx, time.Now().Add(time.Hour)); err != nil {
				return err
			}
		}
		return c.next(ctx)
	})},
	{"rename loses the snapshots", "rename", onVerb("rename", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		if err := c.next(ctx); err != nil {
			return err
		}
		v, err := rt.GetVM(ctx, c.arg)
		for _, s := range v.Snapshots {
			err = errors.Join(err, rt.DeleteSnapshot(ctx, c.arg, s))
		}
		return err
	})},
	{"rename starts the VM anew", "rename", onVerb("rename", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		if v, _ := rt.GetVM(ctx, c.arg); err == nil && v.Status == microvm.StatusRunning {
			return errors.Join(rt.StopVM(ctx, c.arg), rt.StartVM(ctx, c.arg))
		}
		return err
	})},
	{"rename leaves a copy behind", "rename", onVerb("rename", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		if err := c.next(ctx); err != nil {
			return err
		}
		return rt.CreateVM(ctx, c.id)
	})},

	// Restores.
	{"restore of a missing snapshot is a new VM", "restore", onVerb("restore", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		if errors.Is(err, microvm.ErrSnapshotNotFound) {
			return rt.CreateVM(ctx, c.id)
		}
		return err
	})},
	{"restore from a missing VM is ErrVMNotFound", "restore", onVerb("restore", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		if _, err := rt.GetVM(ctx, c.spec.RestoreFrom.VMID); err != nil {
			return err
		}
		return c.next(ctx)
	})},
	{"restore always resumes", "restore", resuming(true)},
	{"restore never resumes", "restore", resuming(false)},
	{"a restored VM has no reason of its own", "restore", showing(func(v *microvm.View) {
		if v.StopReason != nil {
			v.StopReason.Cause = microvm.StopPaused
		}
	})},
	{"restore stops the source", "restore", onVerb("restore", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		if err == nil && c.spec.RestoreFrom.VMID == "source" {
			_ = rt.StopVM(ctx, "source") // it may not be running
		}
		return err
	})},
	{"labels of a restored VM are lost", "restore", onVerb("restore", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		c.spec.Labels = nil
		return rt.CreateVMWithSpec(ctx, c.id, c.spec)
	})},
	{"a cold snapshot is resumed", "cold restore", onVerb("restore", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		if err == nil && c.spec.RestoreFrom.ResumeImmediately {
			_ = rt.StartVM(ctx, c.id) // a warm one runs already
		}
		return err
	})},
}
