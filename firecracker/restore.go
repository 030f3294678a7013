package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/image"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/snapshot"
)

// restore makes a VM from a snapshot: load paused, see that its files are its
// own, resume. Any failure takes all of it back.
func (r *Runtime) restore(ctx context.Context, id string, spec microvm.Spec) error {
	m, dir, restored, err := r.source(ctx, spec)
	var from *microvm.RestoreFrom
	if err == nil {
		from = needed(restored, spec.RestoreFrom)
		err = override(&restored, from)
	}
	if err != nil {
		e := &microvm.Error{Verb: "restore", VMID: id, Err: hostError(err)}
		e.Retry, e.Remedy = advice(err)
		return e
	}
	p, err := r.ready(ctx)
	var wrote release
	switch {
	case err != nil:
	case m.Cold:
		err = r.checkCreate(restored, p.release)
	default:
		if wrote, err = r.writer(m.VMM, m.VMMVersion, m.VMMFormat); err == nil {
			err = r.checkLoad(restored, from, wrote, p)
		}
	}
	if err != nil {
		return refused("restore", id, err)
	}
	o, err := r.reserve(ctx, "restore", id, restored)
	if err != nil {
		return err
	}
	defer o.Unlock()
	if m.Cold {
		l, err := o.create(p, func() error { return o.stageSnapshot(m, dir) })
		if err != nil {
			return o.fail(err)
		}
		return o.created(l)
	}
	l, err := o.restoreWarm(m, dir, from, wrote)
	if err != nil {
		return o.fail(err)
	}
	o.stage = "save the record"
	o.adoptLaunched(l, true)
	if isTrue(restored.TrackDirtyPages) {
		o.Rec.Base = &record.Base{File: filepath.Join(runName, memoryFile), PID: l.ident.PID}
	}
	if !from.ResumeImmediately {
		o.Rec.Status = microvm.StatusStopped
		o.Rec.StopReason = &microvm.StopReason{Cause: microvm.StopRestored}
		o.Rec.StoppedAt = time.Now().UTC()
		return o.finish(l.machine, fpCreateSaved)
	}
	o.Rec.Status, o.Rec.StartedAt = microvm.StatusRunning, time.Now().UTC()
	return o.finish(l.machine, fpCreateSaved)
}

// source finds the snapshot and the spec of the VM that comes from it, but for
// the overrides.
func (r *Runtime) source(ctx context.Context, spec microvm.Spec) (m snapshot.Manifest, dir string, out microvm.Spec, err error) {
	from := spec.RestoreFrom
	missing := fmt.Errorf("snapshot %q of VM %q: %w", from.SnapshotID, from.VMID, microvm.ErrSnapshotNotFound)
	rec, err := r.store.Load(from.VMID)
	if err != nil {
		if errors.Is(err, microvm.ErrVMNotFound) {
			err = missing
		}
		return m, "", out, err
	}
	m, dir, err = r.snaps.Manifest(rec.UID, from.SnapshotID)
	if err != nil {
		if errors.Is(err, snapshot.ErrNotFound) {
			return m, "", out, missing
		}
		return m, "", out, fmt.Errorf("%w: %w", microvm.ErrHost, err)
	}
	if err := r.snaps.Check(ctx, m, r.cfg.VerifyRestore); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return m, "", out, missing // deleted meanwhile
		}
		return m, "", out, fmt.Errorf("%w: %w", microvm.ErrHost, err)
	}
	if err := json.Unmarshal(m.Spec, &out); err != nil {
		return m, "", out, fmt.Errorf("%w: snapshot %q: its spec: %w", microvm.ErrHost, from.SnapshotID, err)
	}
	if err := out.Validate(); err != nil {
		return m, "", out, fmt.Errorf("%w: snapshot %q: %w", microvm.ErrHost, from.SnapshotID, err)
	}
	for i := range out.Drives {
		out.Drives[i].InPlace = false // the snapshot's copy is cloned
	}
	if err := restoredNetwork(&out, spec.Network); err != nil {
		return m, "", out, err
	}
	if spec.Labels != nil {
		out.Labels = spec.Labels
	}
	if spec.StopMode != "" {
		out.StopMode = spec.StopMode
	}
	if spec.Console != nil {
		out.Console = spec.Console
	}
	return m, dir, out, nil
}

// needed leaves out overrides that say what the snapshot says anyway: then a
// release that does not know them will do.
func needed(s microvm.Spec, from *microvm.RestoreFrom) *microvm.RestoreFrom {
	f := *from
	f.NetworkOverrides = nil
	for _, n := range from.NetworkOverrides {
		same := slices.ContainsFunc(s.NetworkInterfaces, func(i microvm.NetworkInterface) bool {
			return i.ID == n.InterfaceID && i.HostDevName == n.HostDevName
		})
		if !same {
			f.NetworkOverrides = append(f.NetworkOverrides, n)
		}
	}
	if s.Vsock != nil && f.VsockPath == s.Vsock.Path {
		f.VsockPath = ""
	}
	return &f
}

// override applies what the restore changes in the spec, and checks it against
// the host.
func override(s *microvm.Spec, from *microvm.RestoreFrom) error {
	var errs []error
	for i, n := range from.NetworkOverrides {
		field := fmt.Sprintf("restore_from.network_overrides[%d]", i)
		found := false
		for j := range s.NetworkInterfaces {
			if s.NetworkInterfaces[j].ID == n.InterfaceID {
				s.NetworkInterfaces[j].HostDevName, found = n.HostDevName, true
			}
		}
		if !found {
			errs = append(errs, &microvm.FieldError{Field: field + ".interface_id", Value: fmt.Sprintf("%q", n.InterfaceID), Rule: "an interface of the snapshotted VM"})
		}
	}
	for i, n := range s.NetworkInterfaces {
		if _, err := net.InterfaceByName(n.HostDevName); err != nil {
			errs = append(errs, &microvm.FieldError{Field: fmt.Sprintf("network_interfaces[%d].host_device", i), Value: fmt.Sprintf("%q", n.HostDevName),
				Rule: fmt.Sprintf("a TAP that exists: %v (make it, or name another with network_overrides)", err)})
		}
	}
	if from.VsockPath != "" {
		if s.Vsock == nil {
			errs = append(errs, &microvm.FieldError{Field: "restore_from.vsock_path", Value: fmt.Sprintf("%q", from.VsockPath), Rule: "empty: the snapshotted VM has no vsock"})
		} else {
			s.Vsock.Path = from.VsockPath
		}
	}
	return errors.Join(errs...)
}

// stageSnapshot brings the files of a snapshot into the run directory: disks
// that are written are cloned, all others shared.
func (o *op) stageSnapshot(m snapshot.Manifest, dir string) error {
	o.stage = "stage the snapshot"
	files := []string{kernelFile, initrdFile}
	if !m.Cold {
		files = append(files, stateFile, memoryFile)
	}
	for _, name := range files {
		err := linkOrClone(o.ctx, filepath.Join(dir, name), o.run(name))
		if isMissing(err) && name == initrdFile && o.Rec.Spec.Initrd == "" {
			continue
		}
		if err != nil {
			return snapshotGone(err)
		}
	}
	for _, d := range m.Disks {
		o.stage = "stage disk " + d.ID
		src, dst := filepath.Join(dir, snapshot.DiskDir, d.File), o.run(d.File)
		way := wayLink
		if d.ReadOnly {
			if err := linkOrClone(o.ctx, src, dst); err != nil {
				return snapshotGone(err)
			}
		} else {
			res, err := image.Clone(o.ctx, src, dst, image.CloneOptions{})
			if err != nil {
				return snapshotGone(err)
			}
			way = string(res.Method)
		}
		o.Rec.Disks = append(o.Rec.Disks, record.Disk{ID: d.ID, File: d.File, Source: src, ReadOnly: d.ReadOnly, Way: way})
	}
	// The files were taken by name, one after the other: if another snapshot has
	// come under this name, they may be those of two, and were not checked.
	switch now, _, err := o.r.snaps.Manifest(m.UID, m.Name); {
	case errors.Is(err, snapshot.ErrNotFound) || err == nil && !reflect.DeepEqual(now, m):
		return fmt.Errorf("snapshot %q was deleted meanwhile: %w", m.Name, microvm.ErrSnapshotNotFound)
	case err != nil:
		return fmt.Errorf("%w: %w", microvm.ErrHost, err)
	}
	return nil
}

// snapshotGone turns a file that has vanished into what it means: the snapshot
// was deleted meanwhile.
func snapshotGone(err error) error {
	if isMissing(err) {
		return fmt.Errorf("%w: %w", microvm.ErrSnapshotNotFound, err)
	}
	return err
}

func (o *op) restoreWarm(m snapshot.Manifest, dir string, from *microvm.RestoreFrom, wrote release) (*launched, error) {
	if err := o.at(fpCreateReserved); err != nil {
		return nil, err
	}
	if err := os.Mkdir(o.runDir(), 0o700); err != nil {
		return nil, fmt.Errorf("make the run directory: %w", err)
	}
	if err := o.stageSnapshot(m, dir); err != nil {
		return nil, err
	}
	if err := o.at(fpCreateStaged); err != nil {
		return nil, err
	}
	o.Rec.Guest = m.Guest
	l, err := o.load(wrote, from, fpCreateSpawned)
	if err != nil {
		return nil, err
	}
	if err := o.at(fpCreateLoaded); err != nil {
		return nil, err
	}
	if from.ResumeImmediately {
		if err := o.resume(l.machine); err != nil {
			return nil, err
		}
	}
	return l, o.at(fpCreateResumed)
}

// load starts a VMM and restores into it, paused, the state and memory files of
// the run directory, which wrote has written.
func (o *op) load(wrote release, from *microvm.RestoreFrom, spawned failpoint) (*launched, error) {
	o.stage = "find the VMM"
	p, err := o.r.ready(o.ctx)
	if err != nil {
		return nil, err
	}
	vm, err := o.spawn(p)
	if err != nil {
		return nil, err
	}
	if err := o.meet(vm); err != nil {
		return nil, err
	}
	if err := o.at(spawned); err != nil {
		return nil, err
	}
	s := o.Rec.Spec
	l, err := o.describe(vm, p, func(l release) []fcapi.Request { return processRequests(s, l, o.r.cfg.SerialBytesPerSecond) })
	if err != nil {
		return nil, err
	}
	// Its file may have been replaced since it was asked.
	if err := errors.Join(loads(l.release, wrote), checkRestored(s, l.release)); err != nil {
		return nil, err
	}
	if err := o.sendOne(o.ctx, l.machine, loadRequest(s, from, l.release), o.r.transferTimeout(s.MemoryMiB)); err != nil {
		if wrote.text != l.text {
			err = fmt.Errorf("the snapshot was written by %s, this VMM is %s: %w", wrote, l.release, err)
		}
		return nil, err
	}
	o.saved = true
	if d := s.MMDS; d != nil && len(d.Contents) > 0 {
		// A snapshot does not hold them.
		if err := o.send(l.machine, fcapi.PutMMDSRequest(d.Contents)); err != nil {
			return nil, err
		}
	}
	o.stage = "check the files of the VMM"
	if err := o.assertOwnFiles(l.machine); err != nil {
		return nil, err
	}
	return l, removeFile(o.run(stateFile))
}

// assertOwnFiles sees that a restored VMM has opened no file of another VM: the
// paths in the state are relative, so it must not.
func (o *op) assertOwnFiles(m *machine) error {
	fds := fmt.Sprintf("/proc/%d/fd", m.proc.PID())
	entries, err := os.ReadDir(fds)
	if err != nil {
		if m.dead() {
			return o.explain(m, err, 0)
		}
		if errors.Is(err, os.ErrPermission) {
			// A VMM with capabilities that this program has not: it can't be looked
			// at, and was told relative paths only.
			return nil
		}
		return fmt.Errorf("look at the VMM's files: %w", err)
	}
	all := filepath.Dir(o.Dir) + string(filepath.Separator)
	own := o.Dir + string(filepath.Separator)
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(fds, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		if strings.HasPrefix(target, all) && !strings.HasPrefix(target, own) {
			return fmt.Errorf("the VMM has opened %s, which is another VM's", target)
		}
	}
	return nil
}
