package fcemu

import (
	"fmt"
	"slices"

	"github.com/tangle-network/microvm/fcapi"
)

func (c *controller) createSnapshot(p SnapshotCreate) *fault {
	if f := c.postBoot(); f != nil {
		return f
	}
	if c.state != paused {
		return refuse("Create snapshot error: save/restore unavailable while running: pause the microVM first.")
	}
	if p.SnapshotType == "Diff" && !c.cfg.Machine.TrackDirtyPages && !fcapi.DiffsUntracked(c.rel.version) {
		return refuse("Create snapshot error: Diff snapshots are not allowed on uVMs with dirty page tracking disabled.")
	}
	if err := c.engine.CreateSnapshot(c.ctx, &c.cfg, p); err != nil {
		return engineFault("Create snapshot error", err)
	}
	return nil
}

// loadSnapshot restores a guest. A failure other than a refusal beforehand
// leaves a process that must go.
func (c *controller) loadSnapshot(p SnapshotLoad) *fault {
	if f := c.preBoot(); f != nil {
		return f
	}
	if c.bootPath {
		return refuse("Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources.")
	}
	if err := c.restore(p); err != nil {
		c.fatal = notLoaded("Restore")
		return engineFault("Load snapshot error: Failed to restore from snapshot", err)
	}
	if !p.ResumeVM {
		c.state = paused
		return nil
	}
	if err := c.engine.Resume(c.ctx); err != nil {
		c.fatal = notLoaded("Resume")
		return engineFault("Load snapshot error: Failed to resume microVM", err)
	}
	c.state = running
	return nil
}

func notLoaded(step string) *exit {
	return fail("RunWithApi(BuildMicroVmError("+step+"))", "RunWithApiError error: Failed to build MicroVM: Loading snapshot failed.")
}

func (c *controller) restore(p SnapshotLoad) error {
	st, err := OpenState(p.SnapshotPath)
	if err != nil {
		return err
	}
	defer st.Close()
	if !fcapi.LoadsFormat(c.rel.format.version(), st.Format.version()) {
		return fmt.Errorf("%w: format %v, written by %s; %s reads %v", ErrBadState, st.Format, st.Version, c.rel.reported(), c.rel.format)
	}
	if st.Engine != c.engine.Name() {
		return fmt.Errorf("%w: written by the %s engine, this is the %s engine", ErrBadState, st.Engine, c.engine.Name())
	}
	cfg := st.Config
	cfg.rel = &c.rel
	if p.HugePages != "Snapshot" {
		cfg.Machine.HugePages = p.HugePages
	}
	for _, o := range p.NetworkOverrides {
		at := slices.IndexFunc(cfg.NetworkInterfaces, func(n NetworkInterface) bool { return n.IfaceID == o.IfaceID })
		if at < 0 {
			return fmt.Errorf("network_overrides: the snapshot has no interface %q", o.IfaceID)
		}
		cfg.NetworkInterfaces[at].HostDevName = o.HostDevName
	}
	if p.VsockOverride != nil {
		if cfg.Vsock == nil {
			return fmt.Errorf("vsock_override: the snapshot has no vsock device")
		}
		cfg.Vsock.UDSPath = p.VsockOverride.UDSPath
	}
	cfg.Machine.TrackDirtyPages = p.TrackDirtyPages
	cfg.Serial = c.cfg.Serial // not part of a snapshot: given anew to each process
	for i := range cfg.Drives {
		d := &cfg.Drives[i]
		f, err := openDrive(d)
		if err != nil {
			return fmt.Errorf("drive %s: %w", d.DriveID, err)
		}
		c.files.hold("drives/"+d.DriveID, f)
	}
	if err := c.engine.LoadSnapshot(c.ctx, &cfg, p, st.Blob); err != nil {
		return err
	}
	c.cfg = cfg
	setNonblock(c.stdout)
	return nil
}
