package firecracker

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm"
)

// What was checked is what is restored: not the files of another snapshot that
// has come under the name since, nor some of each.
func TestNothingIsRestoredFromTwoSnapshotsOfOneName(t *testing.T) {
	t.Parallel()
	for name, warm := range map[string]bool{"warm": true, "cold": false} {
		for what, again := range map[string]bool{"deleted": false, "deleted and made anew": true} {
			t.Run(name+" "+what, func(t *testing.T) {
				t.Parallel()
				c := testConfig(t)
				var h holds
				c.failpoint, c.VerifyRestore = h.failpoint, true
				r := open(t, c)
				if warm {
					start(t, r, "a", microvm.Spec{})
				} else {
					must(t, r.CreateVM(bg, "a"))
				}
				must(t, r.SnapshotVM(bg, "a", "s"))
				entered, leave := h.hold(string(fpCreateReserved))
				done := make(chan error, 1)
				go func() {
					done <- r.CreateVMWithSpec(bg, "b", microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s"}})
				}()
				<-entered
				must(t, r.DeleteSnapshot(bg, "a", "s"))
				if again {
					must(t, r.SnapshotVM(bg, "a", "s"))
				}
				leave()
				if err := <-done; !errors.Is(err, microvm.ErrSnapshotNotFound) {
					t.Errorf("%v", err)
				}
				if _, err := r.GetVM(bg, "b"); !errors.Is(err, microvm.ErrVMNotFound) {
					t.Errorf("the VM: %v", err)
				}
			})
		}
	}
}

// A fork that can't succeed must not make the guest stand still.
func TestAForkOntoAUsedNameTakesNoSnapshot(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	passed := ""
	c.failpoint = func(_ context.Context, name string) error {
		passed += name + " "
		return nil
	}
	r := open(t, c)
	start(t, r, "a", microvm.Spec{})
	must(t, r.CreateVM(bg, "b"))
	killedAt(t, testConfigIn(c), string(fpCreateReserved), step{Verb: "create", ID: "dead"})
	passed = ""
	for id, want := range map[string]error{"b": microvm.ErrVMExists, "a": microvm.ErrVMExists, "../a": microvm.ErrInvalidSpec} {
		var e *microvm.Error
		if err := r.ForkVM(bg, "a", id); !errors.Is(err, want) || !errors.As(err, &e) || e.Verb != "fork" || e.VMID != "a" {
			t.Errorf("to %q: %v", id, err)
		}
	}
	if passed != "" {
		t.Errorf("it came as far as %s", passed)
	}
	must(t, r.ForkVM(bg, "a", "dead")) // the name of a creation whose program has died
	if v := mustGet(t, r, "dead"); v.Status != microvm.StatusRunning {
		t.Errorf("the fork is %s", v.Status)
	}
	if v := mustGet(t, r, "a"); len(v.Snapshots) > 0 {
		t.Errorf("left: %v", v.Snapshots)
	}
}

// testConfigIn is the configuration of another program on the same state.
func testConfigIn(c Config) Config {
	c.failpoint, c.NoRecovery = nil, true
	return c
}

// A memory file that nobody needs any more may be gigabytes that the deletion of
// its snapshot was to free.
func TestAnEndedVMMLeavesNoMemoryFileBehind(t *testing.T) {
	t.Parallel()
	tracked := true
	for name, end := range map[string]func(t *testing.T, r *Runtime){
		"hibernate": func(t *testing.T, r *Runtime) { must(t, r.StopVMMode(bg, "b", microvm.StopModeHibernate)) },
		"shutdown":  func(t *testing.T, r *Runtime) { must(t, r.StopVMMode(bg, "b", microvm.StopModeShutdown)) },
		"a death": func(t *testing.T, r *Runtime) {
			must(t, syscall.Kill(mustGet(t, r, "b").PID, syscall.SIGKILL))
			eventually(t, "the death is recorded", func() bool {
				rec, err := r.store.Load("b")
				return err == nil && rec.Process == nil
			})
		},
		"a cut hibernate": func(t *testing.T, r *Runtime) {
			killedAt(t, testConfigIn(r.cfg), string(fpStopHibernated), step{Verb: "stop", ID: "b"})
			_, err := r.Recover(bg, RecoverOptions{})
			must(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := open(t, testConfig(t))
			start(t, r, "a", microvm.Spec{TrackDirtyPages: &tracked, StopMode: microvm.StopModeHibernate})
			must(t, r.SnapshotVM(bg, "a", "s"))
			clone(t, r, "b", "a", "s")
			must(t, r.SnapshotVM(bg, "b", "t"))
			if rec := readRecord(t, r.cfg, "b"); rec.Base == nil || !strings.HasSuffix(rec.Base.File, baseFile) {
				t.Fatalf("the base is %+v", rec.Base)
			}
			end(t, r)
			for _, file := range []string{memoryFile, baseFile} {
				if isThere(filepath.Join(r.store.Dir("b"), runName, file)) {
					t.Errorf("%s is still there", file)
				}
			}
			must(t, r.StartVM(bg, "b"))
			must(t, r.SnapshotVM(bg, "b", "later"))
		})
	}
}
