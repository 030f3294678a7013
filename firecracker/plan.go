package firecracker

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/vmm"
)

// launchArgs is the VMM's command line. Every path is relative to its working
// directory, so that the VM can be renamed, and restored elsewhere.
func launchArgs(uid string) []string {
	return []string{"--id", uid, "--api-sock", apiSocket, "--log-path", logFile, "--level", "Info"}
}

// launchCommand is what is executed, without its open files.
func launchCommand(binary, runDir, uid string, env []string) vmm.Command {
	return vmm.Command{Path: binary, Args: launchArgs(uid), Env: env, Dir: runDir}
}

// version is a release of Firecracker: major and minor.
type version struct{ major, minor int }

// parseVersion understands "1.16.1", "v1.7.0" and "1.17.0-dev".
func parseVersion(s string) (version, error) {
	parts := strings.SplitN(strings.TrimPrefix(s, "v"), ".", 3)
	if len(parts) == 3 {
		major, err1 := strconv.Atoi(parts[0])
		minor, err2 := strconv.Atoi(parts[1])
		if err1 == nil && err2 == nil && major >= 0 && minor >= 0 {
			return version{major, minor}, nil
		}
	}
	return version{}, fmt.Errorf("%w: the VMM says that its version is %.80q", microvm.ErrUnsupported, s)
}

func (v version) atLeast(major, minor int) bool {
	return v.major > major || v.major == major && v.minor >= minor
}

func (v version) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

// Since which release Firecracker has what this provider may send, from its
// CHANGELOG.
var (
	sinceOverrides      = version{1, 12} // network_overrides
	sinceMincoreDiff    = version{1, 13} // Diff without dirty tracking; track_dirty_pages in /snapshot/load
	sinceSerialLimit    = version{1, 16} // its rate_limiter
	sinceVsockOverride  = version{1, 16}
	sinceNetworkMTU     = version{1, 16}
	sinceBalloonHinting = version{1, 14}
	sinceIMDSCompat     = version{1, 13}
)

func (v version) has(since version) bool { return v.atLeast(since.major, since.minor) }

// unsupported says that a field needs a newer VMM.
func (v version) unsupported(field string, since version) error {
	return fmt.Errorf("%s: %w by Firecracker %s: it needs %s or newer", field, microvm.ErrUnsupported, v, since)
}

// checkVersion finds what a spec asks for and this VMM lacks.
func checkVersion(s microvm.Spec, v version) error {
	for i, n := range s.NetworkInterfaces {
		if n.MTU != 0 && !v.has(sinceNetworkMTU) {
			return v.unsupported(fmt.Sprintf("network_interfaces[%d].mtu", i), sinceNetworkMTU)
		}
	}
	if b := s.Balloon; b != nil && (b.FreePageHinting || b.FreePageReporting) && !v.has(sinceBalloonHinting) {
		return v.unsupported("balloon.free_page_hinting", sinceBalloonHinting)
	}
	if s.MMDS != nil && s.MMDS.IMDSCompat && !v.has(sinceIMDSCompat) {
		return v.unsupported("mmds.imds_compat", sinceIMDSCompat)
	}
	if s.Serial != nil && s.Serial.RateLimit != nil && !v.has(sinceSerialLimit) {
		return v.unsupported("serial.rate_limit", sinceSerialLimit)
	}
	return nil
}

// bootRequests is what a VMM is told before InstanceStart, in order.
func bootRequests(rec *record.Record, v version, serialDefault int64) []fcapi.Request {
	s := rec.Spec
	reqs := processRequests(s, v, serialDefault)
	reqs = append(reqs, fcapi.PutMachineConfigRequest(fcapi.MachineConfig{
		VCPUCount: s.VCPUs, MemSizeMiB: s.MemoryMiB,
		SMT: isTrue(s.SMT), CPUTemplate: fcapi.CPUTemplate(s.CPUTemplate),
		TrackDirtyPages: isTrue(s.TrackDirtyPages), HugePages: fcapi.HugePages(s.HugePages),
	}))
	boot := fcapi.BootSource{KernelImagePath: kernelFile, BootArgs: &s.BootArgs}
	if s.Initrd != "" {
		boot.InitrdPath = initrdFile
	}
	reqs = append(reqs, fcapi.PutBootSourceRequest(boot))
	for _, d := range rec.Disks {
		reqs = append(reqs, fcapi.PutDriveRequest(drive(s, d)))
	}
	for _, n := range s.NetworkInterfaces {
		reqs = append(reqs, fcapi.PutNetworkInterfaceRequest(fcapi.NetworkInterface{
			IfaceID: n.ID, HostDevName: n.HostDevName, GuestMAC: n.MAC, MTU: n.MTU,
			RxRateLimiter: limiter(n.RxRateLimit), TxRateLimiter: limiter(n.TxRateLimit),
		}))
	}
	if k := s.Vsock; k != nil {
		reqs = append(reqs, fcapi.PutVsockRequest(fcapi.Vsock{GuestCID: k.CID, UDSPath: vsockPath(s)}))
	}
	if m := s.MMDS; m != nil {
		reqs = append(reqs, fcapi.PutMMDSConfigRequest(fcapi.MMDSConfig{
			Version: fcapi.MMDSVersion(m.Version), NetworkInterfaces: m.Interfaces, IPv4Address: m.Address, IMDSCompat: m.IMDSCompat,
		}))
		if len(m.Contents) > 0 {
			reqs = append(reqs, fcapi.PutMMDSRequest(m.Contents))
		}
	}
	if b := s.Balloon; b != nil {
		reqs = append(reqs, fcapi.PutBalloonRequest(fcapi.Balloon{
			AmountMiB: b.TargetMiB, DeflateOnOOM: b.DeflateOnOOM, StatsPollingIntervalS: b.StatsIntervalS,
			FreePageHinting: b.FreePageHinting, FreePageReporting: b.FreePageReporting,
		}))
	}
	if e := s.Entropy; e != nil {
		reqs = append(reqs, fcapi.PutEntropyRequest(fcapi.EntropyDevice{RateLimiter: limiter(e.RateLimit)}))
	}
	return reqs
}

// processRequests is what each new VMM is told, before a boot and before a load:
// a snapshot holds none of it.
func processRequests(s microvm.Spec, v version, serialDefault int64) []fcapi.Request {
	var reqs []fcapi.Request
	if s.Metrics == nil || *s.Metrics {
		reqs = append(reqs, fcapi.PutMetricsRequest(fcapi.Metrics{MetricsPath: metricsFile}))
	}
	if v.has(sinceSerialLimit) {
		var b *fcapi.TokenBucket
		switch {
		case s.Serial != nil && s.Serial.RateLimit != nil:
			b = bucket(s.Serial.RateLimit)
		case serialDefault > 0:
			b = bucket(microvm.PerSecond(uint64(serialDefault)))
		}
		if b != nil {
			reqs = append(reqs, fcapi.PutSerialRequest(fcapi.SerialDevice{RateLimiter: b}))
		}
	}
	return reqs
}

// loadRequest restores from the run directory's state and memory files, paused.
func loadRequest(s microvm.Spec, from *microvm.RestoreFrom, v version) (fcapi.Request, error) {
	load := fcapi.SnapshotLoad{
		SnapshotPath: stateFile,
		MemBackend:   &fcapi.MemoryBackend{BackendType: fcapi.MemoryFile, BackendPath: memoryFile},
	}
	if isTrue(s.TrackDirtyPages) {
		if v.has(sinceMincoreDiff) {
			load.TrackDirtyPages = true
		} else {
			load.EnableDiffSnapshots = true //lint:ignore SA1019 older releases know no other
		}
	}
	if from != nil {
		if len(from.NetworkOverrides) > 0 && !v.has(sinceOverrides) {
			return fcapi.Request{}, v.unsupported("restore_from.network_overrides", sinceOverrides)
		}
		for _, n := range from.NetworkOverrides {
			load.NetworkOverrides = append(load.NetworkOverrides, fcapi.NetworkOverride{IfaceID: n.InterfaceID, HostDevName: n.HostDevName})
		}
		if from.VsockPath != "" {
			if !v.has(sinceVsockOverride) {
				return fcapi.Request{}, v.unsupported("restore_from.vsock_path", sinceVsockOverride)
			}
			load.VsockOverride = &fcapi.VsockOverride{UDSPath: from.VsockPath}
		}
	}
	return fcapi.LoadSnapshotRequest(load), nil
}

// drive is what the VMM is told of a disk. A root= of the user's own wins over
// the one that Firecracker would add for a root device.
func drive(s microvm.Spec, d record.Disk) fcapi.Drive {
	out := fcapi.Drive{DriveID: d.ID, PathOnHost: d.File, IsReadOnly: d.ReadOnly}
	if d.ID == microvm.RootDriveID {
		out.IsRootDevice = !namesRoot(s.BootArgs)
		if r := s.Rootfs; r != nil {
			out.CacheType, out.IOEngine, out.RateLimiter = fcapi.CacheType(r.CacheType), fcapi.IOEngine(r.IOEngine), limiter(r.RateLimit)
		}
		return out
	}
	for _, sd := range s.Drives {
		if sd.ID == d.ID {
			out.CacheType, out.IOEngine, out.RateLimiter = fcapi.CacheType(sd.CacheType), fcapi.IOEngine(sd.IOEngine), limiter(sd.RateLimit)
		}
	}
	return out
}

// namesRoot looks for a root= among the kernel's arguments, which end at a
// free-standing "--".
func namesRoot(bootArgs string) bool {
	for _, a := range strings.Fields(bootArgs) {
		if a == "--" {
			return false
		}
		if strings.HasPrefix(a, "root=") {
			return true
		}
	}
	return false
}

func vsockPath(s microvm.Spec) string {
	if s.Vsock.Path != "" {
		return s.Vsock.Path
	}
	return vsockSocket
}

// vsockOnHost is where the host finds the socket.
func vsockOnHost(s microvm.Spec, runDir string) string {
	if p := vsockPath(s); filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(runDir, vsockSocket)
}

func limiter(r *microvm.RateLimit) *fcapi.RateLimiter {
	if r == nil || r.Bandwidth == nil && r.Ops == nil {
		return nil
	}
	return &fcapi.RateLimiter{Bandwidth: bucket(r.Bandwidth), Ops: bucket(r.Ops)}
}

func bucket(b *microvm.TokenBucket) *fcapi.TokenBucket {
	if b == nil {
		return nil
	}
	refill := b.RefillMS
	if refill == 0 {
		refill = 1000
	}
	return &fcapi.TokenBucket{Size: b.Size, OneTimeBurst: b.OneTimeBurst, RefillTime: refill}
}

func isTrue(b *bool) bool { return b != nil && *b }
