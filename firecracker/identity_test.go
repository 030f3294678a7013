package firecracker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/vmm"
)

// changeRecord rewrites a VM's record behind everybody's back.
func changeRecord(t testing.TB, c Config, id string, change func(*record.Record)) {
	t.Helper()
	rec := readRecord(t, c, id)
	change(&rec)
	b, err := json.Marshal(rec)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(c.StateDir, "vms", id, record.FileName), b, 0o600))
}

// Field case 37: a process that is not in every respect the recorded one is
// neither adopted nor signalled.
func TestNoStrangerIsTakenForAVMM(t *testing.T) {
	t.Parallel()
	const lost = "the record does not know it"
	for name, tc := range map[string]struct {
		change func(own, other *record.Process)
		aside  string
		spared bool // not even a destroy ends it
	}{
		"the pid of another VMM":          {func(own, other *record.Process) { own.PID = other.PID }, lost, false},
		"all that is known of another":    {func(own, other *record.Process) { *own = *other }, lost, false},
		"the pid of a process that ended": {func(own, _ *record.Process) { own.PID = 1 << 22 }, lost, false},
		"our own pid":                     {func(own, _ *record.Process) { own.PID = os.Getpid() }, lost, false},
		"another start time":              {func(own, _ *record.Process) { own.StartTime++ }, lost, false},
		"another boot of the host":        {func(own, _ *record.Process) { own.BootID = strings.Repeat("0", 36) }, lost, false},
		"another program":                 {func(own, _ *record.Process) { own.Program.Inode++ }, "runs another program", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testConfig(t)
			r := open(t, c)
			start(t, r, "own", microvm.Spec{})
			start(t, r, "other", microvm.Spec{})
			pid, stranger := mustGet(t, r, "own").PID, mustGet(t, r, "other").PID
			must(t, r.Close())
			other := readRecord(t, c, "other")
			changeRecord(t, c, "own", func(rec *record.Record) { tc.change(rec.Process, other.Process) })

			c.NoRecovery = true
			r = open(t, c)
			rep, err := r.Recover(bg, RecoverOptions{})
			must(t, err)
			if len(rep.SetAside) != 1 || len(rep.Adopted) != 1 || rep.Adopted[0] != "other" || len(rep.Finished) != 0 {
				t.Errorf("%+v", rep)
			} else if told := rep.SetAside[0].Err; !strings.Contains(told, tc.aside) || !strings.Contains(told, strconv.Itoa(pid)) {
				t.Errorf("set aside: %s", told)
			}
			// Nobody starts another one beside it.
			verbs := map[string]error{"stop": r.StopVM(bg, "own"), "start": r.StartVM(bg, "own")}
			if tc.spared {
				verbs["destroy"] = r.DestroyVM(bg, "own")
			}
			for verb, err := range verbs {
				if !errors.Is(err, microvm.ErrHost) || !strings.Contains(fmt.Sprint(err), strconv.Itoa(pid)) {
					t.Errorf("%s: %v", verb, err)
				}
			}
			if _, err := vmm.Identify(pid); err != nil {
				t.Errorf("VMM %d: %v", pid, err)
			}
			if tc.spared {
				must(t, r.Close())
				changeRecord(t, c, "own", func(rec *record.Record) { rec.Process.Program.Inode-- })
				r = open(t, c)
			}
			must(t, r.DestroyVM(bg, "own"))
			if _, err := vmm.Identify(pid); !errors.Is(err, vmm.ErrGone) {
				t.Errorf("VMM %d after the destroy: %v", pid, err)
			}
			if v := mustGet(t, r, "other"); v.Status != microvm.StatusRunning || v.PID != stranger {
				t.Errorf("the stranger is %s, pid %d", v.Status, v.PID)
			}
			must(t, r.DestroyVM(bg, "other"))
		})
	}
}

// What is meant for a VM must not be told to whoever listens at its socket.
func TestAnotherListenerAtTheAPISocketIsNotTalkedTo(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	start(t, r, "a", microvm.Spec{})
	pid := mustGet(t, r, "a").PID
	must(t, r.Close())
	run := filepath.Join(c.StateDir, "vms", "a", runName)
	must(t, os.Rename(filepath.Join(run, apiSocket), filepath.Join(run, "aside")))
	d, err := os.Open(run) // the path may be too long for an address
	must(t, err)
	defer d.Close()
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), apiSocket))
	must(t, err)
	defer l.Close()

	c.NoRecovery = true
	r = open(t, c)
	rep, err := r.Recover(bg, RecoverOptions{})
	must(t, err)
	if len(rep.SetAside) != 1 || !strings.Contains(rep.SetAside[0].Err, fmt.Sprintf("process %d listens", os.Getpid())) {
		t.Errorf("%+v", rep)
	}
	for verb, err := range map[string]error{"stop": r.StopVM(bg, "a"), "snapshot": r.SnapshotVM(bg, "a", "s"), "destroy": r.DestroyVM(bg, "a")} {
		if !errors.Is(err, microvm.ErrHost) || !strings.Contains(fmt.Sprint(err), apiSocket) {
			t.Errorf("%s: %v", verb, err)
		}
	}
	if _, err := vmm.Identify(pid); err != nil {
		t.Errorf("VMM %d: %v", pid, err)
	}
	must(t, os.Rename(filepath.Join(run, "aside"), filepath.Join(run, apiSocket)))
	must(t, r.StopVM(bg, "a"))
	must(t, r.DestroyVM(bg, "a"))
}

// The files of an upgrade are put in place of those that run.
func TestAVMMWhoseBinaryWasReplacedIsAdopted(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	own := filepath.Join(t.TempDir(), "vmm")
	b, err := os.ReadFile(c.Binary)
	must(t, err)
	must(t, os.WriteFile(own, b, 0o755))
	c.Binary = own
	r := open(t, c)
	start(t, r, "a", microvm.Spec{})
	pid := mustGet(t, r, "a").PID
	must(t, r.Close())
	must(t, os.WriteFile(own+".new", b, 0o755))
	must(t, os.Rename(own+".new", own))
	r = open(t, c)
	if v := mustGet(t, r, "a"); v.Status != microvm.StatusRunning || v.PID != pid {
		t.Errorf("%s, pid %d", v.Status, v.PID)
	}
	must(t, r.StopVM(bg, "a"))
	must(t, r.StartVM(bg, "a"))
	must(t, r.DestroyVM(bg, "a"))
}
