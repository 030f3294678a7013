package microvmtest_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
)

// wrongTimes break the rules about contexts, callers at once, waiting, and what only a history shows.
var wrongTimes = []wrong{
	// Contexts.
	{"contexts are ignored", "dead contexts", onVerb("any", func(_ *inmem.Runtime, ctx context.Context, c call) error {
		return c.next(context.WithoutCancel(ctx))
	})},
	{"queries ignore contexts", "dead contexts", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, get: func(ctx context.Context, id string) (microvm.View, error) {
			return rt.GetVM(context.WithoutCancel(ctx), id)
		}}
	}},
	{"a cancelled create leaves its VM", "dead contexts", onVerb("create", func(_ *inmem.Runtime, ctx context.Context, c call) error {
		return errors.Join(c.next(context.WithoutCancel(ctx)), ctx.Err())
	})},
	{"a cancelled verb has an error of its own", "dead contexts", onVerb("any", func(_ *inmem.Runtime, ctx context.Context, c call) error {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		return c.next(ctx)
	})},
	{"a cancelled start destroys the VM", "verbs in flight", onVerb("start", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		if errors.Is(err, context.Canceled) {
			return errors.Join(err, rt.DestroyVM(context.WithoutCancel(ctx), c.id))
		}
		return err
	})},
	{"a start that is cut off loses the VM", "cancelled contexts", onVerb("start", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		select {
		case <-time.After(30 * time.Millisecond): // what a boot takes
			return c.next(ctx)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), rt.DestroyVM(context.WithoutCancel(ctx), c.id))
		}
	})},
	{"a restore that is cut off leaves its VM", "cancelled contexts", onVerb("restore", func(_ *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(context.WithoutCancel(ctx))
		select {
		case <-time.After(30 * time.Millisecond): // what it takes to look at the guest
			return err
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	})},
	{"a verb cancelled half-way reports success", "verbs in flight", forgiving("snapshot", context.Canceled)},
	{"the VM ends with the context that started it", "spent contexts", onVerb("start", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		if err == nil {
			context.AfterFunc(ctx, func() {
				_ = rt.GuestExits(c.id, microvm.StopReason{}) // it may have been stopped
			})
		}
		return err
	})},

	// Callers.
	{"one lock for everything", "verbs in flight", func(rt *inmem.Runtime) *faulty {
		var mu sync.Mutex
		return &faulty{Runtime: rt, verb: func(ctx context.Context, c call) error {
			mu.Lock()
			defer mu.Unlock()
			return c.next(ctx)
		}}
	}},
	{"queries wait for verbs", "verbs in flight", func(rt *inmem.Runtime) *faulty {
		var mu sync.Map // id → *sync.Mutex
		lock := func(id string) *sync.Mutex {
			m, _ := mu.LoadOrStore(id, &sync.Mutex{})
			return m.(*sync.Mutex)
		}
		return &faulty{
			Runtime: rt,
			verb: func(ctx context.Context, c call) error {
				m := lock(c.id)
				m.Lock()
				defer m.Unlock()
				return c.next(ctx)
			},
			get: func(ctx context.Context, id string) (microvm.View, error) {
				m := lock(id)
				m.Lock()
				defer m.Unlock()
				return rt.GetVM(ctx, id)
			},
		}
	}},
	{"create checks, then makes", "one VM, many callers", func(rt *inmem.Runtime) *faulty {
		var late sync.Map // ids that somebody is making
		return &faulty{Runtime: rt, verb: func(ctx context.Context, c call) error {
			if c.verb != "create" || c.id != "contended" {
				return c.next(ctx)
			}
			if _, err := rt.GetVM(ctx, c.id); err == nil {
				return c.next(ctx)
			}
			_, second := late.LoadOrStore(c.id, true)
			time.Sleep(50 * time.Millisecond)
			err := c.next(ctx)
			if second && errors.Is(err, microvm.ErrVMExists) {
				return nil
			}
			return err
		}}
	}},
	{"snapshots made at once get lost", "one VM, many callers", func(rt *inmem.Runtime) *faulty {
		var busy sync.Map
		return &faulty{Runtime: rt, verb: func(ctx context.Context, c call) error {
			if c.verb != "snapshot" || !strings.HasPrefix(c.arg, "own") {
				return c.next(ctx)
			}
			if _, other := busy.LoadOrStore(c.id, true); other {
				return nil
			}
			defer busy.Delete(c.id)
			time.Sleep(50 * time.Millisecond)
			return c.next(ctx)
		}}
	}},
	{"two renames onto one name both succeed", "one name, many callers", func(rt *inmem.Runtime) *faulty {
		var mu sync.Mutex
		seen := map[string]bool{}
		return &faulty{Runtime: rt, verb: func(ctx context.Context, c call) error {
			if c.verb != "rename" {
				return c.next(ctx)
			}
			err := c.next(ctx)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, microvm.ErrVMExists) && seen[c.arg] && c.arg == "prize" {
				return nil
			}
			seen[c.arg] = true
			return err
		}}
	}},
	{"a VM in a crowd is lost", "many VMs", func(rt *inmem.Runtime) *faulty {
		var created atomic.Int32
		return &faulty{Runtime: rt, verb: func(ctx context.Context, c call) error {
			err := c.next(ctx)
			if err == nil && c.verb == "create" && created.Add(1) == 12 {
				return rt.DestroyVM(ctx, c.id)
			}
			return err
		}}
	}},
	{"a guest's end goes unseen", "guest ends", showing(func(v *microvm.View) {
		if v.StopReason != nil && v.StopReason.Cause == microvm.StopGuest {
			v.Status, v.StopReason = microvm.StatusRunning, nil
		}
	})},

	// Optional interfaces.
	{"WaitVM does not wait", "wait", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, wait: func(ctx context.Context, id string, _ []microvm.Status) (microvm.View, error) {
			return rt.GetVM(ctx, id)
		}}
	}},
	{"WaitVM outlives its VM", "wait", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, wait: func(ctx context.Context, id string, states []microvm.Status) (microvm.View, error) {
			_, before := rt.GetVM(ctx, id)
			v, err := rt.WaitVM(ctx, id, states...)
			if before == nil && errors.Is(err, microvm.ErrVMNotFound) {
				<-ctx.Done()
				return v, ctx.Err()
			}
			return v, err
		}}
	}},
	{"Watch never ends", "watch", func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, watch: func(ctx context.Context) (<-chan microvm.Event, error) {
			return rt.Watch(context.WithoutCancel(ctx))
		}}
	}},
	{"Watch does not tell of VMs that are gone", "watch", filtering(func(e microvm.Event) bool { return !e.Gone })},
	{"Watch does not tell of snapshots", "watch", filtering(func(e microvm.Event) bool {
		return len(e.View.Snapshots) == 0 || e.View.Status != microvm.StatusRunning
	})},

	// What only a history shows.
	{"snapshots of a tombstone always resume", "histories", onVerb("restore", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		from := *c.spec.RestoreFrom
		if v, err := rt.GetVM(ctx, from.VMID); err == nil && v.Status == microvm.StatusDestroyed {
			from.ResumeImmediately = true
			c.spec.RestoreFrom = &from
		}
		return rt.CreateVMWithSpec(ctx, c.id, c.spec)
	})},
	{"the second generation of a cold snapshot is warm", "histories", func(rt *inmem.Runtime) *faulty {
		var cold sync.Map // ids restored from a cold snapshot
		return &faulty{Runtime: rt, verb: func(ctx context.Context, c call) error {
			err := c.next(ctx)
			if c.verb != "restore" || err != nil {
				return err
			}
			if v, err := rt.GetVM(ctx, c.id); err != nil || v.Status != microvm.StatusCreated {
				return err
			}
			if _, second := cold.Load(c.spec.RestoreFrom.VMID); second {
				return rt.StartVM(ctx, c.id)
			}
			cold.Store(c.id, true)
			return nil
		}}
	}},
}
