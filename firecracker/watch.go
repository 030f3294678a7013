package firecracker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tangle-network/microvm"
)

// Watch delivers an event for each change of a VM that any program makes on the
// state directory, until ctx ends or the runtime is closed. Changes that follow
// each other at once may come as one.
func (r *Runtime) Watch(ctx context.Context) (<-chan microvm.Event, error) {
	if err := r.enter(); err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	if err := ctx.Err(); err != nil {
		r.leave()
		return nil, fmt.Errorf("watch: %w", err)
	}
	s, err := r.feed.subscribe("")
	if err != nil {
		r.leave()
		return nil, fmt.Errorf("watch: %w", err)
	}
	out := make(chan microvm.Event)
	go func() {
		defer r.leave()
		defer close(out)
		defer r.feed.unsubscribe(s)
		for {
			e, ok := s.next(ctx, r.ctx)
			if !ok {
				return
			}
			select {
			case out <- e:
			case <-ctx.Done():
				return
			case <-r.ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// WaitVM waits until the VM has one of the states.
func (r *Runtime) WaitVM(ctx context.Context, id string, states ...microvm.Status) (microvm.View, error) {
	fail := func(v microvm.View, err error) (microvm.View, error) {
		e := &microvm.Error{Verb: "wait for", VMID: id, Err: err}
		if v.UID != "" && !errors.Is(err, microvm.ErrVMNotFound) {
			if rec, err := r.store.Load(id); err == nil && rec.UID == v.UID {
				e = r.withEvidence(e, rec)
			}
		}
		return v, e
	}
	if len(states) == 0 {
		return fail(microvm.View{}, fmt.Errorf("%w: no state to wait for", microvm.ErrInvalidSpec))
	}
	if err := microvm.ValidateID(id); err != nil {
		return fail(microvm.View{}, err)
	}
	if err := r.enter(); err != nil {
		return fail(microvm.View{}, err)
	}
	defer r.leave()
	s, err := r.feed.subscribe(id)
	if err != nil {
		return fail(microvm.View{}, err)
	}
	defer r.feed.unsubscribe(s)
	v, err := r.GetVM(ctx, id)
	for {
		if err != nil {
			return fail(v, err)
		}
		for _, want := range states {
			if v.Status == want {
				return v, nil
			}
		}
		e, ok := s.next(ctx, r.ctx)
		switch {
		case !ok:
			if err = ctx.Err(); err == nil {
				err = ErrClosed
			}
		case e.Gone:
			err = microvm.ErrVMNotFound
		default:
			v = e.View
		}
	}
}

// subscriber is one receiver of the feed. Events of a VM that is not read wait,
// the newest of them.
type subscriber struct {
	only   string // one VM's id; empty: all
	feed   *feed
	ready  chan struct{}
	events []microvm.Event // guarded by feed.mu
}

// maxWaiting bounds how many events of one VM wait for a slow receiver.
const maxWaiting = 16

// add queues an event, in place of the VM's oldest when too many wait. The feed's
// mutex is held.
func (s *subscriber) add(e microvm.Event) {
	if s.only != "" && s.only != e.View.ID {
		return
	}
	n, oldest := 0, 0
	for i := len(s.events) - 1; i >= 0; i-- {
		if s.events[i].View.ID == e.View.ID {
			n, oldest = n+1, i
		}
	}
	if n >= maxWaiting {
		s.events = append(s.events[:oldest], s.events[oldest+1:]...)
	}
	s.events = append(s.events, e)
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// next waits for an event until one of the contexts ends.
func (s *subscriber) next(ctx, closed context.Context) (microvm.Event, bool) {
	for {
		s.feed.mu.Lock()
		if len(s.events) > 0 {
			e := s.events[0]
			s.events = s.events[1:]
			s.feed.mu.Unlock()
			return e, true
		}
		s.feed.mu.Unlock()
		select {
		case <-s.ready:
		case <-ctx.Done():
			return microvm.Event{}, false
		case <-closed.Done():
			return microvm.Event{}, false
		}
	}
}

// look reads a VM anew and tells the subscribers what has changed. The feed's
// mutex is held.
func (f *feed) look(id string) {
	v, err := f.view(id)
	last, known := f.known[id]
	e := microvm.Event{Time: time.Now().UTC(), View: v}
	switch {
	case errors.Is(err, microvm.ErrVMNotFound):
		if !known {
			return
		}
		delete(f.known, id)
		e.View, e.Gone = last, true
	case err != nil:
		f.log.Warn("a change of a VM can't be told", "vm", id, "err", err)
		return
	case known && sameView(last, v):
		return
	default:
		f.known[id] = v
	}
	for s := range f.subs {
		s.add(e)
	}
}
