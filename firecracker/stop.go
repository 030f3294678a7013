package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/record"
)

// StopVM stops a running VM as its StopMode says.
func (r *Runtime) StopVM(ctx context.Context, id string) error { return r.StopVMMode(ctx, id, "") }

// StopVMMode stops a running VM in the given mode, this time; empty means the
// mode of its spec.
func (r *Runtime) StopVMMode(ctx context.Context, id string, mode microvm.StopMode) error {
	if err := (microvm.Spec{StopMode: mode}).Validate(); err != nil {
		return &microvm.Error{Verb: "stop", VMID: id, Err: err}
	}
	o, err := r.begin(ctx, "stop", id)
	if err != nil {
		return err
	}
	defer o.end()
	if o.Rec.Status != microvm.StatusRunning {
		return o.fail(&microvm.TransitionError{VMID: id, From: o.Rec.Status, To: microvm.StatusStopped})
	}
	if mode == "" {
		mode = o.Rec.Spec.StopMode
	}
	if err := o.intend(func(in *record.Intent) { in.Mode = mode }); err != nil {
		return o.fail(err)
	}
	if err := o.at(fpStopIntended); err != nil {
		return o.fail(err)
	}
	m, err := o.machine()
	if err != nil {
		return o.fail(err)
	}
	var reason microvm.StopReason
	switch mode {
	case microvm.StopModeHibernate:
		reason, err = o.hibernate(m)
	case microvm.StopModeShutdown:
		reason, err = o.shutdown(m)
	default:
		reason, err = o.pause(m)
	}
	if err != nil {
		return o.fail(err)
	}
	o.stage = "save the record"
	if o.since.IsZero() {
		o.since = time.Now().UTC()
	}
	stopped(o.Rec, reason, o.since)
	return o.finish(nil, fpStopSaved)
}

// stopped changes the record to it.
func (o *op) stopped(reason microvm.StopReason) { stopped(o.Rec, reason, time.Now().UTC()) }

func stopped(rec *record.Record, reason microvm.StopReason, at time.Time) {
	rec.Status, rec.StopReason, rec.StoppedAt = microvm.StatusStopped, &reason, at
}

func (o *op) pause(m *machine) (microvm.StopReason, error) {
	reason := microvm.StopReason{Cause: microvm.StopPaused}
	o.since = time.Now().UTC()
	next := *o.Rec
	stopped(&next, reason, o.since)
	o.Prepare(next)
	if err := o.pauseGuest(m); err != nil {
		return microvm.StopReason{}, err
	}
	return reason, o.at(fpStopPaused)
}

// pauseGuest stops the vCPUs; its undo lets them run again.
func (o *op) pauseGuest(m *machine) error {
	o.undo.push(func() error { return o.unpause(m) })
	return o.sendOne(o.ctx, m, fcapi.PauseRequest(), o.r.cfg.APITimeout)
}

// hibernate writes the guest's memory to disk and ends the VMM.
func (o *op) hibernate(m *machine) (microvm.StopReason, error) {
	var none microvm.StopReason
	o.stage = "see who could wake it"
	if err := o.checkWake(m); err != nil {
		return none, err
	}
	if err := o.planCapture(m); err != nil {
		return none, err
	}
	// Memory that an earlier start has left behind must not be taken for new.
	if err := os.RemoveAll(o.hibernatePath()); err != nil {
		return none, err
	}
	if err := o.pauseGuest(m); err != nil {
		return none, err
	}
	if err := o.at(fpStopPaused); err != nil {
		return none, err
	}
	c, err := o.capture(m)
	if err != nil {
		return none, err
	}
	if err := o.at(fpStopWritten); err != nil {
		return none, err
	}
	if err := o.compose(c); err != nil {
		return none, err
	}
	o.stage = "publish the memory"
	o.undo.push(func() error { return os.RemoveAll(o.hibernatePath()) })
	if err := syncFiles(c.dir, stateFile, memoryFile); err != nil {
		return none, err
	}
	// The memory holds what the guest believes to be on its disks.
	for _, d := range o.Rec.Disks {
		if !d.ReadOnly {
			if err := syncFile(o.run(d.File)); err != nil {
				return none, err
			}
		}
	}
	if err := os.Rename(c.dir, o.hibernatePath()); err != nil {
		return none, err
	}
	if err := o.SyncDir(); err != nil {
		return none, err
	}
	if err := o.intend(func(in *record.Intent) { in.Hibernated = true }); err != nil {
		return none, err
	}
	if err := o.at(fpStopHibernated); err != nil {
		return none, err
	}
	// From here on it goes forward only: if this verb can't, the next one does.
	o.undo.keep()
	o.forward = true
	o.stage = "end the VMM"
	if err := o.endProcess(m); err != nil {
		return none, err
	}
	o.Rec.Process, o.Rec.Hibernated, o.Rec.ColdBoot, o.Rec.Base = nil, true, false, nil
	if err := errors.Join(o.dropMemory(), o.r.fail(o.ctx, fpStopEnded)); err != nil {
		return none, err
	}
	return microvm.StopReason{Cause: microvm.StopHibernated}, nil
}

// shutdown asks the guest, waits for the grace period, and ends the VMM.
func (o *op) shutdown(m *machine) (microvm.StopReason, error) {
	how, err := o.ask(m)
	if err != nil {
		return microvm.StopReason{}, err
	}
	o.stage = "end the VMM"
	if err := o.endProcess(m); err != nil {
		return microvm.StopReason{}, err
	}
	o.undo.keep()
	reason := exitReason(m)
	reason.Cause, reason.Detail = microvm.StopShutdown, how
	o.Rec.Process, o.Rec.ColdBoot, o.Rec.Base = nil, false, nil
	return reason, errors.Join(o.dropMemory(), o.r.fail(o.ctx, fpStopEnded))
}

// dropMemory removes the memory files that only a process which has ended needed:
// the one it was loaded from, and the one that its tracking went on from. They
// may be all that is left of a deleted snapshot.
func (o *op) dropMemory() error {
	return errors.Join(removeFile(o.run(memoryFile)), removeFile(o.run(baseFile)))
}

// ask presses Ctrl-Alt-Del and waits until the VMM ends or the grace period is
// over; how says which. Only x86 has the key.
func (o *op) ask(m *machine) (how string, err error) {
	grace := o.r.cfg.ShutdownGrace
	if runtime.GOARCH != "amd64" || grace < 0 {
		return "ended without asking the guest", nil
	}
	if err := o.sendOne(o.ctx, m, fcapi.SendCtrlAltDelRequest(), o.r.cfg.APITimeout); err != nil {
		if m.dead() {
			return "the guest ended", nil
		}
		if o.ctx.Err() != nil {
			return "", err
		}
		return "ended: the VMM did not take Ctrl-Alt-Del: " + err.Error(), nil
	}
	o.stage = "wait for the guest"
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-m.proc.Done():
		return "the guest shut down", nil
	case <-t.C:
		return fmt.Sprintf("ended: the guest did not shut down within %s", grace), nil
	case <-o.ctx.Done():
		return "", o.ctx.Err()
	}
}

// exitReason is what the end of a process says.
func exitReason(m *machine) microvm.StopReason {
	var reason microvm.StopReason
	st, known := m.proc.Exit()
	switch {
	case !known:
	case st.Signal != 0:
		reason.Signal = signalName(st.Signal)
	default:
		code := st.Code
		reason.ExitCode = &code
	}
	return reason
}

func syncFiles(dir string, names ...string) error {
	for _, n := range names {
		if err := syncFile(filepath.Join(dir, n)); err != nil {
			return err
		}
	}
	return record.SyncDir(dir)
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	err = f.Sync()
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
