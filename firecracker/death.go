package firecracker

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/console"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/vmm"
)

// settle brings the record in line with what is, at the beginning of each verb:
// it finishes or takes back a verb that was cut off, and notes the death of the
// VMM.
func (o *op) settle() error {
	if o.Intent != nil {
		// What can't be resolved now is left to the next one.
		o.forward = true
		if err := o.resolveIntent(); err != nil {
			return err
		}
		o.forward = false
	}
	if err := o.dropForks(); err != nil {
		o.r.cfg.Log.Warn("a fork was cut off", "vm", o.ID, "err", err)
	}
	// A destroy may leave an intent unresolved: it sees for itself.
	if o.Rec.Process == nil || o.Intent != nil {
		return nil
	}
	m, err := o.machine()
	if !errors.Is(err, vmm.ErrGone) {
		return err
	}
	// A destroy ends what it finds, and then removes the sockets.
	destroys := o.verb == "destroy"
	if !destroys {
		if err := o.lostVMM(); err != nil {
			return err
		}
	}
	o.r.bury(o.Rec, m, o.Dir)
	if !destroys {
		if err := o.removeSocketsAfter(o.ctx); err != nil {
			return err
		}
	}
	if err := errors.Join(o.dropMemory(), o.Save()); err != nil {
		return err
	}
	o.r.forget(o.Rec.UID) // until now it tells queries how the VMM has ended
	return nil
}

// bury changes the record of a VM whose VMM is dead; m is nil when this program
// never watched it.
func (r *Runtime) bury(rec *record.Record, m *machine, dir string) {
	p := rec.Process
	rec.Process, rec.ColdBoot, rec.Base = nil, false, nil
	wasRunning := rec.Status == microvm.StatusRunning
	if rec.Status != microvm.StatusStopped && !wasRunning {
		return // a created VM has lost nothing: StartVM starts another VMM
	}
	reason := r.deathReason(p, m, dir)
	if !wasRunning {
		reason.Cause, reason.Detail = microvm.StopVMMDied, "the VMM ended while the VM was paused: its memory is lost"
	}
	rec.StopReason = &reason
	if wasRunning {
		rec.Status, rec.StoppedAt = microvm.StatusStopped, time.Now().UTC()
	}
}

// deathReason finds out why a VMM has ended.
func (r *Runtime) deathReason(p *record.Process, m *machine, dir string) microvm.StopReason {
	if boot, err := vmm.BootID(); err == nil && boot != p.BootID {
		return microvm.StopReason{Cause: microvm.StopHost, Detail: "the host was restarted"}
	}
	var reason microvm.StopReason
	if m != nil {
		reason = exitReason(m)
	}
	if reason.Signal == "" && reason.ExitCode == nil {
		reason.ExitCode = loggedExit(filepath.Join(dir, runName, logFile))
	}
	switch {
	case reason.Signal != "":
		reason.Cause = microvm.StopVMMDied
	case reason.ExitCode != nil && (*reason.ExitCode == 0 || *reason.ExitCode == 1):
		// 1 is a guest that faulted; what Firecracker itself dies of has other
		// codes.
		reason.Cause = microvm.StopGuest
	default:
		reason.Cause = microvm.StopVMMDied
	}
	if line := panicLine(filepath.Join(dir, consoleFile), p.ConsoleStart); line != "" && reason.Cause == microvm.StopGuest {
		reason.Detail = line
	}
	return reason
}

var exitCode = regexp.MustCompile(`exit_code=(\d{1,3})\b`)

// loggedExit is the exit code that the VMM has logged at its end: what is left
// to know of a process that was nobody's child here.
func loggedExit(log string) *int {
	b, err := console.Tail(log, 5, 4<<10)
	if err != nil {
		return nil
	}
	all := exitCode.FindAllSubmatch(b, -1)
	if len(all) == 0 {
		return nil
	}
	code, err := strconv.Atoi(string(all[len(all)-1][1]))
	if err != nil {
		return nil
	}
	return &code
}

// panicLine is the line of a kernel panic at the end of the console: exit codes
// do not tell a panic from a clean reboot.
func panicLine(path string, start int64) string {
	st, err := os.Stat(path)
	if err != nil || st.Size() <= start {
		return "" // what stands before start is of an earlier run
	}
	b, err := console.Tail(path, 60, min(16<<10, st.Size()-start))
	if err != nil {
		return ""
	}
	_, b, found := bytes.Cut(b, []byte("Kernel panic - "))
	if !found {
		return ""
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return strings.TrimSpace("Kernel panic - " + console.Sanitize(line, 200))
}

func signalName(s syscall.Signal) string {
	if n := unix.SignalName(s); n != "" {
		return n
	}
	return "signal " + strconv.Itoa(int(s))
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for _, key := range []string{"model name", "CPU implementer"} {
		if _, rest, ok := bytes.Cut(b, []byte("\n"+key)); ok {
			line, _, _ := bytes.Cut(rest, []byte("\n"))
			return strings.TrimLeft(string(line), "\t :")
		}
	}
	return ""
}
