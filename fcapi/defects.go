package fcapi

import "slices"

// DefectID names a defect of some releases.
type DefectID string

// The defects that a driver of Firecracker can run into.
const (
	DefectAPIStuckAtGuestEnd     DefectID = "api-stuck-at-guest-end"
	DefectBalloonStatsStall      DefectID = "balloon-stats-stall"
	DefectBlockStarvesOthers     DefectID = "block-starves-others"
	DefectClockJumpsOnRestore    DefectID = "clock-jumps-on-restore"
	DefectCtrlAltDelIgnored      DefectID = "ctrl-alt-del-ignored"
	DefectDiffMemoryCorrupt      DefectID = "diff-memory-corrupt"
	DefectEntropyHostMemory      DefectID = "entropy-host-memory"
	DefectHotplugBlockSlots      DefectID = "hotplug-block-slots"
	DefectHotplugSizeWraps       DefectID = "hotplug-size-wraps"
	DefectJailerCopyFollowsLinks DefectID = "jailer-copy-follows-links"
	DefectJailerHangsUp          DefectID = "jailer-hangs-up"
	DefectJailerRefusesSymlinks  DefectID = "jailer-refuses-symlinks"
	DefectLogFIFOWithoutReader   DefectID = "log-fifo-without-reader"
	DefectLoggerDeadlock         DefectID = "logger-deadlock"
	DefectMSRsMissing            DefectID = "msrs-missing-in-snapshot"
	DefectNetworkDeadOnRestore   DefectID = "network-dead-on-restore"
	DefectPCIDeviceStatus        DefectID = "pci-device-status"
	DefectSerialStuckOnRestore   DefectID = "serial-stuck-on-restore"
	DefectSnapshotFormat         DefectID = "snapshot-format"
	DefectSoftLockupOnRestore    DefectID = "soft-lockup-on-restore"
	DefectTemplatesOnNewKernels  DefectID = "templates-on-new-kernels"
	DefectTimerLateOnRestore     DefectID = "timer-late-on-restore"
	DefectUffdHandshake          DefectID = "uffd-handshake"
	DefectUffdNewKernels         DefectID = "uffd-new-kernels"
	DefectUffdNoRemove           DefectID = "uffd-no-remove"
	DefectVMGenIDUnbound         DefectID = "vmgenid-unbound"
	DefectVsockDataTwice         DefectID = "vsock-data-twice"
	DefectVsockDeadOnRestore     DefectID = "vsock-dead-on-restore"
	DefectVsockMuteAfterResume   DefectID = "vsock-mute-after-resume"
	DefectVsockPortReuse         DefectID = "vsock-port-reuse"
	DefectVsockResetLate         DefectID = "vsock-reset-late"
	DefectVsockResetUntold       DefectID = "vsock-reset-untold"
	DefectVsockSpins             DefectID = "vsock-spins"
)

// Defect is a fault of some releases that a later one mends.
type Defect struct {
	ID DefectID
	// Summary says what happens and when.
	Summary string
	// Since is the first release that is known to have it; zero when it was
	// there before 1.7.0 or nobody has said since when.
	Since Version
	// FixedIn are the releases that mend it: the last one and all newer ones
	// are free of it, those before the last only with the later patch releases
	// of their own line. Empty when none does.
	FixedIn []Version
	// Pulls are the pull requests at
	// https://github.com/firecracker-microvm/firecracker that mend it, as
	// CHANGELOG.md names them. Empty for what was only seen, in that Since.
	Pulls []int
}

// defects in the order of the oldest release without them, newest first. Since
// is from the pull request's text, or the release that brought the thing.
var defects = []Defect{
	{ID: DefectAPIStuckAtGuestEnd, Since: Version{1, 16, 1},
		Summary: "a request that is under way when the guest ends can leave the VMM alive for ever with an API that does not answer"},
	{ID: DefectVsockMuteAfterResume, Since: Version{1, 16, 0}, FixedIn: from(17), Pulls: []int{6100},
		Summary: "after a pause and resume without a snapshot between, new vsock connections from the host hang for ever"},
	{ID: DefectVsockSpins, FixedIn: from(17), Pulls: []int{6031, 6041, 6077},
		Summary: "a guest that does not take its vsock data keeps the VMM's event thread at 100 % and delays its API"},
	{ID: DefectLoggerDeadlock, FixedIn: from(17), Pulls: []int{6086},
		Summary: "a signal that is logged while a line is being logged hangs the VMM, as when the log goes to a pipe without a reader"},
	{ID: DefectHotplugSizeWraps, Since: Version{1, 14, 0}, FixedIn: from(17), Pulls: []int{6076},
		Summary: "sizes of hotplugged memory above 32 bits wrap instead of being refused"},
	{ID: DefectTemplatesOnNewKernels, FixedIn: from(17), Pulls: []int{6120},
		Summary: "on hosts from Linux 6.13 CPU templates clear bits of MSRs that they should pass through, eIBRS among them (x86_64)"},
	{ID: DefectVsockDeadOnRestore, Since: Version{1, 16, 0}, FixedIn: releases{{1, 16, 1}}, Pulls: []int{5958},
		Summary: "vsock connections from the guest time out after a restore, when the snapshot caught one sending"},
	{ID: DefectJailerRefusesSymlinks, Since: Version{1, 16, 0}, FixedIn: releases{{1, 16, 1}}, Pulls: []int{5959},
		Summary: "the jailer refuses symbolic links in the paths of cgroups and network namespaces"},
	{ID: DefectVsockResetLate, Since: Version{1, 13, 0}, FixedIn: from(16), Pulls: []int{5882},
		Summary: "with --enable-pci, vsock connections made right after a restore can break"},
	{ID: DefectSerialStuckOnRestore, FixedIn: from(16), Pulls: []int{5764},
		Summary: "the guest's serial console falls silent after a restore, when the snapshot caught it sending"},
	{ID: DefectMSRsMissing, FixedIn: from(16), Pulls: []int{5738},
		Summary: "snapshots lack some of KVM's own MSRs, such as those of asynchronous page faults (x86_64)"},
	{ID: DefectVMGenIDUnbound, Since: Version{1, 8, 0}, FixedIn: from(16), Pulls: []int{5760},
		Summary: "guest kernels before 6.10 do not bind to the VMGenID device, so clones do not renew their entropy"},
	{ID: DefectClockJumpsOnRestore, FixedIn: releases{{1, 14, 4}, {1, 15, 1}, {1, 16, 0}}, Pulls: []int{5809},
		Summary: "on hosts from Linux 5.16 the monotonic clock of guests on kvm-clock jumps at a restore by the age of the snapshot (x86_64)"},
	{ID: DefectHotplugBlockSlots, Since: Version{1, 14, 0}, FixedIn: releases{{1, 14, 4}, {1, 15, 1}, {1, 16, 0}}, Pulls: []int{5793},
		Summary: "hotplugged memory in blocks that are not aligned to a slot can be out of the guest's reach, or in it after it was unplugged"},
	{ID: DefectBalloonStatsStall, FixedIn: releases{{1, 14, 4}, {1, 15, 1}, {1, 16, 0}}, Pulls: []int{5794},
		Summary: "a guest can stall the VMM for a while through the balloon's statistics, when they are on"},
	{ID: DefectEntropyHostMemory, FixedIn: releases{{1, 14, 4}, {1, 15, 1}, {1, 16, 0}}, Pulls: []int{5762},
		Summary: "a guest can make the VMM use more memory than its own through the entropy device"},
	{ID: DefectPCIDeviceStatus, Since: Version{1, 13, 0}, FixedIn: releases{{1, 14, 4}, {1, 15, 1}, {1, 16, 0}}, Pulls: []int{5818},
		Summary: "with --enable-pci, the order in which a guest sets up its devices is not enforced"},
	{ID: DefectDiffMemoryCorrupt, Since: Version{1, 14, 0}, FixedIn: releases{{1, 14, 2}, {1, 15, 0}}, Pulls: []int{5705},
		Summary: "Diff snapshots have corrupt memory when the guest has hotplugged memory, or more than 3 GiB (x86_64)"},
	{ID: DefectLogFIFOWithoutReader, Since: Version{1, 14, 0}, FixedIn: releases{{1, 14, 2}, {1, 15, 0}}, Pulls: []int{5698},
		Summary: "a FIFO for log or metrics that nobody reads yet is refused"},
	{ID: DefectJailerCopyFollowsLinks, FixedIn: releases{{1, 13, 2}, {1, 14, 1}, {1, 15, 0}}, Pulls: []int{5631},
		Summary: "the jailer follows links that were laid where it copies the VMM's binary to"},
	{ID: DefectVsockPortReuse, FixedIn: from(15), Pulls: []int{5688},
		Summary: "after a restore the VMM gives out vsock ports again that the guest still has in use"},
	{ID: DefectVsockDataTwice, FixedIn: from(14), Pulls: []int{5485},
		Summary: "vsock data is corrupted with guest kernels from 6.17"},
	{ID: DefectSoftLockupOnRestore, FixedIn: from(14), Pulls: []int{5494},
		Summary: "the guest's watchdog reports soft lockups after a restore"},
	{ID: DefectBlockStarvesOthers, FixedIn: releases{{1, 12, 1}, {1, 13, 0}}, Pulls: []int{5260, 5277},
		Summary: "a slow drive starves all other devices"},
	{ID: DefectCtrlAltDelIgnored, Since: Version{1, 8, 0}, FixedIn: from(12), Pulls: []int{5074},
		Summary: "SendCtrlAltDel does nothing for guests with ACPI and the default command line"},
	{ID: DefectUffdHandshake, FixedIn: from(12), Pulls: []int{5122},
		Summary: "the process that serves page faults sometimes gets an empty message in place of the memory's layout"},
	{ID: DefectUffdNoRemove, FixedIn: from(11), Pulls: []int{5021},
		Summary: "the process that serves page faults is not told of memory that the balloon takes"},
	{ID: DefectJailerHangsUp, FixedIn: from(11), Pulls: []int{5045},
		Summary: "the jailer's --new-pid-ns without --daemonize can end the VMM by a SIGHUP"},
	{ID: DefectSnapshotFormat, Since: Version{1, 10, 0}, FixedIn: releases{{1, 10, 1}}, Pulls: []int{4907},
		Summary: "snapshots call their format 3.0.0, as those of 1.9 do, and differ from them"},
	{ID: DefectVsockResetUntold, FixedIn: from(10), Pulls: []int{4796},
		Summary: "the guest is not told that a restore ended its vsock connections, and waits on them for ever"},
	{ID: DefectNetworkDeadOnRestore, Since: Version{1, 9, 0}, FixedIn: releases{{1, 9, 1}, {1, 10, 0}}, Pulls: []int{4824, 4826},
		Summary: "a restored guest can't be reached over a network that uses offloading"},
	{ID: DefectTimerLateOnRestore, FixedIn: from(8), Pulls: []int{4666},
		Summary: "a restored guest can hang in sleep, as its TSC deadline timers come at wrong times (x86_64)"},
	{ID: DefectUffdNewKernels, FixedIn: from(8), Pulls: []int{4578},
		Summary: "userfaultfd does not work on hosts from Linux 6.6"},
}

// KnownDefects returns the defects of v, those that were mended last first. It
// knows of nothing that is newer than its sources: see the version table.
func KnownDefects(v Version) []Defect {
	var found []Defect
	for _, d := range defects {
		if v.AtLeast(d.Since) && (len(d.FixedIn) == 0 || !releases(d.FixedIn).has(v)) {
			d.FixedIn, d.Pulls = slices.Clone(d.FixedIn), slices.Clone(d.Pulls)
			found = append(found, d)
		}
	}
	return found
}

// HasDefect reports whether v has the defect.
func HasDefect(v Version, id DefectID) bool {
	return slices.ContainsFunc(KnownDefects(v), func(d Defect) bool { return d.ID == id })
}
