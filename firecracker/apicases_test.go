package firecracker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
)

// Field case 5: Ctrl-Alt-Del is answered with success, and nothing happens.
func TestAShutdownIsBoundAndSaysWhichStepWorked(t *testing.T) {
	if under.real {
		t.Skip("needs guests that can be told what to do")
	}
	t.Parallel()
	const short, long = 600 * time.Millisecond, time.Minute
	for name, c := range map[string]struct {
		args, fault string
		grace       time.Duration
		kill        bool // the VMM, once it was asked
		says        string
	}{
		"a guest that obeys":             {"", "", long, false, "the guest shut down"},
		"a guest that ignores it":        {"fcemu.ignore_cad", "", short, false, "the guest did not shut down within 600ms"},
		"a VMM that passes nothing on":   {"", "swallow:PUT /actions:2", short, false, "the guest did not shut down within 600ms"},
		"a VMM that refuses":             {"", "status=400:PUT /actions:2", long, false, "the VMM did not take Ctrl-Alt-Del"},
		"a guest that halts":             {"fcemu.ignore_cad fcemu.poweroff_after=1ms", "", short, false, "the guest did not shut down within 600ms"},
		"a guest that ends in the grace": {"fcemu.ignore_cad", "", long, true, "the guest shut down"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf, logs := faultConfig(t, 0, c.fault)
			conf.ShutdownGrace = c.grace
			conf.BootArgs = DefaultBootArgs + " " + c.args
			r := open(t, conf)
			start(t, r, "a", microvm.Spec{StopMode: microvm.StopModeShutdown})
			pid := mustGet(t, r, "a").PID
			began := time.Now()
			done := make(chan error, 1)
			go func() { done <- r.StopVM(bg, "a") }()
			if c.kill {
				eventually(t, "the guest is asked", func() bool { return strings.Count(strings.Join(asked(t, logs)[0], " "), "PUT /actions") == 2 })
				must(t, syscall.Kill(pid, syscall.SIGKILL))
			}
			must(t, <-done)
			took := time.Since(began)
			v := mustGet(t, r, "a")
			if v.StopReason == nil || v.StopReason.Cause != microvm.StopShutdown || !strings.Contains(v.StopReason.Detail, c.says) {
				t.Errorf("stopped because of %+v", v.StopReason)
			}
			if c.grace == short && took < short || took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			if left := living(t, logs); len(left) > 0 || v.PID != 0 {
				t.Errorf("VMMs that live: %v", left)
			}
			must(t, r.StartVM(bg, "a"))
		})
	}
}

// Field case 23: what takes longer than an API call may is no failure. And when
// the caller has no patience, the VMM finishes all the same: nothing of that is
// seen afterwards, and the next call works.
func TestASlowSnapshotIsNoFailure(t *testing.T) {
	if under.real {
		t.Skip("a real VMM has no faults on demand")
	}
	t.Parallel()
	from := microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s", ResumeImmediately: true}}
	for name, c := range map[string]struct {
		vmm   int
		fault string
		setup []step
		verb  step
	}{
		"snapshot":  {0, "delay=1500ms:PUT /snapshot/create:1", nil, step{Verb: "snapshot", ID: "a", Other: "s"}},
		"hibernate": {0, "delay=1500ms:PUT /snapshot/create:1", nil, step{Verb: "stop", ID: "a"}},
		"wake":      {1, "delay=1500ms:PUT /snapshot/load:1", []step{{Verb: "stop", ID: "a"}}, step{Verb: "start", ID: "a"}},
		"restore":   {1, "delay=1500ms:PUT /snapshot/load:1", []step{{Verb: "snapshot", ID: "a", Other: "s"}}, step{Verb: "create", ID: "b", Spec: from}},
	} {
		for _, patient := range []bool{true, false} {
			t.Run(name+map[bool]string{true: " with patience", false: " without"}[patient], func(t *testing.T) {
				t.Parallel()
				conf, logs := faultConfig(t, c.vmm, c.fault)
				r := open(t, conf)
				start(t, r, "a", microvm.Spec{StopMode: microvm.StopModeHibernate})
				for _, s := range c.setup {
					must(t, s.run(bg, r))
				}
				must(t, r.Close())
				conf.APITimeout = 1200 * time.Millisecond
				r = open(t, conf)
				before := situation(t, r)
				if patient {
					must(t, c.verb.run(bg, r))
					return
				}
				// Until the slow request is under way, time is not what this is about.
				ctx, cancel := context.WithCancelCause(bg)
				defer cancel(nil)
				done := make(chan error, 1)
				go func() { done <- c.verb.run(ctx, r) }()
				eventually(t, "the VMM is at it", func() bool {
					b, err := os.ReadFile(filepath.Join(logs, string(rune('0'+c.vmm))))
					return err == nil && strings.Contains(string(b), "was ordered")
				})
				cancel(errors.New("no patience"))
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("the verb returned %v", err)
				}
				if got := situation(t, r); got != before {
					t.Errorf("before: %s\nis:     %s", before, got)
				}
				if v := mustGet(t, r, "a"); v.Status == microvm.StatusRunning {
					n := len(counts(t, r, "a"))
					eventually(t, "the guest goes on", func() bool { return len(counts(t, r, "a")) > n })
				}
				must(t, c.verb.run(bg, r))
			})
		}
	}
}

// Field case 49: a load that fails ends the VMM, at times before it has answered.
func TestAHibernatedVMOutlivesALoadThatFails(t *testing.T) {
	if under.real {
		t.Skip("a real VMM has no faults on demand")
	}
	t.Parallel()
	for damage, spoil := range map[string]func(t *testing.T, dir string) (restore func()){
		"a flipped byte in the state": func(t *testing.T, dir string) func() {
			return rewrite(t, filepath.Join(dir, hibernateName, stateFile), func(b []byte) []byte {
				b[len(b)/2] ^= 1
				return b
			})
		},
		"a cut memory": func(t *testing.T, dir string) func() {
			return rewrite(t, filepath.Join(dir, hibernateName, memoryFile), func(b []byte) []byte { return b[:len(b)/2] })
		},
		"a disk that is away": func(t *testing.T, dir string) func() {
			path := filepath.Join(dir, runName, "rootfs.ext4")
			must(t, os.Rename(path, path+".away"))
			return func() { must(t, os.Rename(path+".away", path)) }
		},
	} {
		for fault, says := range map[string][]string{
			"":           {"PUT /snapshot/load: 400: Load snapshot error"},
			"die=before": {"PUT /snapshot/load", "died: SIGABRT", "the VMM's log"},
			"die=mid":    {"PUT /snapshot/load", "died: SIGABRT", "the VMM's log"},
			"die=after":  {"PUT /snapshot/load: 400: Load snapshot error"},
		} {
			t.Run(damage+" "+fault, func(t *testing.T) {
				t.Parallel()
				order := ""
				if fault != "" {
					order = fault + ":PUT /snapshot/load"
				}
				conf, logs := faultConfig(t, 1, order)
				r := open(t, conf)
				start(t, r, "a", microvm.Spec{StopMode: microvm.StopModeHibernate, Vsock: &microvm.Vsock{CID: 3}})
				must(t, r.StopVM(bg, "a"))
				restore := spoil(t, r.store.Dir("a"))
				err := r.StartVM(bg, "a")
				var e *microvm.Error
				if !errors.As(err, &e) || e.Stage != "PUT /snapshot/load" {
					t.Fatalf("the start returned %v", err)
				}
				for _, s := range says {
					if !strings.Contains(err.Error(), s) {
						t.Errorf("the error does not say %q: %v", s, err)
					}
				}
				if len(says) > 1 && !strings.Contains(e.Log, "ordered by the fault") {
					t.Errorf("the log: %s", e.Log)
				}
				v := mustGet(t, r, "a")
				if v.Status != microvm.StatusStopped || v.StopReason == nil || v.StopReason.Cause != microvm.StopHibernated || v.PID != 0 {
					t.Errorf("%+v", v)
				}
				if left := living(t, logs); len(left) > 0 {
					t.Errorf("VMMs that live: %v", left)
				}
				for _, name := range []string{apiSocket, vsockSocket} {
					if isThere(filepath.Join(r.store.Dir("a"), runName, name)) {
						t.Errorf("%s is left", name)
					}
				}
				restore()
				must(t, r.StartVM(bg, "a"))
			})
		}
	}
}

// rewrite changes a file's contents, and can give it back the old ones.
func rewrite(t *testing.T, path string, change func([]byte) []byte) (restore func()) {
	t.Helper()
	good, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, change(append([]byte(nil), good...)), 0o600))
	return func() { must(t, os.WriteFile(path, good, 0o600)) }
}

// The process of the very file that was asked for its version is asked and told
// in one write: the tests' witness is a wrapper, and is not.
func TestWhateverBefallsAVMMThatIsAskedAndToldAtOnce(t *testing.T) {
	if under.real {
		t.Skip("a real VMM has no faults on demand")
	}
	t.Parallel()
	for fault, says := range map[string]string{
		"status=400:GET /":              "GET /: 400",
		"status=500:PUT /drives/rootfs": "PUT /drives/rootfs: 500",
		"hang:GET /":                    "no answer within 400ms",
		"hang:PUT /machine-config":      "PUT /machine-config",
		"die=before:PUT /boot-source":   "PUT /boot-source",
		"die=after:PUT /drives/rootfs":  "died: SIGABRT",
		"half-reply:GET /":              "GET /",
		"drop:PUT /serial":              "PUT /serial",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			c := testConfig(t)
			c.Env = append(c.Env, "FCEMU_FAULT="+fault)
			c.APITimeout = shortTimeout
			r := open(t, c)
			err := r.CreateVM(bg, "a")
			if err == nil && strings.HasPrefix(fault, "die=after") {
				err = r.StartVM(bg, "a") // the answer was sent, and there
			}
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%v, which does not say %q", err, says)
			}
			if _, err := r.GetVM(bg, "a"); err == nil {
				must(t, r.DestroyVM(bg, "a"))
			} else if !errors.Is(err, microvm.ErrVMNotFound) {
				t.Error(err)
			}
			if left := filesLeft(c.StateDir); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}
