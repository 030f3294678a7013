package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/vmm"
)

// script is a program that takes the VMM's place.
func script(t *testing.T, text string) string {
	t.Helper()
	return mute(t, `case "$1" in
--version) echo Firecracker v1.16.1-fcemu; exit;;
--snapshot-version) echo v10.0.0; exit;;
esac
`+text)
}

// mute is one that does not even say what it is.
func mute(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vmm")
	// A child that is forked meanwhile would hold it open, and keep it from being
	// executed.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700))
	return path
}

func TestACreateThatFailsSaysWhereAndWhyAndLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(t *testing.T, c *Config)
		is     error
		says   []string
		log    string
	}{
		"no VMM": {func(t *testing.T, c *Config) { c.Binary = "no-such-vmm" },
			microvm.ErrHost, []string{"no-such-vmm", "install firecracker", "MICROVM_FIRECRACKER_BIN=fcemu"}, ""},
		"a VMM that can't be executed": {func(t *testing.T, c *Config) { c.Binary = under.kernel },
			microvm.ErrHost, []string{under.kernel}, ""},
		"a VMM that dies at once": {func(t *testing.T, c *Config) { c.Binary = script(t, "echo out of luck >&2; exit 3") },
			microvm.ErrHost, []string{"wait for the API", "exit code 3"}, "out of luck"},
		"a VMM that is killed at once": {func(t *testing.T, c *Config) { c.Binary = script(t, "kill -9 $$") },
			vmm.ErrGone, []string{"wait for the API", "SIGKILL"}, ""},
		"a VMM that does not say what it is": {func(t *testing.T, c *Config) { c.Binary = mute(t, "echo no luck >&2; exit 3") },
			microvm.ErrHost, []string{"--version", "exit status 3", "no luck"}, ""},
		"a jailer in its place": {func(t *testing.T, c *Config) { c.Binary = mute(t, "echo Jailer v1.16.1") },
			microvm.ErrHost, []string{"Jailer", "name firecracker itself"}, ""},
		"a VMM that never listens": {func(t *testing.T, c *Config) {
			c.Binary, c.SocketReadyTimeout = script(t, "exec sleep 100"), 50*time.Millisecond
		}, context.DeadlineExceeded, []string{"wait for the API", "50ms"}, ""},
		"a kernel that is none": {func(t *testing.T, c *Config) { c.Kernel = under.rootfs },
			microvm.ErrInvalidSpec, []string{"kernel", under.rootfs}, ""},
		"a kernel that is missing": {func(t *testing.T, c *Config) { c.Kernel = "/no/such/kernel" },
			microvm.ErrInvalidSpec, []string{"kernel", "/no/such/kernel"}, ""},
		"no kernel": {func(t *testing.T, c *Config) { c.Kernel = "" },
			microvm.ErrInvalidSpec, []string{"kernel", "microvm kernel import"}, ""},
		"a root disk that is missing": {func(t *testing.T, c *Config) { c.Rootfs = "/no/such/disk" },
			microvm.ErrInvalidSpec, []string{"rootfs.path", "/no/such/disk"}, ""},
		"a root disk that is a directory": {func(t *testing.T, c *Config) { c.Rootfs = t.TempDir() },
			microvm.ErrInvalidSpec, []string{"rootfs.path", "directory"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := testConfig(t)
			c.change(t, &conf)
			r := open(t, conf)
			err := r.CreateVM(bg, "a")
			if !errors.Is(err, c.is) {
				t.Fatalf("%v", err)
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("the error does not say %q: %v", s, err)
				}
			}
			var e *microvm.Error
			if !errors.As(err, &e) || !strings.Contains(e.Log, c.log) {
				t.Errorf("the log is %q, it should have %q", e.Log, c.log)
			}
			if left := leftovers(conf.StateDir); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestAKernelThatIsAFIFODoesNotBlock(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "kernel")
	must(t, syscall.Mkfifo(fifo, 0o600))
	r := open(t, testConfig(t))
	ctx, cancel := context.WithTimeout(bg, 10*time.Second)
	defer cancel()
	for _, s := range []microvm.Spec{{Kernel: fifo}, {Rootfs: &microvm.Rootfs{Path: fifo}}, {Initrd: fifo}} {
		if err := r.CreateVMWithSpec(ctx, "a", s); !errors.Is(err, microvm.ErrInvalidSpec) || ctx.Err() != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

func TestNamesThatLeadElsewhereAreRefusedByEveryVerb(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(t))
	must(t, r.CreateVM(bg, "a"))
	before := leftovers(filepath.Dir(r.cfg.StateDir))
	for _, bad := range []string{"", ".", "..", "a/../b", "/x", "-rf", "a\n", "ä", "a..b", strings.Repeat("a", 65)} {
		for verb, err := range map[string]error{
			"create":   r.CreateVM(bg, bad),
			"start":    r.StartVM(bg, bad),
			"stop":     r.StopVM(bg, bad),
			"snapshot": r.SnapshotVM(bg, bad, "s"),
			"destroy":  r.DestroyVM(bg, bad),
			"rename":   r.RenameVM(bg, bad, "b"),
			"renamed":  r.RenameVM(bg, "a", bad),
			"named":    r.SnapshotVM(bg, "a", bad),
			"deleted":  r.DeleteSnapshot(bg, "a", bad),
		} {
			if !errors.Is(err, microvm.ErrInvalidSpec) {
				t.Errorf("%s %q: %v", verb, bad, err)
			}
		}
	}
	if after := leftovers(filepath.Dir(r.cfg.StateDir)); len(after) != len(before) {
		t.Errorf("before: %v\nafter: %v", before, after)
	}
}

// stranger is a process that has nothing to do with VMs.
func stranger(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// A pid that was given to another process since must not be signalled.
func TestAStrangerWithTheRecordedPIDLives(t *testing.T) {
	t.Parallel()
	other := stranger(t)
	theirs, err := vmm.Identify(other.Process.Pid)
	must(t, err)
	for name, forge := range map[string]func(p *record.Process){
		"another start time": func(p *record.Process) { p.PID = theirs.PID },
		"another boot":       func(p *record.Process) { p.PID, p.StartTime, p.BootID = theirs.PID, theirs.StartTime, "elsewhere" },
	} {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t)
			r := open(t, c)
			for _, id := range []string{"stop", "destroy", "recover"} {
				start(t, r, id, microvm.Spec{})
				must(t, syscall.Kill(mustGet(t, r, id).PID, syscall.SIGKILL))
				eventually(t, "it is stopped", func() bool { return mustGet(t, r, id).PID == 0 })
			}
			must(t, r.Close())
			for _, id := range []string{"stop", "destroy", "recover"} {
				path := filepath.Join(c.StateDir, "vms", id, record.FileName)
				b, err := os.ReadFile(path)
				must(t, err)
				var rec record.Record
				must(t, json.Unmarshal(b, &rec))
				rec.Status, rec.StopReason = microvm.StatusRunning, nil
				rec.Process = &record.Process{PID: 1 << 22, StartTime: 1, BootID: theirs.BootID, Booted: true}
				forge(rec.Process)
				b, err = json.Marshal(rec)
				must(t, err)
				must(t, os.WriteFile(path, b, 0o600))
			}
			r = open(t, c)
			if err := r.StopVM(bg, "stop"); !errors.Is(err, microvm.ErrInvalidTransition) {
				t.Errorf("stop: %v", err)
			}
			must(t, r.DestroyVM(bg, "destroy"))
			if v := mustGet(t, r, "recover"); v.Status != microvm.StatusStopped || v.StopReason == nil {
				t.Errorf("recovered as %+v", v)
			}
			if again, err := vmm.Identify(theirs.PID); err != nil || again != theirs {
				t.Errorf("the stranger: %v", err)
			}
		})
	}
}

// What somebody has removed does not keep a VM from being destroyed.
func TestAVMWhoseRunDirectoryIsGoneCanBeDestroyed(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	start(t, r, "a", microvm.Spec{})
	pid := mustGet(t, r, "a").PID
	must(t, r.Close())
	must(t, os.RemoveAll(filepath.Join(c.StateDir, "vms", "a", runName)))
	r = open(t, c)
	if v := mustGet(t, r, "a"); v.PID != pid {
		t.Errorf("%+v", v)
	}
	must(t, r.DestroyVM(bg, "a"))
	if _, err := vmm.Identify(pid); !errors.Is(err, vmm.ErrGone) {
		t.Errorf("its VMM: %v", err)
	}
}

// One bad record hides nobody, and the VMM behind it is neither killed nor lost.
func TestABadRecordIsReportedAndItsVMMLives(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	for _, id := range []string{"a", "b", "bad"} {
		start(t, r, id, microvm.Spec{})
	}
	pid := mustGet(t, r, "bad").PID
	path := filepath.Join(c.StateDir, "vms", "bad", record.FileName)
	good, err := os.ReadFile(path)
	must(t, err)
	must(t, r.Close())
	outside := filepath.Join(t.TempDir(), "outside.json")
	must(t, os.WriteFile(outside, good, 0o600))
	replace := func(b []byte) func() error {
		return func() error { return os.WriteFile(path, b, 0o600) }
	}
	for name, damage := range map[string]func() error{
		"empty":                   replace(nil),
		"half":                    replace(good[:len(good)/2]),
		"a newer format":          replace(bytes.Replace(good, []byte(`"format":1`), []byte(`"format":99`), 1)),
		"another id inside":       replace(bytes.Replace(good, []byte(`"id":"bad"`), []byte(`"id":"a"`), 1)),
		"a link out of the state": func() error { return os.Symlink(outside, path) },
		"missing":                 func() error { return nil },
	} {
		must(t, os.Remove(path))
		must(t, damage())
		r, err := Open(bg, c)
		must(t, err)
		report, err := r.Recover(bg, RecoverOptions{})
		must(t, err)
		if len(report.SetAside) != 1 || report.SetAside[0].Path != path {
			t.Errorf("%s: set aside: %v", name, report.SetAside)
		}
		if len(report.Adopted) != 2 {
			t.Errorf("%s: adopted: %v", name, report.Adopted)
		}
		views, err := r.ListVMs(bg)
		must(t, err)
		if len(views) != 2 {
			t.Errorf("%s: listed: %v", name, views)
		}
		if err := r.CreateVM(bg, "bad"); !errors.Is(err, microvm.ErrVMExists) {
			t.Errorf("%s: its name: %v", name, err)
		}
		err = r.DestroyVM(bg, "bad")
		if name == "missing" {
			// Nobody can say whether it was a VM; only recovery reports it.
			if !errors.Is(err, microvm.ErrVMNotFound) {
				t.Errorf("%s: destroy: %v", name, err)
			}
		} else if !errors.Is(err, microvm.ErrHost) || !strings.Contains(err.Error(), filepath.Dir(path)) {
			t.Errorf("%s: destroy: %v", name, err)
		}
		if _, err := vmm.Identify(pid); err != nil {
			t.Errorf("%s: its VMM: %v", name, err)
		}
		must(t, r.Close())
		if name == "missing" {
			must(t, os.WriteFile(path, nil, 0o600))
		}
	}
	must(t, os.Remove(path))
	must(t, os.WriteFile(path, good, 0o600))
	r = open(t, c)
	if v := mustGet(t, r, "bad"); v.PID != pid || v.Status != microvm.StatusRunning {
		t.Errorf("mended: %+v", v)
	}
}

func TestDryRunReportsAndChangesNothing(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	out, err := child{Config: c, Steps: []step{{Verb: "create", ID: "a"}}, KillAt: string(fpCreateSpawned)}.command(t).CombinedOutput()
	if err == nil {
		t.Fatalf("it was not killed: %s", out)
	}
	c.NoRecovery = true
	r := open(t, c)
	report, err := r.Recover(bg, RecoverOptions{DryRun: true})
	must(t, err)
	if len(report.RolledBack) != 1 || len(leftovers(c.StateDir)) == 0 {
		t.Errorf("dry run: %+v", report)
	}
	report, err = r.Recover(bg, RecoverOptions{})
	must(t, err)
	if len(report.RolledBack) != 1 {
		t.Errorf("run: %+v", report)
	}
	if left := leftovers(c.StateDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// needsOpenKVM skips where a real VMM could not be used by an ordinary user.
func needsOpenKVM(t *testing.T) {
	t.Helper()
	if !under.real {
		return
	}
	st, err := os.Stat("/dev/kvm")
	must(t, err)
	if st.Mode().Perm()&0o060 != 0o060 {
		t.Skipf("/dev/kvm is %v here: no group may use it", st.Mode())
	}
}

// ordinaryUser prepares copies of the VMM and the guest that user 65534 may read,
// and a state directory of its own; do runs steps in a program of that user.
func ordinaryUser(t *testing.T) (c Config, do func(steps ...step) error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to become somebody else; all other tests ran as an ordinary user")
	}
	needsOpenKVM(t)
	// Nobody else can pass through the test's own directories.
	dir, err := os.MkdirTemp("", "microvm-user-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	const uid = 65534
	must(t, os.Chmod(dir, 0o755))
	c = testConfig(t)
	c.StateDir = filepath.Join(dir, "state")
	for from, to := range map[string]*string{under.binary: &c.Binary, under.kernel: &c.Kernel, under.rootfs: &c.Rootfs, "/proc/self/exe": nil} {
		b, err := os.ReadFile(from)
		must(t, err)
		copied := filepath.Join(dir, filepath.Base(from))
		must(t, os.WriteFile(copied, b, 0o755))
		if to != nil {
			*to = copied
		}
	}
	must(t, os.Mkdir(c.StateDir, 0o700))
	must(t, os.Chown(c.StateDir, uid, uid))
	cred := &syscall.Credential{Uid: uid, Gid: uid}
	if under.real {
		var st syscall.Stat_t
		must(t, syscall.Stat("/dev/kvm", &st))
		cred.Groups = []uint32{st.Gid}
	}
	return c, func(steps ...step) error {
		cmd := child{Config: c, Steps: steps}.command(t)
		cmd.Path = filepath.Join(dir, "exe")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
		cmd.Dir = "/"
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
}

// giveCapability gives the VMM what an ordinary user needs for TAPs.
func giveCapability(t *testing.T, c Config) {
	t.Helper()
	if out, err := exec.Command("setcap", "cap_net_admin+ep", c.Binary).CombinedOutput(); err != nil {
		t.Skipf("setcap: %v %s", err, out)
	}
}

// asOrdinaryUser runs the steps, which must leave nothing.
func asOrdinaryUser(t *testing.T, c Config, do func(...step) error, steps ...step) {
	t.Helper()
	if err := do(steps...); err != nil {
		t.Error(err)
		open(t, c) // destroys what is left
		return
	}
	if left := leftovers(c.StateDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Everything without network works for an ordinary user.
func TestAnOrdinaryUserCanDoEverything(t *testing.T) {
	t.Parallel()
	from := microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s", ResumeImmediately: true}}
	c, do := ordinaryUser(t)
	asOrdinaryUser(t, c, do,
		step{Verb: "create", ID: "a", Spec: microvm.Spec{StopMode: microvm.StopModeHibernate, Vsock: &microvm.Vsock{}, Console: &microvm.Console{Input: true}}},
		step{Verb: "start", ID: "a"}, step{Verb: "snapshot", ID: "a", Other: "s"}, step{Verb: "create", ID: "b", Spec: from},
		step{Verb: "stop", ID: "a"}, step{Verb: "start", ID: "a"}, step{Verb: "rename", ID: "a", Other: "c"},
		step{Verb: "destroy", ID: "b"}, step{Verb: "destroy", ID: "c"})
}
