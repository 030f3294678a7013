package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/vmm"
)

// RecoverOptions changes what Recover does.
type RecoverOptions struct {
	// DryRun reports and changes nothing.
	DryRun bool
}

// Report is what Recover has found and done. The ids are those of VMs.
type Report struct {
	Adopted    []string   `json:"adopted"`     // run, and are watched now
	Finished   []string   `json:"finished"`    // a verb that was cut off, or a death, was brought to its end
	RolledBack []string   `json:"rolled_back"` // a creation that was cut off was taken back
	Busy       []string   `json:"busy"`        // in the hands of a verb of another program
	SetAside   []SetAside `json:"set_aside"`   // can't be used: left as they are
}

// SetAside is a VM that could not be recovered.
type SetAside struct {
	Path string `json:"path"`
	Err  string `json:"error"`
}

// Recover adopts the VMMs that run, finishes or takes back verbs that a crash has
// cut off, and reports what it can't read. It waits for nobody: a VM that another
// program is working on is left to it. Open calls it.
func (r *Runtime) Recover(ctx context.Context, opts RecoverOptions) (Report, error) {
	rep := Report{Adopted: []string{}, Finished: []string{}, RolledBack: []string{}, Busy: []string{}, SetAside: []SetAside{}}
	if err := r.enter(); err != nil {
		return rep, fmt.Errorf("recover: %w", err)
	}
	defer r.leave()
	ids, err := r.store.IDs()
	if err != nil {
		return rep, fmt.Errorf("recover: %w", err)
	}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return rep, fmt.Errorf("recover: %w", err)
		}
		r.recoverOne(ctx, id, opts, &rep)
	}
	left, err := r.store.Leftovers()
	if err != nil {
		return rep, fmt.Errorf("recover: %w", err)
	}
	for _, path := range left {
		// One that is younger may belong to a verb that is under way.
		if st, err := os.Stat(path); err != nil || time.Since(st.ModTime()) < time.Minute || opts.DryRun {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			rep.SetAside = append(rep.SetAside, SetAside{path, err.Error()})
		}
	}
	return rep, nil
}

func (r *Runtime) recoverOne(ctx context.Context, id string, opts RecoverOptions, rep *Report) {
	aside := func(err error) {
		rep.SetAside = append(rep.SetAside, SetAside{filepath.Join(r.store.Dir(id), "vm.json"), err.Error()})
	}
	// What needs nothing but watching needs no lock either.
	rec, err := r.store.Load(id)
	if err == nil && !isThere(filepath.Join(r.store.Dir(id), "intent.json")) {
		if rec.Process == nil {
			return
		}
		switch merr := r.lookFor(rec, opts.DryRun); {
		case merr == nil:
			rep.Adopted = append(rep.Adopted, id)
			return
		case !errors.Is(merr, vmm.ErrGone):
			aside(merr)
			return
		}
	}
	l, err := r.store.TryLock(id)
	if err != nil {
		if !errors.Is(err, microvm.ErrVMNotFound) {
			aside(err)
		}
		return
	}
	if l == nil {
		rep.Busy = append(rep.Busy, id)
		return
	}
	defer l.Unlock()
	o := &op{Locked: l, r: r, ctx: ctx, verb: "recover"}
	if l.Rec == nil {
		if !o.unfinishedCreate() {
			aside(errors.New("the VM's record is missing, and no creation was under way"))
			return
		}
		if !opts.DryRun {
			if err := o.takeBackCreate(); err != nil {
				aside(err)
				return
			}
		}
		rep.RolledBack = append(rep.RolledBack, id)
		return
	}
	if !opts.DryRun {
		// A VMM that does not answer must not keep the others waiting.
		var cancel context.CancelFunc
		o.ctx, cancel = context.WithTimeout(ctx, r.cfg.APITimeout)
		defer cancel()
		if err := o.settle(); errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			rep.Busy = append(rep.Busy, id)
			r.recoverLater(id)
			return
		} else if err != nil {
			aside(err)
			return
		}
	}
	if o.Rec.Process != nil && !opts.DryRun {
		rep.Adopted = append(rep.Adopted, id)
	}
	rep.Finished = append(rep.Finished, id)
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

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// rollBackCreate frees a name that a creation has taken whose program has died.
func (r *Runtime) rollBackCreate(id string) bool {
	if isThere(filepath.Join(r.store.Dir(id), "vm.json")) {
		return false
	}
	l, err := r.store.TryLock(id)
	if err != nil || l == nil {
		return false
	}
	defer l.Unlock()
	o := &op{Locked: l, r: r, ctx: r.ctx, verb: "recover"}
	if l.Rec != nil || !o.unfinishedCreate() {
		return false
	}
	if err := o.takeBackCreate(); err != nil {
		r.cfg.Log.Error("a VM that was never finished stays", "vm", id, "err", err)
		return false
	}
	return true
}

// unfinishedCreate says whether a VM without a record is one that was never
// finished. The intent is not fsynced: after a crash of the host it may be empty,
// and then a VM that has lost its record must not be taken for a new one.
func (o *op) unfinishedCreate() bool {
	if o.Intent == nil {
		return false
	}
	return o.Intent.Verb == "create" || o.Intent.Verb == "" && !isThere(o.hibernatePath())
}

// takeBackCreate removes all of a VM whose creation was cut off.
func (o *op) takeBackCreate() error {
	if err := o.endStrays(); err != nil {
		return err
	}
	if p := o.Intent.VsockPath; p != "" {
		var used *vmm.SocketInUseError
		if err := vmm.RemoveSocket(filepath.Dir(p), filepath.Base(p)); err != nil && !errors.As(err, &used) && !isMissing(err) {
			return err
		}
	}
	return o.Remove()
}

// endStrays ends VMMs that a cut verb has started and no record names: the one
// in the intent, and any whose working directory is the VM's.
func (o *op) endStrays() error {
	known := 0
	if o.Rec != nil && o.Rec.Process != nil {
		known = o.Rec.Process.PID
	}
	if p := o.Intent.Process; p != nil && p.PID != known {
		if err := o.endStray(identity(p)); err != nil {
			return err
		}
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	want, err := filepath.EvalSymlinks(o.runDir())
	if err != nil {
		if isMissing(err) {
			return nil
		}
		return err
	}
	for _, e := range procs {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == known || pid == os.Getpid() {
			continue
		}
		cwd, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		// Every VMM has its VM's uid among its arguments: somebody's shell in the
		// run directory has not.
		if err != nil || cwd != want || !hasArgument(pid, o.uid()) {
			continue
		}
		id, err := vmm.Identify(pid)
		if err != nil {
			if errors.Is(err, vmm.ErrGone) {
				continue
			}
			return err
		}
		// The identity was read after the link: look again that it is this one.
		if again, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd")); err != nil || again != want {
			continue
		}
		if err := o.endStray(id); err != nil {
			return err
		}
	}
	return nil
}

func hasArgument(pid int, arg string) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	// An intent that could not be read has no uid.
	return err == nil && arg != "" && slices.Contains(strings.Split(string(b), "\x00"), arg)
}

func (o *op) endStray(id vmm.Identity) error {
	proc, err := o.r.watcher.Open(id)
	if errors.Is(err, vmm.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer proc.Close()
	ctx, cancel := o.detached(o.r.cfg.TermGrace + 30*time.Second)
	defer cancel()
	if _, err := proc.Stop(ctx, o.r.cfg.TermGrace); err != nil {
		return fmt.Errorf("end VMM %d: %w", id.PID, err)
	}
	return nil
}

// resolveIntent finishes or takes back what a crash has cut off. It can itself
// be cut off and repeated.
func (o *op) resolveIntent() error {
	in := *o.Intent
	if err := o.endStrays(); err != nil {
		return err
	}
	o.stage = "resolve " + in.Verb
	switch in.Verb {
	case "destroy":
		if err := o.destroy(true); err != nil {
			return o.notDestroyed(err)
		}
		return nil
	case "rename", "create", verbDeleteSnapshot:
		// The record has come as far as it could: its id is the directory's.
	default:
		// Who destroys the VM need not know; a VMM that is mute could not be
		// destroyed otherwise. Until the VMM is ended the intent stays.
		if o.verb == "destroy" {
			return nil
		}
		if err := o.askState(in); err != nil {
			return err
		}
	}
	if !o.Rec.Hibernated {
		if err := os.RemoveAll(o.hibernatePath()); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(o.run(draftName)); err != nil {
		return err
	}
	if err := o.r.snaps.Sweep(o.Rec.UID); err != nil {
		return err
	}
	if err := o.Save(); err != nil {
		return err
	}
	return o.ClearIntent()
}

// askState asks a living VMM how far a start, a stop or a snapshot had come.
func (o *op) askState(in record.Intent) error {
	// What was tracked may have been used up.
	o.Rec.Base, o.Rec.ColdBoot = nil, false
	m, err := o.machine()
	if errors.Is(err, vmm.ErrGone) {
		if o.hibernateWhole(in) {
			o.hibernated()
		}
		return nil
	}
	if err != nil {
		return err
	}
	if o.Rec.Status == microvm.StatusRunning && o.hibernateWhole(in) {
		// It has nothing to say any more, and may be mute.
		if err := o.endProcess(m); err != nil {
			return err
		}
		o.hibernated()
		return nil
	}
	// It may be writing a snapshot still, and answers behind it.
	ctx, cancel := context.WithTimeout(o.ctx, transferTimeout(o.Rec.Spec.MemoryMiB))
	defer cancel()
	info, err := m.client(o.run(apiSocket)).Describe(ctx)
	if err != nil {
		return o.explain(m, err)
	}
	status := o.Rec.Status
	switch {
	case in.Verb == "stop" && info.State == fcapi.StatePaused && in.Mode == microvm.StopModePause:
		o.stopped(microvm.StopReason{Cause: microvm.StopPaused})
	case status == microvm.StatusRunning && info.State == fcapi.StatePaused:
		return o.unpause(m)
	case status != microvm.StatusRunning && info.State == fcapi.StateRunning:
		o.Rec.Status, o.Rec.StartedAt, o.Rec.StopReason = microvm.StatusRunning, time.Now().UTC(), nil
		o.Rec.Process.Booted = true
	}
	return nil
}

// hibernateWhole says whether a stop that was cut off had written the guest's
// memory: then it goes forward.
func (o *op) hibernateWhole(in record.Intent) bool {
	return in.Verb == "stop" && in.Hibernated &&
		isRegular(filepath.Join(o.hibernatePath(), stateFile)) && isRegular(filepath.Join(o.hibernatePath(), memoryFile))
}

func (o *op) hibernated() {
	o.Rec.Process, o.Rec.Hibernated = nil, true
	o.stopped(microvm.StopReason{Cause: microvm.StopHibernated})
}
