// Package doctor finds out what this host can do for microVMs by doing it: it
// makes a KVM VM, clones a file, opens a userfaultfd, makes a network namespace
// with an nftables table in it. Nothing that it makes outlives the call.
package doctor

import (
	"context"
	"sync"
)

// Status is the outcome of a check.
type Status string

// The outcomes.
const (
	OK Status = "ok"
	// Limited works in part, or more slowly: Detail says what that costs.
	Limited Status = "limited"
	Missing Status = "missing"
)

// Check is one thing that was tried.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Detail string `json:"detail"`
	// For says what needs it.
	For string `json:"for"`
	// Remedy is the command that mends it; empty when nothing is to be done.
	Remedy string `json:"remedy,omitempty"`
}

// Options say where to look.
type Options struct {
	StateDir  string
	GuestDirs []string
	// Find returns the path of a program.
	Find func(name string) (string, bool)
	// VMM is the VMM that commands would use, empty if there is none; Env is the
	// environment that they give it, where fcemu finds its engine and its release.
	VMM string
	Env []string
}

// VMM is the one that commands would use.
type VMM struct {
	Path     string `json:"path"`
	Version  string `json:"version"`
	Emulator bool   `json:"emulator"`
	// Engine is what runs the guests of an emulator: "qemu" or "null".
	Engine string `json:"engine,omitempty"`
	// SnapshotFormat is that of the snapshots that it writes.
	SnapshotFormat string   `json:"snapshot_format,omitempty"`
	Defects        []Defect `json:"defects,omitempty"`
	Lacks          []Lack   `json:"lacks,omitempty"`
	// Jailer is the one that lies beside it; JailerVersion should be its own.
	Jailer        string `json:"jailer,omitempty"`
	JailerVersion string `json:"jailer_version,omitempty"`
}

// Report is all that was found out.
type Report struct {
	// CanRun says that Linux guests run on this host, Verdict in which way, or
	// why not; Remedy is the command that mends that.
	CanRun  bool    `json:"can_run"`
	Verdict string  `json:"verdict"`
	Remedy  string  `json:"remedy,omitempty"`
	VMM     *VMM    `json:"vmm,omitempty"`
	Checks  []Check `json:"checks"`
}

// Examine tries everything, at once, and waits for all of it.
func Examine(ctx context.Context, o Options) Report {
	kvm := ProbeKVM()
	var vmm *VMM
	guest, guestCheck := checkGuest(o.GuestDirs)
	checks := []func() []Check{
		func() []Check { return []Check{kvm.check()} },
		func() []Check {
			v, c := examineVMMs(ctx, o, kvm)
			vmm = v
			return c
		},
		func() []Check { return []Check{guestCheck} },
		func() []Check { return checkStateDir(o.StateDir) },
		func() []Check { return []Check{checkUserfaultfd()} },
		func() []Check { return checkNetwork(ctx) },
		func() []Check { return []Check{checkCgroup()} },
		func() []Check { return []Check{checkMkfs(ctx, o.Find)} },
	}
	results := make([][]Check, len(checks))
	var wg sync.WaitGroup
	for i, f := range checks {
		wg.Go(func() { results[i] = f() })
	}
	wg.Wait()
	r := Report{VMM: vmm}
	for _, c := range results {
		r.Checks = append(r.Checks, c...)
	}
	r.judge(kvm, guest)
	return r
}

// judge says whether VMs can run, and how.
func (r *Report) judge(kvm KVM, guest bool) {
	guestNote := ""
	if !guest {
		guestNote = `; "microvm run" needs --kernel, as no guest is installed`
	}
	switch v := r.VMM; {
	case v == nil:
		r.Verdict = "no VMM that works: neither firecracker nor fcemu"
		r.Remedy = installFcemu
	case !v.Emulator && kvm.BootsLinux():
		r.CanRun = true
		r.Verdict = "Linux guests run in Firecracker " + v.Version + " on KVM" + guestNote
	case !v.Emulator:
		r.Verdict = "Firecracker " + v.Version + " is there, but KVM can't run Linux: " + kvm.Detail
		r.Remedy = "use the emulator: " + installFcemu
	case v.Engine == engineNull:
		r.Verdict = "fcemu with its null engine runs NO guest at all: it is for tests"
		r.Remedy = installQEMU
	default:
		r.CanRun = true
		accel := "slowly, without KVM (TCG)"
		if kvm.BootsLinux() {
			accel = "with KVM"
		}
		r.Verdict = "Linux guests run in fcemu, an EMULATOR of Firecracker, in QEMU " + accel + guestNote
	}
}
