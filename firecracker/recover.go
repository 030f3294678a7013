package firecracker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/vmm"
)

// DefaultRepairs is how many destructive repairs one run of Recover makes unless
// its options say otherwise. A crash cuts off the verbs that were in flight; many
// more than that are a sign that something else is wrong, and that a person
// should look before VMMs are ended and files removed.
const DefaultRepairs = 64

// RecoverOptions changes what Recover does.
type RecoverOptions struct {
	// DryRun reports and changes nothing.
	DryRun bool
	// Repairs bounds the destructive repairs of this run: VMMs that are ended, VMs
	// and files of VMs that are removed. 0 means DefaultRepairs, a negative number
	// no bound. What is left for a later run is reported in Report.Deferred.
	Repairs int
}

// Report is what Recover has found and done. The ids are those of VMs, sorted.
type Report struct {
	Adopted    []string   `json:"adopted"`     // run, and are watched now
	Finished   []string   `json:"finished"`    // a verb that was cut off, or a death, was brought to its end
	RolledBack []string   `json:"rolled_back"` // a creation that was cut off was taken back
	Busy       []string   `json:"busy"`        // in the hands of a verb of another program
	Deferred   []string   `json:"deferred"`    // left to a later run: the bound on destructive repairs was reached; paths for what has no id
	SetAside   []SetAside `json:"set_aside"`   // can't be used: left as they are
}

// SetAside is a VM that could not be recovered.
type SetAside struct {
	Path string `json:"path"`
	Err  string `json:"error"`
}

// Recover adopts the VMMs that run, finishes or takes back verbs that a crash has
// cut off, and reports what it can't read. It waits for nobody: a VM that another
// program is working on is left to it. It makes at most RecoverOptions.Repairs
// destructive repairs: taking back a creation, finishing a destroy, ending a VMM
// that no record names. Adopting, noting a death, and letting a guest go on that a
// snapshot had paused are none. Open calls it.
func (r *Runtime) Recover(ctx context.Context, opts RecoverOptions) (Report, error) {
	if err := r.enter(); err != nil {
		return Report{}, fmt.Errorf("recover: %w", err)
	}
	defer r.leave()
	rec := newRecovery(r, opts)
	err := rec.run(ctx)
	if err != nil {
		err = fmt.Errorf("recover: %w", err)
	}
	return rec.sorted(), err
}

// recovery is one run of Recover.
type recovery struct {
	r       *Runtime
	dry     bool
	repairs int // that may still be made

	mu  sync.Mutex // of rep, while the living are looked for
	rep Report
}

func newRecovery(r *Runtime, opts RecoverOptions) *recovery {
	rec := &recovery{r: r, dry: opts.DryRun, repairs: opts.Repairs}
	switch {
	case opts.Repairs == 0:
		rec.repairs = DefaultRepairs
	case opts.Repairs < 0:
		rec.repairs = int(^uint(0) >> 1)
	}
	rec.rep = Report{Adopted: []string{}, Finished: []string{}, RolledBack: []string{}, Busy: []string{}, Deferred: []string{}, SetAside: []SetAside{}}
	return rec
}

func (rec *recovery) run(ctx context.Context) error {
	ids, err := rec.r.store.IDs()
	if err != nil {
		return err
	}
	rest, err := rec.adoptAll(ctx, ids)
	if err != nil {
		return err
	}
	// In another order each time: repairs that always fail must not use up the
	// bound of every run.
	rand.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	for _, id := range rest {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec.mend(ctx, id)
	}
	if err := rec.reconcileNetworks(ctx); err != nil {
		rec.aside(networksName, err) // queries go on
	}
	return rec.removeLeftovers()
}

// sorted is the report in the order in which people look for names.
func (rec *recovery) sorted() Report {
	p := &rec.rep
	for _, ids := range [][]string{p.Adopted, p.Finished, p.RolledBack, p.Busy, p.Deferred} {
		slices.Sort(ids)
	}
	slices.SortFunc(p.SetAside, func(a, b SetAside) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	return *p
}

func (rec *recovery) aside(path string, err error) {
	rec.rep.SetAside = append(rec.rep.SetAside, SetAside{path, err.Error()})
}

// adoptAll looks at all VMs, many at a time, and returns those that need more
// than to be watched. That takes no lock.
func (rec *recovery) adoptAll(ctx context.Context, ids []string) (rest []string, err error) {
	next := make(chan string)
	var wg sync.WaitGroup
	for range min(len(ids), 4*runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for id := range next {
				if !rec.adoptOne(id) {
					rec.mu.Lock()
					rest = append(rest, id)
					rec.mu.Unlock()
				}
			}
		})
	}
	for _, id := range ids {
		if err = ctx.Err(); err != nil {
			break
		}
		next <- id
	}
	close(next)
	wg.Wait()
	return rest, err
}

// adoptOne returns false when the VM needs its lock to be taken.
func (rec *recovery) adoptOne(id string) bool {
	dir := rec.r.store.Dir(id)
	vm, err := rec.r.store.Load(id)
	if err != nil {
		return false
	}
	if in, err := rec.r.store.Intent(id); err != nil || in != nil {
		return false
	}
	if rec.r.cutForks(vm) {
		return false
	}
	if vm.Process == nil {
		return true
	}
	err = rec.r.lookFor(vm, rec.dry)
	if errors.Is(err, vmm.ErrGone) {
		return false
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if err != nil {
		rec.aside(filepath.Join(dir, "vm.json"), err)
	} else {
		rec.rep.Adopted = append(rec.rep.Adopted, id)
	}
	return true
}

// mend finishes or takes back what was cut off on one VM, or notes its death.
func (rec *recovery) mend(ctx context.Context, id string) {
	r, rep := rec.r, &rec.rep
	path := filepath.Join(r.store.Dir(id), "vm.json")
	l, err := r.store.TryLock(id)
	if err != nil {
		if !errors.Is(err, microvm.ErrVMNotFound) {
			rec.aside(path, err)
		}
		return
	}
	if l == nil {
		rep.Busy = append(rep.Busy, id)
		return
	}
	defer l.Unlock()
	o := &op{Locked: l, r: r, ctx: ctx, verb: "recover"}
	if l.Rec == nil && !o.unfinishedCreate() {
		rec.aside(path, errors.New("the VM's record is missing, and no creation was under way"))
		return
	}
	if o.destructive() && !rec.mayRepair(id) {
		return
	}
	if l.Rec == nil {
		if !rec.dry {
			if err := o.takeBackCreate(); err != nil {
				rec.aside(path, err)
				return
			}
		}
		rep.RolledBack = append(rep.RolledBack, id)
		return
	}
	if !rec.dry {
		// A VMM that does not answer must not keep the others waiting.
		var cancel context.CancelFunc
		o.ctx, cancel = context.WithTimeout(ctx, r.cfg.APITimeout)
		defer cancel()
		if err := o.settle(); errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			rep.Busy = append(rep.Busy, id)
			r.recoverLater(id)
			return
		} else if err != nil {
			rec.aside(path, err)
			return
		}
		if o.Rec.Process != nil {
			rep.Adopted = append(rep.Adopted, id)
		}
	}
	rep.Finished = append(rep.Finished, id)
}

// mayRepair takes one destructive repair off the bound.
func (rec *recovery) mayRepair(what string) bool {
	if rec.repairs == 0 {
		rec.rep.Deferred = append(rec.rep.Deferred, what)
		return false
	}
	rec.repairs--
	return true
}

// destructive says whether bringing a VM in line may end a VMM or remove a VM's
// files. A snapshot's draft is not counted: nobody could ever have used it, and a
// guest may stand still behind it.
func (o *op) destructive() bool {
	in := o.Intent
	switch {
	case in == nil:
		return false // a death
	case o.Rec == nil, in.Verb == "destroy", in.Verb == "", in.Hibernated:
		return true
	case o.Rec.Process == nil:
		return in.Verb == "start" // it may have started one
	}
	return in.Process != nil && identity(in.Process) != identity(o.Rec.Process)
}

// removeLeftovers removes what a crash has left between two names.
func (rec *recovery) removeLeftovers() error {
	left, err := rec.r.store.Leftovers()
	if err != nil {
		return err
	}
	for _, path := range left {
		// One that is younger may belong to a verb that is under way.
		st, err := os.Stat(path)
		if err != nil || time.Since(st.ModTime()) < time.Minute || !rec.mayRepair(path) || rec.dry {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			rec.aside(path, err)
		}
	}
	return nil
}

// lookFor adopts the VMM of a record, or, in a dry run, sees only that it lives:
// one that is adopted has its files trimmed.
func (r *Runtime) lookFor(rec *record.Record, dry bool) error {
	if !dry {
		_, err := r.machine(rec)
		return err
	}
	proc, err := r.openVMM(rec)
	if err == nil {
		proc.Close()
	}
	return err
}

// recoverLater tries again until the VMM answers: its guest may stand still. It
// holds the lock for short times only, so that the VM can be destroyed.
func (r *Runtime) recoverLater(id string) {
	if r.enter() != nil {
		return
	}
	go func() {
		defer r.leave()
		for wait := time.Second; ; wait = min(2*wait, time.Minute) {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-r.ctx.Done():
				t.Stop()
				return
			}
			ctx, cancel := context.WithTimeout(r.ctx, r.cfg.APITimeout)
			o, err := r.begin(ctx, "recover", id) // settles
			cancel()
			switch {
			case err == nil:
				o.end()
				return
			case errors.Is(err, context.DeadlineExceeded):
			default:
				if r.ctx.Err() == nil && !errors.Is(err, microvm.ErrVMNotFound) {
					r.cfg.Log.Error("a verb that was cut off can't be resolved", "vm", id, "err", err)
				}
				return
			}
		}
	}()
}
