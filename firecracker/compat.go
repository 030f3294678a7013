package firecracker

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/record"
)

// What a release can't do, or does wrong, is refused here, before anything is
// started: see docs/versions.md.

// supported refuses a plan with requests that the release does not understand:
// all of them at once.
func supported(l release, reqs ...fcapi.Request) error {
	var errs []error
	for _, q := range reqs {
		if err := fcapi.Supports(l.Version, q); err != nil {
			errs = append(errs, err)
		}
	}
	return unsupported(errors.Join(errs...))
}

// unsupported makes what fcapi refuses for its release microvm.ErrUnsupported.
func unsupported(err error) error {
	if errors.Is(err, fcapi.ErrUnsupported) && !errors.Is(err, microvm.ErrUnsupported) {
		return fmt.Errorf("%w: %w", microvm.ErrUnsupported, err)
	}
	return err
}

// checkCreate refuses a new VM of this spec, which the release can't boot or can't
// bring back from the hibernation that the spec asks for.
func (r *Runtime) checkCreate(s microvm.Spec, l release) error {
	err := r.checkBoot(s, l)
	if s.StopMode == microvm.StopModeHibernate {
		err = errors.Join(err, checkRestored(s, l))
	}
	return err
}

// checkBoot refuses to boot a VM of this spec in the release.
func (r *Runtime) checkBoot(s microvm.Spec, l release) error {
	planned := &record.Record{Spec: s, Disks: plannedDisks(s)}
	err := supported(l, bootRequests(planned, l, plannedSlot(s), r.cfg.SerialBytesPerSecond)...)
	return errors.Join(err, checkHugePages(s, l))
}

// checkHugePages refuses what older releases don't put together: see
// src/vmm/src/vmm_config/machine_config.rs of Firecracker, InitrdAndHugePages and
// BalloonAndHugePages.
func checkHugePages(s microvm.Spec, l release) error {
	if s.HugePages != string(fcapi.HugePages2M) {
		return nil
	}
	var errs []error
	since := func(with bool, field string, v fcapi.Version) {
		if with && !l.AtLeast(v) {
			errs = append(errs, fmt.Errorf("huge_pages 2M with %s: %w by %s: it needs %s or newer", field, microvm.ErrUnsupported, l, v))
		}
	}
	since(s.Initrd != "", "initrd", fcapi.Version{Major: 1, Minor: 11})
	since(s.Balloon != nil, "balloon", fcapi.Version{Major: 1, Minor: 14})
	return errors.Join(errs...)
}

// checkLoad refuses to restore in the release what wrote has written.
func (r *Runtime) checkLoad(s microvm.Spec, from *microvm.RestoreFrom, wrote release, p program) error {
	if err := loads(p.release, wrote); err != nil {
		return fmt.Errorf("%w (%s)", err, p.path)
	}
	reqs := append(processRequests(s, p.release, r.cfg.SerialBytesPerSecond), loadRequest(s, from, p.release))
	return errors.Join(supported(p.release, reqs...), checkRestored(s, p.release))
}

// loads refuses a snapshot of another VMM, or of a format that the release does
// not read. Where a format is unknown the VMM decides.
func loads(l, wrote release) error {
	var unknown fcapi.Version
	switch {
	case l.name != wrote.name:
	case l.format == unknown || wrote.format == unknown:
		return nil
	// 1.10.0 calls its format by the name of another one.
	case !fcapi.LoadsFormat(l.format, wrote.format),
		l.defective(fcapi.DefectSnapshotFormat) != wrote.defective(fcapi.DefectSnapshotFormat):
	default:
		return nil
	}
	return fmt.Errorf("%w: the guest's memory was written by %s, and the VMM is %s, which can't load it", microvm.ErrUnsupported, wrote.writes(), l.writes())
}

// checkRestored refuses a restore that the release breaks.
func checkRestored(s microvm.Spec, l release) error {
	var errs []error
	if s.Vsock != nil {
		errs = append(errs, l.refuse(fcapi.DefectVsockDeadOnRestore, "vsock"))
	}
	if len(s.NetworkInterfaces) > 0 || s.ManagedNetwork() != nil {
		errs = append(errs, l.refuse(fcapi.DefectNetworkDeadOnRestore, "network_interfaces"))
	}
	return errors.Join(errs...)
}

// refuse is an error if the release has the defect, which the field of a spec
// would run into.
func (l release) refuse(id fcapi.DefectID, field string) error {
	if !l.defective(id) {
		return nil
	}
	for _, d := range fcapi.KnownDefects(l.Version) {
		if d.ID == id {
			return fmt.Errorf("%s: %w: %s has the defect %s: %s; mended in %s", field, microvm.ErrUnsupported, l, d.ID, d.Summary, versions(d.FixedIn))
		}
	}
	return nil
}

func versions(all []fcapi.Version) string {
	texts := make([]string, len(all))
	for i, v := range all {
		texts[i] = v.String()
	}
	return strings.Join(texts, ", ")
}

// corruptsDiffs says whether the release writes wrong memory into Diff
// snapshots of a guest of this size.
func corruptsDiffs(l release, memoryMiB int) bool {
	const oneSlotMiB = 3 << 10
	return runtime.GOARCH == "amd64" && memoryMiB > oneSlotMiB && l.defective(fcapi.DefectDiffMemoryCorrupt)
}

// checkWake refuses a hibernation from which the program that is installed now
// could not bring the guest back. That none is installed is no reason: it can
// be put back.
func (o *op) checkWake(m *machine) error {
	p, err := o.r.program(o.ctx)
	if err != nil {
		return o.ctx.Err()
	}
	wrote, err := o.r.releaseOf(m.ident.Version)
	if err != nil {
		return err
	}
	if err := loads(p.release, wrote); err != nil {
		return fmt.Errorf("%w (%s): stop it by pause or shutdown", err, p.path)
	}
	return checkRestored(o.Rec.Spec, p.release)
}
