package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/image"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/snapshot"
)

// SnapshotVM records the VM under a new name. A running guest stands still while
// the VMM writes its memory and its writable disks are cloned; checksums and the
// rest are done while it runs again. The pause is reported in View and in the
// manifest. A VM without memory (created, or stopped without any) gives a cold
// snapshot: spec and disks.
func (r *Runtime) SnapshotVM(ctx context.Context, id, snapshotID string) error {
	return r.snapshotVM(ctx, id, snapshotID, nil)
}

// snapshotVM is SnapshotVM; before a snapshot for a fork is made, the record says
// so.
func (r *Runtime) snapshotVM(ctx context.Context, id, snapshotID string, f *record.Fork) error {
	if err := microvm.ValidateSnapshotID(snapshotID); err != nil {
		return &microvm.Error{Verb: "snapshot", VMID: id, Err: err}
	}
	o, err := r.begin(ctx, "snapshot", id)
	if err != nil {
		return err
	}
	defer o.end()
	if o.Rec.Status == microvm.StatusDestroyed {
		return o.fail(&microvm.TransitionError{VMID: id, From: o.Rec.Status, To: o.Rec.Status})
	}
	// First the intent: a draft without one would never be swept.
	if err := o.intend(func(in *record.Intent) { in.Snapshot = snapshotID }); err != nil {
		return o.fail(err)
	}
	if f != nil {
		o.Rec.Forks = append(o.Rec.Forks, *f)
		if err := o.Save(); err != nil {
			return o.fail(err)
		}
	}
	draft, err := r.snaps.Begin(o.Rec.UID, snapshotID)
	if err != nil {
		if errors.Is(err, snapshot.ErrExists) {
			err = fmt.Errorf("snapshot %q: %w", snapshotID, microvm.ErrSnapshotExists)
		}
		return o.fail(err)
	}
	o.undo.push(draft.Abort)
	if err := o.snapshot(draft); err != nil {
		return o.fail(err)
	}
	return nil
}

func (o *op) snapshot(draft *snapshot.Draft) error {
	if err := o.at(fpSnapshotIntended); err != nil {
		return err
	}
	m := snapshot.Manifest{VMID: o.ID, CPU: cpuModel(), Kernel: kernelRelease(), Guest: o.Rec.Guest}
	var err error
	if m.Spec, err = json.Marshal(o.Rec.Spec); err != nil {
		return err
	}
	running := o.Rec.Status == microvm.StatusRunning
	var c captured
	switch {
	case o.Rec.Process != nil && o.Rec.Process.Booted:
		m.VMM, m.VMMVersion, m.VMMFormat = o.Rec.VMM, o.Rec.VMMVersion, o.Rec.VMMFormat
		if c, err = o.captureWithDisks(draft, running, &m.Pause); err != nil {
			return err
		}
	case o.Rec.Hibernated:
		m.VMM, m.VMMVersion, m.VMMFormat = o.Rec.VMM, o.Rec.VMMVersion, o.Rec.VMMFormat
		c.dir = o.hibernatePath()
		err = o.cloneDisks(draft, false)
	default:
		m.Cold = true
		err = o.cloneDisks(draft, false)
	}
	if err != nil {
		return err
	}
	if err := o.cloneDisks(draft, true); err != nil {
		return err
	}
	if err := o.compose(c); err != nil {
		return err
	}
	if err := o.at(fpSnapshotComposed); err != nil {
		return err
	}
	return o.publish(draft, c, m)
}

// captureWithDisks takes memory and writable disks of one moment.
func (o *op) captureWithDisks(draft *snapshot.Draft, running bool, pause *time.Duration) (captured, error) {
	var c captured
	mach, err := o.machine()
	if err != nil {
		return c, err
	}
	if running {
		if err := o.intend(func(in *record.Intent) { in.PausedByUs = true }); err != nil {
			return c, err
		}
	}
	if err := o.planCapture(mach); err != nil {
		return c, err
	}
	began := time.Now()
	if running {
		if err := o.pauseGuest(mach); err != nil {
			return c, err
		}
	}
	if err := o.at(fpSnapshotPaused); err != nil {
		return c, err
	}
	if c, err = o.capture(mach); err != nil {
		return c, err
	}
	if err := o.at(fpSnapshotWritten); err != nil {
		return c, err
	}
	if err := o.cloneDisks(draft, false); err != nil {
		return c, err
	}
	if err := o.at(fpSnapshotCloned); err != nil {
		return c, err
	}
	if !running {
		return c, nil
	}
	o.stage = "resume"
	if err := o.unpause(mach); err != nil {
		return c, err
	}
	*pause = time.Since(began)
	return c, o.at(fpSnapshotResumed)
}

// cloneDisks copies the disks that are written, or those that are not.
func (o *op) cloneDisks(draft *snapshot.Draft, readOnly bool) error {
	for _, d := range o.Rec.Disks {
		if d.ReadOnly != readOnly {
			continue
		}
		o.stage = "clone disk " + d.ID
		src, dst := o.run(d.File), filepath.Join(draft.Dir, snapshot.DiskDir, d.File)
		var err error
		if readOnly {
			err = linkOrClone(o.ctx, src, dst)
		} else {
			// Publish syncs it, outside the pause.
			_, err = image.Clone(o.ctx, src, dst, image.CloneOptions{NoSync: true})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// publish moves the captured files into the draft and makes it visible.
func (o *op) publish(draft *snapshot.Draft, c captured, m snapshot.Manifest) error {
	o.stage = "gather the files"
	for _, name := range []string{kernelFile, initrdFile} {
		err := linkOrClone(o.ctx, o.run(name), filepath.Join(draft.Dir, name))
		if err != nil && !(isMissing(err) && name == initrdFile && o.Rec.Spec.Initrd == "") {
			return err
		}
	}
	if !m.Cold {
		for _, name := range []string{stateFile, memoryFile} {
			if err := os.Link(filepath.Join(c.dir, name), filepath.Join(draft.Dir, name)); err != nil {
				return err
			}
		}
	}
	for _, d := range o.Rec.Disks {
		m.Disks = append(m.Disks, snapshot.Disk{ID: d.ID, File: d.File, ReadOnly: d.ReadOnly})
	}
	o.stage = "publish"
	if _, err := draft.Publish(o.ctx, m); err != nil {
		return err
	}
	// It exists now: what follows is for the next one.
	o.undo.keep()
	if err := o.r.fail(o.ctx, fpSnapshotPublished); err != nil {
		return err
	}
	if m.Pause > 0 {
		o.Rec.SnapshotPause = m.Pause
	}
	if p := o.Rec.Process; !m.Cold && p != nil && isTrue(o.Rec.Spec.TrackDirtyPages) {
		if err := o.keepBase(c, p.PID); err != nil {
			o.r.cfg.Log.Warn("the next snapshot will be a full one", "vm", o.ID, "err", err)
		}
	}
	if !m.Cold && !o.Rec.Hibernated {
		if err := os.RemoveAll(c.dir); err != nil {
			return err
		}
	}
	return o.commit()
}

// keepBase remembers the memory that tracking goes on from.
func (o *op) keepBase(c captured, pid int) error {
	if err := removeFile(o.run(baseFile)); err != nil {
		return err
	}
	if err := os.Link(filepath.Join(c.dir, memoryFile), o.run(baseFile)); err != nil {
		return err
	}
	o.Rec.Base = &record.Base{File: filepath.Join(runName, baseFile), PID: pid}
	return nil
}

// ListSnapshots returns the names of a VM's snapshots, in the order in which
// they were made.
func (r *Runtime) ListSnapshots(ctx context.Context, id string) ([]string, error) {
	rec, err := r.load(ctx, "list snapshots of", id)
	if err != nil {
		return nil, err
	}
	return r.snapshotNames(rec)
}

// snapshotNames are those that a user has given.
func (r *Runtime) snapshotNames(rec *record.Record) ([]string, error) {
	names, err := r.snaps.Names(rec.UID)
	return slices.DeleteFunc(names, func(name string) bool {
		return slices.ContainsFunc(rec.Forks, func(f record.Fork) bool { return f.Snapshot == name })
	}), err
}

// GetSnapshot describes a snapshot.
func (r *Runtime) GetSnapshot(ctx context.Context, id, snapshotID string) (microvm.SnapshotInfo, error) {
	rec, err := r.load(ctx, "get snapshot of", id)
	if err != nil {
		return microvm.SnapshotInfo{}, err
	}
	m, _, err := r.snaps.Manifest(rec.UID, snapshotID)
	if err != nil {
		return microvm.SnapshotInfo{}, &microvm.Error{Verb: "get snapshot of", VMID: id, Err: snapshotError(snapshotID, err)}
	}
	info := microvm.SnapshotInfo{
		VMID: rec.ID, Name: m.Name, CreatedAt: m.CreatedAt, Cold: m.Cold, VMM: m.VMM, VMMVersion: m.VMMVersion, Pause: m.Pause,
	}
	if m.Memory != nil {
		info.MemoryBytes = m.Memory.Size
	}
	if wrote, err := r.writer(m.VMM, m.VMMVersion, m.VMMFormat); err == nil && wrote.format != (fcapi.Version{}) {
		info.Format = wrote.format.String()
	}
	if info.DiskBytes, err = r.snaps.DiskBytes(m); err != nil {
		return info, &microvm.Error{Verb: "get snapshot of", VMID: id, Err: snapshotError(snapshotID, err)}
	}
	return info, nil
}

const verbDeleteSnapshot = "delete snapshot of"

// DeleteSnapshot removes a snapshot. VMs that were restored from it go on: they
// hold its memory file by a link of their own.
func (r *Runtime) DeleteSnapshot(ctx context.Context, id, snapshotID string) error {
	if err := microvm.ValidateSnapshotID(snapshotID); err != nil {
		return &microvm.Error{Verb: verbDeleteSnapshot, VMID: id, Err: err}
	}
	o, err := r.begin(ctx, verbDeleteSnapshot, id)
	if err != nil {
		return err
	}
	defer o.end()
	if err := o.intend(func(in *record.Intent) { in.Snapshot = snapshotID }); err != nil {
		return o.fail(err)
	}
	if err := r.snaps.Delete(o.Rec.UID, snapshotID); err != nil {
		return o.fail(snapshotError(snapshotID, err))
	}
	return o.finish(nil, fpSnapshotDeleted) // the record tells watchers
}

func snapshotError(name string, err error) error {
	if errors.Is(err, snapshot.ErrNotFound) || isMissing(err) {
		return fmt.Errorf("snapshot %q: %w", name, microvm.ErrSnapshotNotFound)
	}
	return fmt.Errorf("%w: snapshot %q: %w", microvm.ErrHost, name, err)
}
