package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/vmm"
)

// Field case 40: a record is not the proof that there is no VMM.
func TestDestroyEndsAVMMThatTheRecordHasLost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t *testing.T, dir string){
		"the pid": func(t *testing.T, dir string) {},
		"the pid and the socket": func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, runName, apiSocket)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testConfig(t)
			r := open(t, c)
			start(t, r, "a", microvm.Spec{})
			pid := mustGet(t, r, "a").PID
			must(t, r.Close())
			path := filepath.Join(c.StateDir, "vms", "a", record.FileName)
			rec := readRecord(t, c, "a")
			rec.Process = nil
			b, err := json.Marshal(rec)
			must(t, err)
			must(t, os.WriteFile(path, b, 0o600))
			lose(t, filepath.Dir(path))
			r = open(t, c)
			must(t, r.DestroyVM(bg, "a"))
			if _, err := vmm.Identify(pid); !errors.Is(err, vmm.ErrGone) {
				t.Errorf("VMM %d runs on unseen: %v", pid, err)
			}
			if left := leftovers(c.StateDir); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// A stopped process takes no SIGTERM, and is ended all the same.
func TestAVMMThatStandsStillIsDestroyed(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.TermGrace = 100 * time.Millisecond
	r := open(t, c)
	start(t, r, "a", microvm.Spec{})
	pid := mustGet(t, r, "a").PID
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	ctx, cancel := context.WithTimeout(bg, 3*time.Second)
	defer cancel()
	must(t, r.DestroyVM(ctx, "a"))
	if _, err := vmm.Identify(pid); !errors.Is(err, vmm.ErrGone) {
		t.Errorf("VMM %d: %v", pid, err)
	}
}

// A frozen process can't even be killed: the record stays, the error names it,
// and once it has thawed a second destroy works.
func TestARecordStaysUntilItsVMMIsProvenDead(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.TermGrace = 100 * time.Millisecond
	r := open(t, c)
	start(t, r, "a", microvm.Spec{})
	pid := mustGet(t, r, "a").PID
	thaw := freeze(t, pid)
	defer thaw()
	err := r.DestroyVM(bg, "a")
	if err == nil || !strings.Contains(err.Error(), strconv.Itoa(pid)) {
		t.Errorf("destroy of a frozen VMM %d: %v", pid, err)
	}
	v := mustGet(t, r, "a")
	if v.Status == microvm.StatusDestroyed || v.PID != pid || v.Trouble == "" {
		t.Errorf("it is %s, pid %d, %q", v.Status, v.PID, v.Trouble)
	}
	if err := r.StartVM(bg, "a"); !errors.Is(err, microvm.ErrInvalidTransition) {
		t.Errorf("start beside a process that lives: %v", err)
	}
	thaw()
	// The SIGKILL is delivered now.
	eventually(t, "it is dead", func() bool { _, err := vmm.Identify(pid); return errors.Is(err, vmm.ErrGone) })
	must(t, r.DestroyVM(bg, "a"))
	if left := leftovers(c.StateDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// freeze stops a process where no signal reaches it.
func freeze(t *testing.T, pid int) (thaw func()) {
	t.Helper()
	cg := filepath.Join("/sys/fs/cgroup/freezer", "microvm-test-"+strconv.Itoa(pid))
	if err := os.Mkdir(cg, 0o755); err != nil {
		t.Skipf("no freezer: %v", err)
	}
	write := func(file, what string) { must(t, os.WriteFile(filepath.Join(cg, file), []byte(what), 0)) }
	t.Cleanup(func() {
		eventually(t, "the cgroup is gone", func() bool { return os.Remove(cg) == nil })
	})
	write("cgroup.procs", strconv.Itoa(pid))
	write("freezer.state", "FROZEN")
	return func() { write("freezer.state", "THAWED") }
}
