package microvmtest_test

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
)

// wrong is a provider that breaks one rule, and a section of the suite that has
// to find it.
type wrong struct {
	name    string
	section string
	make    func(rt *inmem.Runtime) *faulty
}

// onVerb makes a provider with a fault in one verb.
func onVerb(name string, f func(rt *inmem.Runtime, ctx context.Context, c call) error) func(*inmem.Runtime) *faulty {
	return func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, verb: func(ctx context.Context, c call) error {
			if c.verb != name && name != "any" {
				return c.next(ctx)
			}
			return f(rt, ctx, c)
		}}
	}
}

// forgiving swallows an error of one verb.
func forgiving(verb string, sentinel error) func(*inmem.Runtime) *faulty {
	return onVerb(verb, func(_ *inmem.Runtime, ctx context.Context, c call) error {
		if err := c.next(ctx); !errors.Is(err, sentinel) {
			return err
		}
		return nil
	})
}

// forgivingIn swallows ErrInvalidTransition from one state.
func forgivingIn(verb string, state microvm.Status) func(*inmem.Runtime) *faulty {
	return onVerb(verb, func(_ *inmem.Runtime, ctx context.Context, c call) error {
		err := c.next(ctx)
		var e *microvm.TransitionError
		if errors.As(err, &e) && e.From == state {
			return nil
		}
		return err
	})
}

// showing changes what views say.
func showing(f func(v *microvm.View)) func(*inmem.Runtime) *faulty {
	return func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, view: func(v microvm.View) microvm.View {
			f(&v)
			return v
		}}
	}
}

var wrongs = slices.Concat(wrongStates, wrongThings, wrongTimes, wrongLives, wrongDevices, wrongNetworks)

// resuming ignores what the caller asked for.
func resuming(always bool) func(*inmem.Runtime) *faulty {
	return onVerb("restore", func(rt *inmem.Runtime, ctx context.Context, c call) error {
		from := *c.spec.RestoreFrom
		from.ResumeImmediately = always
		c.spec.RestoreFrom = &from
		return rt.CreateVMWithSpec(ctx, c.id, c.spec)
	})
}

// sharing gives out parts of views that it has given out before.
func sharing(share func(v, old *microvm.View)) func(*inmem.Runtime) *faulty {
	return func(rt *inmem.Runtime) *faulty {
		var mu sync.Mutex
		given := map[string]microvm.View{}
		return &faulty{Runtime: rt, view: func(v microvm.View) microvm.View {
			mu.Lock()
			defer mu.Unlock()
			if old, ok := given[v.UID]; ok {
				share(&v, &old)
			}
			given[v.UID] = v
			return v
		}}
	}
}

// filtering is a Watch that leaves out events.
func filtering(keep func(microvm.Event) bool) func(*inmem.Runtime) *faulty {
	return func(rt *inmem.Runtime) *faulty {
		return &faulty{Runtime: rt, watch: func(ctx context.Context) (<-chan microvm.Event, error) {
			in, err := rt.Watch(ctx)
			if err != nil {
				return nil, err
			}
			out := make(chan microvm.Event)
			go func() {
				defer close(out)
				for e := range in {
					if !keep(e) {
						continue
					}
					select {
					case out <- e:
					case <-ctx.Done():
					}
				}
			}()
			return out, nil
		}}
	}
}
