package firecracker

import (
	"errors"
	"path/filepath"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/console"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/vmm"
)

const (
	evidenceBytes = 4 << 10
	evidenceLines = 20
)

// evidence is the ends of the VMM's log and of the guest's console in a VM's
// directory, as far as there are any.
func evidence(dir string) (log, guest string) {
	tail := func(path string) string {
		b, err := console.Tail(path, evidenceLines, evidenceBytes)
		if err != nil {
			return "" // it is evidence, and there is none
		}
		return console.Sanitize(b, evidenceBytes)
	}
	run := filepath.Join(dir, runName)
	return tail(filepath.Join(run, logFile)) + tail(filepath.Join(run, stderrFile)), tail(filepath.Join(dir, consoleFile))
}

// endedUnasked says that a VM's guest or VMM has ended by itself: what was
// written last may tell why.
func (r *Runtime) endedUnasked(rec *record.Record) bool {
	if rec.Process != nil {
		_, err := r.machine(rec)
		return errors.Is(err, vmm.ErrGone) && !r.beingEnded(rec)
	}
	reason := rec.StopReason
	return rec.Status == microvm.StatusStopped && reason != nil && (reason.Cause == microvm.StopGuest || reason.Cause == microvm.StopVMMDied)
}

// withEvidence adds the evidence to an error about a VM that has ended by itself.
func (r *Runtime) withEvidence(e *microvm.Error, rec *record.Record) *microvm.Error {
	if rec != nil && r.endedUnasked(rec) {
		e.Log, e.Console = evidence(r.store.Dir(rec.ID))
	}
	return e
}
