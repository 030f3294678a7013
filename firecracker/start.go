package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/vmm"
)

// StartVM boots a created VM. A stopped one is resumed when it was paused,
// restored when it was hibernated, and booted from its disks otherwise.
func (r *Runtime) StartVM(ctx context.Context, id string) error {
	o, err := r.begin(ctx, "start", id)
	if err != nil {
		return err
	}
	defer o.end()
	if s := o.Rec.Status; s != microvm.StatusCreated && s != microvm.StatusStopped {
		return o.fail(&microvm.TransitionError{VMID: id, From: s, To: microvm.StatusRunning})
	}
	if err := o.intend(nil); err != nil {
		return o.fail(err)
	}
	if err := o.at(fpStartIntended); err != nil {
		return o.fail(err)
	}
	before := *o.Rec
	m, err := o.start()
	if err != nil {
		err = o.fail(err)
		o.Rec = &before
		return err
	}
	o.stage = "save the record"
	o.running(o.Rec)
	if err := o.finish(m, fpStartSaved); err != nil {
		return err
	}
	if err := os.RemoveAll(o.hibernatePath()); err != nil {
		r.cfg.Log.Warn("the memory of a hibernated VM stays on disk", "vm", id, "err", err)
	}
	return nil
}

// running changes a record to it.
func (o *op) running(rec *record.Record) {
	rec.Status, rec.StopReason, rec.StartedAt, rec.Trouble = microvm.StatusRunning, nil, o.since, ""
}

// start makes the guest run, in whatever way its state asks for.
func (o *op) start() (*machine, error) {
	m, err := o.machine()
	switch {
	case err == nil && o.Rec.Process.Booted:
		if err := o.resume(m); err != nil {
			return nil, err
		}
		return m, o.at(fpStartResumed)
	case err == nil:
		return m, o.boot(m)
	case !errors.Is(err, vmm.ErrGone):
		return nil, err
	}
	if o.Rec.Hibernated {
		return o.wake()
	}
	o.stage = "find the VMM"
	p, err := o.r.ready(o.ctx)
	if err == nil {
		err = o.r.checkBoot(o.Rec.Spec, p.release)
	}
	if err != nil {
		return nil, err
	}
	l, err := o.configure(p, fpStartSpawned, fpStartConfigured)
	if err != nil {
		return nil, err
	}
	o.adoptLaunched(l, false)
	return l.machine, o.boot(l.machine)
}

// boot is InstanceStart. If it was sent, the guest may run: a failure ends the
// VMM, so that the VM can be started anew.
func (o *op) boot(m *machine) error {
	o.undo.push(func() error { return o.endUnlessNotStarted(m) })
	o.since = time.Now().UTC()
	next := *o.Rec
	booted(&next)
	o.running(&next)
	o.Prepare(next)
	if err := o.sendOne(o.ctx, m, fcapi.StartInstanceRequest(), o.r.cfg.APITimeout); err != nil {
		return err
	}
	if err := o.at(fpStartResumed); err != nil {
		return err
	}
	booted(o.Rec)
	m.ident.Booted = true
	return nil
}

// booted changes a record to that of a guest that has just booted in its process.
func booted(rec *record.Record) {
	p := *rec.Process
	p.Booted = true
	rec.Process, rec.ColdBoot, rec.Base = &p, true, nil
}

// endUnlessNotStarted leaves a VMM that has refused to boot as it was, ready for
// the next try; one whose guest may run is ended.
func (o *op) endUnlessNotStarted(m *machine) error {
	ctx, cancel := o.detached(o.r.cfg.APITimeout)
	defer cancel()
	if !m.dead() {
		info, err := m.client(o.run(apiSocket)).Describe(ctx)
		if err == nil && info.State == fcapi.StateNotStarted {
			return nil
		}
	}
	return o.endProcess(m)
}

// wake restores a hibernated VM. Its memory stays on disk until the record says
// that it runs, so a failed start can be repeated.
func (o *op) wake() (*machine, error) {
	o.stage = "find the VMM"
	wrote, err := o.r.writer(o.Rec.VMM, o.Rec.VMMVersion, o.Rec.VMMFormat)
	if err != nil {
		return nil, err
	}
	p, err := o.r.ready(o.ctx)
	if err == nil {
		err = o.r.checkLoad(o.Rec.Spec, nil, wrote, p)
	}
	if err != nil {
		return nil, err
	}
	o.stage = "stage the memory"
	for _, name := range []string{stateFile, memoryFile} {
		if err := removeFile(o.run(name)); err != nil {
			return nil, err
		}
		if err := os.Link(filepath.Join(o.hibernatePath(), name), o.run(name)); err != nil {
			return nil, fmt.Errorf("%w: %w", microvm.ErrHost, err)
		}
	}
	l, err := o.load(wrote, nil, fpStartSpawned)
	if err != nil {
		return nil, err
	}
	if err := o.at(fpStartLoaded); err != nil {
		return nil, err
	}
	// From its first instruction on, the guest's memory on disk is older than its
	// disks. So the VM is no longer hibernated before it runs: it is paused.
	o.stage = "save the record"
	o.adoptLaunched(l, true)
	o.Rec.StopReason = &microvm.StopReason{Cause: microvm.StopPaused}
	o.Rec.Hibernated, o.Rec.ColdBoot, o.Rec.Base = false, false, nil
	if isTrue(o.Rec.Spec.TrackDirtyPages) {
		o.Rec.Base = &record.Base{File: filepath.Join(runName, memoryFile), PID: l.ident.PID}
	}
	o.r.register(o.Rec.UID, l.machine, false)
	if err := o.Save(); err != nil {
		return nil, err
	}
	o.undo.keep()
	if err := o.resume(l.machine); err != nil {
		return nil, err
	}
	return l.machine, o.at(fpStartResumed)
}
