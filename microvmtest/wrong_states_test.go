package microvmtest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
)

// wrongStates break the rules about what a single call answers or a view says.
var wrongStates = []wrong{
	// The table.
	{"create of a used id does nothing and says yes", "table", forgiving("create", microvm.ErrVMExists)},
	{"start of a running VM is yes", "table", forgivingIn("start", microvm.StatusRunning)},
	{"start of a destroyed VM is yes", "table", forgivingIn("start", microvm.StatusDestroyed)},
	{"stop of a created VM is yes", "table", forgivingIn("stop", microvm.StatusCreated)},
	{"stop of a stopped VM is yes", "table", forgivingIn("stop", microvm.StatusStopped)},
	{"destroy of a destroyed VM is yes", "table", forgivingIn("destroy", microvm.StatusDestroyed)},
	{"snapshot of a destroyed VM is yes", "table", forgivingIn("snapshot", microvm.StatusDestroyed)},
	{"rename of a destroyed VM is yes", "table", forgivingIn("rename", microvm.StatusDestroyed)},
	{"destroy of a missing VM is yes", "table", forgiving("destroy", microvm.ErrVMNotFound)},
	{"start makes a missing VM", "table", onVerb("start", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		if errors.Is(err, microvm.ErrVMNotFound) {
			return rt.CreateVM(ctx, c.id)
		}
		return err
	})},
	{"snapshot of a created VM is refused", "table", onVerb("snapshot", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		if v, err := rt.GetVM(ctx, c.id); err == nil && v.Status == microvm.StatusCreated {
			return &microvm.TransitionError{VMID: c.id, From: v.Status}
		}
		return c.next(ctx)
	})},
	{"a refusal is the bare sentinel", "table", onVerb("stop", func(_ *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		if errors.Is(err, microvm.ErrInvalidTransition) {
			return fmt.Errorf("stop VM %q: %w", c.id, microvm.ErrInvalidTransition)
		}
		return err
	})},
	{"a refusal names the wrong state", "table", onVerb("start", func(_ *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		var e *microvm.TransitionError
		if errors.As(err, &e) {
			e.From, e.To = e.To, e.From
		}
		return err
	})},
	{"a refusal does not name the VM", "table", onVerb("any", func(_ *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		if errors.Is(err, microvm.ErrVMNotFound) {
			return microvm.ErrVMNotFound
		}
		return err
	})},
	{"a refusal is every error at once", "table", onVerb("any", func(_ *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		if errors.Is(err, microvm.ErrVMNotFound) {
			return errors.Join(err, microvm.ErrVMExists)
		}
		return err
	})},
	{"a refused start stops the VM", "table", onVerb("start", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		if errors.Is(err, microvm.ErrInvalidTransition) {
			_ = rt.StopVM(ctx, c.id) // a destroyed VM has nothing to stop
		}
		return err
	})},
	{"snapshots of a missing VM are none", "table", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, names: func(ctx context.Context, id string) ([]string, error) {
			names, err := rt.ListSnapshots(ctx, id)
			if errors.Is(err, microvm.ErrVMNotFound) {
				return []string{}, nil
			}
			return names, err
		}}
	}},
	{"start does nothing", "table", onVerb("start", func(_ *inmem.Runtime, ctx context.Context, c call) error { return nil })},

	// Names.
	{"ids of 65 bytes are cut", "ids", onVerb("create", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		if len(c.id) > 64 {
			return rt.CreateVMWithSpec(ctx, c.id[:64], c.spec)
		}
		return c.next(ctx)
	})},
	{"ids of 64 bytes are refused", "ids", onVerb("create", func(_ *inmem.Runtime, ctx context.Context, c call) error {
		if len(c.id) == 64 {
			return &microvm.FieldError{Field: "id", Value: c.id, Rule: "63 bytes"}
		}
		return c.next(ctx)
	})},
	{"slashes in ids are rewritten", "ids", onVerb("any", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		if c.verb == "create" && strings.Contains(c.id, "/") && !strings.Contains(c.id, "..") {
			return rt.CreateVM(ctx, "slash")
		}
		return c.next(ctx)
	})},
	{"blanks around a snapshot's name are cut", "ids", onVerb("snapshot", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		return rt.SnapshotVM(ctx, c.id, strings.TrimSpace(c.arg))
	})},
	{"a bad id is not found", "ids", onVerb("destroy", func(_ *inmem.Runtime, ctx context.Context, c call) error {
		if microvm.ValidateID(c.id) != nil {
			return &microvm.Error{Verb: "destroy", VMID: c.id, Err: microvm.ErrVMNotFound}
		}
		return c.next(ctx)
	})},

	// Specs.
	{"specs are not validated", "specs", onVerb("create", func(_ *inmem.Runtime, ctx context.Context, c call) error {
		if c.spec.VCPUs > microvm.MaxVCPUs {
			return nil
		}
		return c.next(ctx)
	})},
	{"only the first fault is told", "specs", onVerb("create", func(_ *inmem.Runtime, ctx context.Context, c call) error {
		if err := c.spec.Validate(); err != nil {
			var f *microvm.FieldError
			errors.As(err, &f)
			return &microvm.Error{Verb: "create", VMID: c.id, Err: f}
		}
		return c.next(ctx)
	})},
	{"a VM with a bad spec is made nevertheless", "specs", onVerb("create", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		if errors.Is(err, microvm.ErrInvalidSpec) && microvm.ValidateID(c.id) == nil {
			_ = rt.CreateVM(ctx, c.id) // it is the wrong thing to do already
		}
		return err
	})},
	{"labels are lost", "specs", showing(func(v *microvm.View) { v.Labels = nil })},

	// Views.
	{"CreatedAt is unset", "views", showing(func(v *microvm.View) { v.CreatedAt = time.Time{} })},
	{"StartedAt is unset", "views", showing(func(v *microvm.View) { v.StartedAt = time.Time{} })},
	{"StoppedAt is before StartedAt", "views", showing(func(v *microvm.View) {
		if !v.StoppedAt.IsZero() {
			v.StoppedAt = v.CreatedAt.Add(-time.Second)
		}
	})},
	{"a stopped VM has no reason", "views", showing(func(v *microvm.View) { v.StopReason = nil })},
	{"a running VM has a reason", "views", showing(func(v *microvm.View) {
		if v.Status == microvm.StatusRunning {
			v.StopReason = &microvm.StopReason{Cause: microvm.StopPaused}
		}
	})},
	{"Snapshots may be nil", "views", showing(func(v *microvm.View) {
		if len(v.Snapshots) == 0 {
			v.Snapshots = nil
		}
	})},
	{"every VM has the same UID", "views", showing(func(v *microvm.View) { v.UID = "one" })},
	{"ListVMs is in reverse", "order", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, list: func(views []microvm.View) []microvm.View {
			slices.Reverse(views)
			return views
		}}
	}},
	{"ListVMs is sorted without regard to case", "order", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, list: func(views []microvm.View) []microvm.View {
			slices.SortFunc(views, func(a, b microvm.View) int {
				return strings.Compare(strings.ToLower(a.ID), strings.ToLower(b.ID))
			})
			return views
		}}
	}},
	{"views share their labels", "copies", sharing(func(v, old *microvm.View) { v.Labels = old.Labels })},
	{"views share their snapshots", "copies", sharing(func(v, old *microvm.View) {
		if slices.Compare(v.Snapshots, old.Snapshots) <= 0 || len(v.Snapshots) == len(old.Snapshots) {
			v.Snapshots = old.Snapshots
		}
	})},
	{"views share their reason", "copies", sharing(func(v, old *microvm.View) {
		if v.StopReason != nil && old.StopReason != nil {
			v.StopReason = old.StopReason
		}
	})},
	{"stop modes are ignored", "stop modes", onVerb("create", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		if c.spec.Validate() == nil {
			c.spec.StopMode = ""
		}
		return rt.CreateVMWithSpec(ctx, c.id, c.spec)
	})},
}
