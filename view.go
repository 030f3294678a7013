package microvm

import (
	"fmt"
	"net/netip"
	"time"
)

// Status is the state of a VM.
type Status string

// The states of a VM.
const (
	StatusCreated   Status = "created"
	StatusRunning   Status = "running"
	StatusStopped   Status = "stopped"
	StatusDestroyed Status = "destroyed"
)

// StopCause says who or what ended the last run of a VM.
type StopCause string

// Why a VM is stopped.
const (
	StopPaused     StopCause = "paused"     // StopVM in mode pause; memory is held by the process
	StopHibernated StopCause = "hibernated" // StopVM in mode hibernate; memory is on disk
	StopShutdown   StopCause = "shutdown"   // StopVM in mode shutdown
	StopRestored   StopCause = "restored"   // restored without ResumeImmediately, never run yet
	StopGuest      StopCause = "guest"      // the guest rebooted, shut down or panicked: the VMM left by itself
	StopVMMDied    StopCause = "vmm-died"   // the VMM was killed or crashed
	StopHost       StopCause = "host"       // the host restarted
)

// StopReason says why a VM is stopped.
type StopReason struct {
	Cause StopCause `json:"cause"`
	// ExitCode is the VMM's, nil when it was ended by a signal, still lives, or
	// was not a child of the program that saw it end. A clean end and a panic
	// may both be 0: the guest's console tells them apart.
	ExitCode *int `json:"exit_code,omitempty"`
	// Signal is the name of the signal that ended the VMM, such as "SIGKILL".
	Signal string `json:"signal,omitempty"`
	// Detail is a sentence for people.
	Detail string `json:"detail,omitempty"`
}

func (r StopReason) String() string {
	s := string(r.Cause)
	switch {
	case r.Signal != "":
		s += " (" + r.Signal + ")"
	case r.ExitCode != nil:
		s += fmt.Sprintf(" (exit code %d)", *r.ExitCode)
	}
	if r.Detail != "" {
		s += ": " + r.Detail
	}
	return s
}

// View is what is seen of a VM.
type View struct {
	ID        string   `json:"id"`
	Status    Status   `json:"status"`
	Snapshots []string `json:"snapshots"` // names, in the order in which they were made; never nil

	// UID is the VM's for its whole life, renames included.
	UID string `json:"uid,omitempty"`

	CreatedAt time.Time `json:"created_at,omitzero"`
	// StartedAt is when the VM last became running, StoppedAt when it last ceased to
	// be: of what a verb does, when the VMM was told.
	StartedAt time.Time `json:"started_at,omitzero"`
	StoppedAt time.Time `json:"stopped_at,omitzero"`

	// StopReason is set while Status is stopped, and kept by a tombstone.
	StopReason *StopReason `json:"stop_reason,omitempty"`

	PID        int    `json:"pid,omitempty"`         // of the VMM; 0 while there is none
	VMM        string `json:"vmm,omitempty"`         // "firecracker", or the emulator's name
	VMMVersion string `json:"vmm_version,omitempty"` // as the process says

	Addresses []netip.Addr      `json:"addresses,omitempty"` // where the host reaches the VM
	Ports     []PublishedPort   `json:"ports,omitempty"`     // of the host that lead to it
	Labels    map[string]string `json:"labels,omitempty"`

	// SpecDigest is Spec.Digest of the spec with the provider's defaults filled
	// in.
	SpecDigest string `json:"spec_digest,omitempty"`

	// SnapshotPause is how long the guest stood still for the last snapshot of
	// the running VM.
	SnapshotPause time.Duration `json:"snapshot_pause_ns,omitempty"`

	// Trouble tells of something that needs the operator, such as a destroy
	// that could not remove a file; empty otherwise.
	Trouble string `json:"trouble,omitempty"`
}
