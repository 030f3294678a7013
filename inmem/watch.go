package inmem

import (
	"context"
	"slices"
	"time"

	"github.com/tangle-network/microvm"
)

// waiter waits for states of one VM. answer holds one view, or is closed when
// the VM went away.
type waiter struct {
	states []microvm.Status
	answer chan microvm.View
}

// WaitVM returns the first view in which the VM has one of the states.
func (r *Runtime) WaitVM(ctx context.Context, id string, states ...microvm.Status) (microvm.View, error) {
	if len(states) == 0 {
		return microvm.View{}, wrap("wait for", id, &microvm.FieldError{Field: "states", Value: "none", Rule: "at least one state to wait for"})
	}
	w := &waiter{states: states, answer: make(chan microvm.View, 1)}
	var v *vm
	err := r.look(ctx, "wait for", id, func(found *vm) error {
		v = found
		if slices.Contains(states, v.view.Status) {
			w.answer <- v.seen()
		} else {
			v.waiters = append(v.waiters, w)
		}
		return nil
	})
	if err != nil {
		return microvm.View{}, err
	}
	select {
	case view, ok := <-w.answer:
		if !ok {
			return microvm.View{}, wrap("wait for", id, microvm.ErrVMNotFound)
		}
		return view, nil
	case <-ctx.Done():
		r.mu.Lock()
		v.waiters = slices.DeleteFunc(v.waiters, func(o *waiter) bool { return o == w })
		r.mu.Unlock()
		return microvm.View{}, wrap("wait for", id, ctx.Err())
	}
}

// changed tells whoever waits or watches. r.mu is held.
func (r *Runtime) changed(v *vm) {
	v.waiters = slices.DeleteFunc(v.waiters, func(w *waiter) bool {
		hit := slices.Contains(w.states, v.view.Status)
		if hit {
			w.answer <- v.seen()
		}
		return hit
	})
	r.publish(v, false)
}

// gone tells that no VM of this name is listed any more. r.mu is held.
func (r *Runtime) gone(v *vm) {
	for _, w := range v.waiters {
		close(w.answer)
	}
	v.waiters = nil
	r.publish(v, true)
}

// maxPending bounds what a watch holds of one VM for a receiver that is slow.
const maxPending = 64

// watch is one receiver's queue. Runtime.mu guards pending.
type watch struct {
	pending []microvm.Event
	wake    chan struct{} // holds one token while pending has news
}

func (r *Runtime) publish(v *vm, gone bool) {
	for w := range r.watches {
		e := microvm.Event{Time: time.Now(), View: v.seen(), Gone: gone}
		ofThisVM := func(p microvm.Event) bool { return p.View.UID == e.View.UID }
		n := 0
		for _, p := range w.pending {
			if ofThisVM(p) {
				n++
			}
		}
		if n >= maxPending {
			i := slices.IndexFunc(w.pending, ofThisVM)
			w.pending = slices.Delete(w.pending, i, i+1)
		}
		w.pending = append(w.pending, e)
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Watch delivers an event for each change from now on. For a receiver that is
// slow the newest 64 events of each VM are kept.
func (r *Runtime) Watch(ctx context.Context) (<-chan microvm.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := &watch{wake: make(chan struct{}, 1)}
	r.mu.Lock()
	r.watches[w] = struct{}{}
	r.mu.Unlock()
	out := make(chan microvm.Event)
	go func() {
		defer close(out)
		defer func() {
			r.mu.Lock()
			delete(r.watches, w)
			r.mu.Unlock()
		}()
		for {
			select {
			case <-w.wake:
			case <-ctx.Done():
				return
			}
			for {
				r.mu.Lock()
				if len(w.pending) == 0 {
					r.mu.Unlock()
					break
				}
				e := w.pending[0]
				w.pending = slices.Delete(w.pending, 0, 1)
				r.mu.Unlock()
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out, nil
}
