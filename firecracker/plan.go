package firecracker

import (
	"path/filepath"
	"strings"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/network"
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

// bootRequests is what a VMM is told before InstanceStart, in order.
func bootRequests(rec *record.Record, l release, slot *network.Slot, serialDefault int64) []fcapi.Request {
	s := rec.Spec
	reqs := processRequests(s, l, serialDefault)
	reqs = append(reqs, fcapi.PutMachineConfigRequest(fcapi.MachineConfig{
		VCPUCount: s.VCPUs, MemSizeMiB: s.MemoryMiB,
		SMT: isTrue(s.SMT), CPUTemplate: fcapi.CPUTemplate(s.CPUTemplate),
		TrackDirtyPages: isTrue(s.TrackDirtyPages), HugePages: fcapi.HugePages(s.HugePages),
	}))
	args := s.BootArgs
	if slot != nil {
		args = withAddress(args, slot)
	}
	boot := fcapi.BootSource{KernelImagePath: kernelFile, BootArgs: &args}
	if s.Initrd != "" {
		boot.InitrdPath = initrdFile
	}
	reqs = append(reqs, fcapi.PutBootSourceRequest(boot))
	for _, d := range rec.Disks {
		reqs = append(reqs, fcapi.PutDriveRequest(drive(s, d)))
	}
	if slot != nil {
		reqs = append(reqs, managedInterface(s.Network, slot))
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
// a snapshot holds none of it. The default limit of the serial port is left out
// where the release does not know it.
func processRequests(s microvm.Spec, l release, serialDefault int64) []fcapi.Request {
	var reqs []fcapi.Request
	if s.Metrics == nil || *s.Metrics {
		reqs = append(reqs, fcapi.PutMetricsRequest(fcapi.Metrics{MetricsPath: metricsFile}))
	}
	limit := func(b *microvm.TokenBucket) fcapi.Request {
		return fcapi.PutSerialRequest(fcapi.SerialDevice{RateLimiter: bucket(b)})
	}
	if s.Serial != nil && s.Serial.RateLimit != nil {
		return append(reqs, limit(s.Serial.RateLimit))
	}
	if serialDefault > 0 {
		if q := limit(microvm.PerSecond(uint64(serialDefault))); fcapi.Supports(l.Version, q) == nil {
			reqs = append(reqs, q)
		}
	}
	return reqs
}

// loadRequest restores from the run directory's state and memory files, paused.
func loadRequest(s microvm.Spec, from *microvm.RestoreFrom, l release) fcapi.Request {
	load := fcapi.SnapshotLoad{
		SnapshotPath: stateFile,
		MemBackend:   &fcapi.MemoryBackend{BackendType: fcapi.MemoryFile, BackendPath: memoryFile},
	}
	if isTrue(s.TrackDirtyPages) {
		load.TrackDirtyPages = true
		if fcapi.Supports(l.Version, fcapi.LoadSnapshotRequest(load)) != nil {
			load.TrackDirtyPages = false
			load.EnableDiffSnapshots = true //lint:ignore SA1019 older releases know no other
		}
	}
	if from != nil {
		for _, n := range from.NetworkOverrides {
			load.NetworkOverrides = append(load.NetworkOverrides, fcapi.NetworkOverride{IfaceID: n.InterfaceID, HostDevName: n.HostDevName})
		}
		if from.VsockPath != "" {
			load.VsockOverride = &fcapi.VsockOverride{UDSPath: from.VsockPath}
		}
	}
	return fcapi.LoadSnapshotRequest(load)
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
