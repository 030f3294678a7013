package inmem

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/tangle-network/microvm"
)

// VMM is what View.VMM says of a VM of this package.
const VMM = "inmem"

// Runtime is a runtime in memory. Make one with New. Besides microvm.Runtime it
// is a Pruner, SnapshotManager, Forker, Waiter, Watcher and EgressUpdater.
type Runtime struct {
	// mu guards everything below and the fields of every vm but turn. It is held
	// for moments only: a verb that takes its time holds its VM's turn instead.
	mu       sync.Mutex
	vms      map[string]*vm
	reserved map[string]chan struct{} // ids that a verb in flight is about to use; closed when it has ended
	created  int                      // VMs ever made: their uids are numbered
	orders   map[Verb][]order
	watches  map[*watch]struct{}
}

var (
	_ microvm.Runtime         = (*Runtime)(nil)
	_ microvm.Pruner          = (*Runtime)(nil)
	_ microvm.SnapshotManager = (*Runtime)(nil)
	_ microvm.Forker          = (*Runtime)(nil)
	_ microvm.Waiter          = (*Runtime)(nil)
	_ microvm.Watcher         = (*Runtime)(nil)
	_ microvm.EgressUpdater   = (*Runtime)(nil)
)

// New returns an empty runtime.
func New() *Runtime {
	return &Runtime{
		vms:      map[string]*vm{},
		reserved: map[string]chan struct{}{},
		orders:   map[Verb][]order{},
		watches:  map[*watch]struct{}{},
	}
}

// vm is one machine. Its turn is held for the length of a verb.
type vm struct {
	turn      chan struct{}
	view      microvm.View // without Snapshots
	spec      microvm.Spec
	snapshots []snapshot
	memory    bool // what runs or ran is still in memory: a snapshot holds it
	destroyed time.Time
	waiters   []*waiter
}

// snapshot never changes once it is made, so restores may share it.
type snapshot struct {
	info microvm.SnapshotInfo
	spec microvm.Spec
}

// seen is the view of the VM, sharing nothing with it. r.mu is held.
func (v *vm) seen() microvm.View {
	view := v.view
	view.Snapshots = make([]string, 0, len(v.snapshots))
	for _, s := range v.snapshots {
		view.Snapshots = append(view.Snapshots, s.info.Name)
	}
	view.Labels = cloneLabels(v.view.Labels)
	view.Addresses, view.Ports = slices.Clone(v.view.Addresses), slices.Clone(v.view.Ports)
	if r := v.view.StopReason; r != nil {
		view.StopReason = cloneReason(*r)
	}
	return view
}

func (v *vm) snapshot(name string) (snapshot, bool) {
	i := slices.IndexFunc(v.snapshots, func(s snapshot) bool { return s.info.Name == name })
	if i < 0 {
		return snapshot{}, false
	}
	return v.snapshots[i], true
}

func cloneReason(r microvm.StopReason) *microvm.StopReason {
	if r.ExitCode != nil {
		code := *r.ExitCode
		r.ExitCode = &code
	}
	return &r
}

func cloneLabels(m map[string]string) map[string]string {
	if len(m) == 0 {
		return nil
	}
	c := make(map[string]string, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

// verb carries out one verb on one VM: it waits for the VM's turn, checks with
// legal, obeys what was ordered, checks again (a guest may have ended
// meanwhile) and applies.
func (r *Runtime) verb(ctx context.Context, name Verb, id string, legal func(*vm) error, apply func(*vm)) error {
	err := r.onVM(ctx, id, func(v *vm) error {
		if err := r.locked(func() error { return legal(v) }); err != nil {
			return err
		}
		if err := r.obey(ctx, name); err != nil {
			return err
		}
		return r.locked(func() error {
			if err := legal(v); err != nil {
				return err
			}
			apply(v)
			return nil
		})
	})
	return wrap(name, id, err)
}

func (r *Runtime) locked(f func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return f()
}

// onVM runs f in the VM's turn.
func (r *Runtime) onVM(ctx context.Context, id string, f func(*vm) error) error {
	if err := microvm.ValidateID(id); err != nil {
		return err
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.mu.Lock()
		v := r.vms[id]
		r.mu.Unlock()
		if v == nil {
			return microvm.ErrVMNotFound
		}
		select {
		case v.turn <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		r.mu.Lock()
		same := r.vms[id] == v
		r.mu.Unlock()
		if !same { // renamed or pruned while we waited
			<-v.turn
			continue
		}
		defer func() { <-v.turn }()
		return f(v)
	}
}

// reserve takes an id that no VM has, waiting for a verb in flight that may yet
// give it up. The caller must call free, having put a VM there or not.
func (r *Runtime) reserve(ctx context.Context, id string) (free func(), err error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r.mu.Lock()
		if r.vms[id] != nil {
			r.mu.Unlock()
			return nil, microvm.ErrVMExists
		}
		taken := r.reserved[id]
		if taken == nil {
			done := make(chan struct{})
			r.reserved[id] = done
			r.mu.Unlock()
			return func() {
				r.mu.Lock()
				delete(r.reserved, id)
				r.mu.Unlock()
				close(done)
			}, nil
		}
		r.mu.Unlock()
		select {
		case <-taken:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// add makes v a VM of this runtime. r.mu is held, the id is reserved.
func (r *Runtime) add(id string, v *vm) {
	r.created++
	v.turn = make(chan struct{}, 1)
	v.view.ID = id
	v.view.UID = fmt.Sprintf("inmem-%d", r.created)
	v.view.VMM = VMM
	v.view.Labels = cloneLabels(v.spec.Labels)
	v.view.SpecDigest = v.spec.Digest()
	if n := v.spec.ManagedNetwork(); n != nil {
		v.view.Addresses, v.view.Ports = []netip.Addr{r.address()}, n.Publish
	}
	r.vms[id] = v
	r.changed(v)
}

func wrap(name Verb, id string, err error) error {
	if err == nil {
		return nil
	}
	var e *microvm.Error
	if errors.As(err, &e) {
		return err
	}
	return &microvm.Error{Verb: string(name), VMID: id, Err: err}
}
