package firecracker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tangle-network/microvm/fcapi"
)

// resume lets the vCPUs run; its undo stops them again.
func (o *op) resume(m *machine) error {
	o.undo.push(func() error {
		if m.dead() {
			return nil
		}
		ctx, cancel := o.detached(o.r.cfg.APITimeout)
		defer cancel()
		return m.client(o.run(apiSocket)).Pause(ctx)
	})
	if o.needsReset(m) {
		o.stage = "reset the vsock"
		timeout := o.r.cfg.APITimeout
		ctx, cancel := context.WithTimeout(o.ctx, timeout)
		defer cancel()
		if err := o.resetVsock(ctx, m, timeout); err != nil {
			return err
		}
	}
	o.since = time.Now().UTC()
	next := *o.Rec
	o.running(&next)
	o.Prepare(next)
	return o.sendOne(o.ctx, m, fcapi.ResumeRequest(), o.r.cfg.APITimeout)
}

// unpause lets the guest go on, whatever ctx says.
func (o *op) unpause(m *machine) error {
	if m.dead() {
		return nil
	}
	timeout := o.r.cfg.APITimeout
	if o.writing {
		// It may still be at a snapshot that nobody waits for any more, and answers
		// one request at a time.
		timeout = o.r.transferTimeout(o.Rec.Spec.MemoryMiB)
	}
	if o.needsReset(m) {
		ctx, cancel := o.detached(timeout)
		defer cancel()
		// A guest with a mute vsock is better than one that stands still.
		if err := o.resetVsock(ctx, m, timeout); err != nil && !m.dead() {
			o.r.cfg.Log.Warn("the guest's vsock may be mute until the next snapshot", "vm", o.ID, "err", err)
		}
	}
	ctx, cancel := o.detached(timeout)
	defer cancel()
	if err := m.client(o.run(apiSocket)).Resume(ctx); err != nil {
		// What was asked for does not need a VMM that lives.
		if err = o.explain(m, err, timeout); !m.dead() {
			return fmt.Errorf("resume the guest: %w", err)
		}
	}
	return nil
}

// needsReset says whether the guest's vsock would be mute after a resume.
func (o *op) needsReset(m *machine) bool {
	l, err := o.r.releaseOf(m.ident.Version)
	return err == nil && o.Rec.Spec.Vsock != nil && !o.saved && l.defective(fcapi.DefectVsockMuteAfterResume)
}

const resetFile = "reset.vmstate"

// resetVsock works around fcapi.DefectVsockMuteAfterResume. Those releases wait
// after a resume until the guest has seen that its connections were reset, but
// tell it so only when they save its devices. A snapshot is asked for whose
// memory can't be written, as its path is a directory: the VMM saves the devices
// first, into a few KiB, and then refuses, which changes nothing else. That the
// file is there proves that it came so far.
func (o *op) resetVsock(ctx context.Context, m *machine, timeout time.Duration) error {
	path := o.run(resetFile)
	if err := removeFile(path); err != nil {
		return err
	}
	err := m.client(o.run(apiSocket)).Do(ctx, fcapi.CreateSnapshotRequest(fcapi.SnapshotCreate{
		SnapshotType: fcapi.SnapshotFull, SnapshotPath: resetFile, MemFilePath: ".",
	}), nil)
	var refused *fcapi.Error
	if errors.As(err, &refused) && isRegular(path) {
		return removeFile(path)
	}
	if err != nil {
		err = fmt.Errorf("reset the vsock: %w", o.explain(m, err, timeout))
	}
	return errors.Join(err, removeFile(path))
}
