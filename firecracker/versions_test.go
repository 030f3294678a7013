package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/microvmtest"
)

// emulating is a configuration whose VMM answers as another release does.
func emulating(t *testing.T, version string) Config {
	t.Helper()
	if under.real {
		t.Skip("needs an emulator that answers as other releases do, and MICROVM_TEST_FIRECRACKER is set")
	}
	return upgraded(testConfig(t), version)
}

// upgraded is the same with another VMM in the place of the first.
func upgraded(c Config, version string) Config {
	c.Env = []string{"FCEMU_ENGINE=null", "FCEMU_EMULATE_VERSION=" + version}
	return c
}

var received = regexp.MustCompile(`The API server received a (\w+) request on ("(?:[^"\\]|\\.)*")(?: with body ("(?:[^"\\]|\\.)*"))?\.`)

// requests are what a VM's VMM has been asked, from its log.
func requests(t *testing.T, r *Runtime, id string) []fcapi.Request {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(r.store.Dir(id), runName, logFile))
	must(t, err)
	unquote := func(b []byte) string {
		s, err := strconv.Unquote(string(b))
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		return s
	}
	var all []fcapi.Request
	for _, m := range received.FindAllSubmatch(b, -1) {
		q := fcapi.Request{Method: strings.ToUpper(string(m[1])), Path: unquote(m[2])}
		if len(m[3]) > 0 {
			q.Body = json.RawMessage(unquote(m[3]))
		}
		all = append(all, q)
	}
	return all
}

// body is the last body that was sent to an endpoint; empty: none was.
func body(all []fcapi.Request, method, path string) string {
	for _, q := range slices.Backward(all) {
		if q.Method == method && q.Path == path {
			return string(q.Body.(json.RawMessage))
		}
	}
	return ""
}

// Row 1 of the field cases: a field that the release does not know makes it
// refuse the whole request.
func TestEachReleaseIsToldOnlyWhatItKnows(t *testing.T) {
	t.Parallel()
	const load = `"snapshot_path":"vmstate","mem_backend":{"backend_type":"File","backend_path":"memory"}`
	for version, c := range map[string]struct{ tracked, serial string }{
		"1.7.0":  {`,"enable_diff_snapshots":true`, ""},
		"1.10.1": {`,"enable_diff_snapshots":true`, ""},
		"1.12.0": {`,"enable_diff_snapshots":true`, ""},
		"1.15.1": {`,"track_dirty_pages":true`, ""},
		"1.16.1": {`,"track_dirty_pages":true`, `{"rate_limiter":{"size":1048576,"refill_time":1000}}`},
		"1.17.0": {`,"track_dirty_pages":true`, `{"rate_limiter":{"size":1048576,"refill_time":1000}}`},
	} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			v, err := fcapi.ParseVersion(version)
			must(t, err)
			r := open(t, emulating(t, version))
			check := func(id string) []fcapi.Request {
				t.Helper()
				all := requests(t, r, id)
				if len(all) < 4 {
					t.Fatalf("%s was asked %v", id, all)
				}
				for _, q := range all {
					if err := fcapi.Supports(v, q); err != nil {
						t.Errorf("%s was told what it does not know: %v", id, err)
					}
				}
				return all
			}
			spec := microvm.Spec{Vsock: &microvm.Vsock{}, TrackDirtyPages: yes(), Balloon: &microvm.Balloon{TargetMiB: 1}, Entropy: &microvm.Entropy{}}
			start(t, r, "a", spec)
			if got := mustGet(t, r, "a").VMMVersion; got != version+"-fcemu" {
				t.Fatalf("it is %s", got)
			}
			must(t, r.SnapshotVM(bg, "a", "s"))
			must(t, r.StopVM(bg, "a"))
			must(t, r.StartVM(bg, "a"))
			if got := body(check("a"), "PUT", "/serial"); got != c.serial {
				t.Errorf("serial: %s", got)
			}
			// An override that changes nothing is not sent: 1.15 has none.
			from := &microvm.RestoreFrom{VMID: "a", SnapshotID: "s", ResumeImmediately: true}
			must(t, r.CreateVMWithSpec(bg, "b", microvm.Spec{RestoreFrom: from}))
			if got := body(check("b"), "PUT", "/snapshot/load"); got != "{"+load+c.tracked+"}" {
				t.Errorf("load: %s", got)
			}
			must(t, r.StopVMMode(bg, "a", microvm.StopModeHibernate))
			must(t, r.StartVM(bg, "a"))
			if got := body(check("a"), "PUT", "/snapshot/load"); got != "{"+load+c.tracked+"}" {
				t.Errorf("load of the hibernated: %s", got)
			}
			must(t, r.StopVMMode(bg, "a", microvm.StopModeShutdown))
			must(t, r.StartVM(bg, "a"))
			check("a")
			info, err := r.GetSnapshot(bg, "a", "s")
			must(t, err)
			if format, _ := fcapi.SnapshotFormat(v); info.Format != format.String() || info.VMMVersion != version+"-fcemu" {
				t.Errorf("the snapshot: %+v", info)
			}
			for _, id := range []string{"a", "b"} {
				must(t, r.DestroyVM(bg, id))
			}
			if left := leftovers(r.cfg.StateDir); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestTheProviderKeepsTheLawWithOldAndNewReleases(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"1.7.0", "1.12.0", "1.17.0"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			microvmtest.TestRuntime(t, func(t *testing.T) microvm.Runtime { return open(t, emulating(t, version)) }, microvmtest.Options{
				Slow:      true,
				Leftovers: func(rt microvm.Runtime) []string { return leftovers(rt.(*Runtime).cfg.StateDir) },
			})
		})
	}
}

// listed is everything in a directory; consoles and logs of living VMs grow.
func listed(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ext := filepath.Ext(path); ext == ".log" {
			all = append(all, path)
			return nil
		}
		info, err := d.Info()
		all = append(all, fmt.Sprintf("%s %v %d", path, info.Mode(), info.Size()))
		return err
	}))
	return all
}

// recorder is a VMM that notes how it is started.
func recorder(t *testing.T) (binary string, starts func() (asked, spawned int)) {
	t.Helper()
	notes := filepath.Join(t.TempDir(), "starts")
	binary = mute(t, `echo "$1" >>`+notes+`; exec `+under.binary+` "$@"`)
	return binary, func() (asked, spawned int) {
		b, err := os.ReadFile(notes)
		if err != nil && !isMissing(err) {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if strings.HasSuffix(strings.TrimSpace(line), "version") {
				asked++
			} else {
				spawned++
			}
		}
		return asked, spawned
	}
}

func TestWhatTheReleaseDoesNotKnowIsRefusedBeforeAnythingIsStarted(t *testing.T) {
	t.Parallel()
	c := emulating(t, "1.13.2")
	before := open(t, c)
	start(t, before, "a", microvm.Spec{Vsock: &microvm.Vsock{}})
	must(t, before.SnapshotVM(bg, "a", "s"))
	must(t, before.SnapshotVM(bg, "a", "t"))
	var starts func() (int, int)
	c.Binary, starts = recorder(t)
	r, err := Open(bg, c)
	must(t, err)
	defer r.Close()
	files := listed(t, c.StateDir)
	for name, q := range map[string]struct {
		spec microvm.Spec
		says string
	}{
		"balloon hinting":   {microvm.Spec{Balloon: &microvm.Balloon{FreePageHinting: true}}, "it needs 1.14.0 or newer"},
		"balloon reporting": {microvm.Spec{Balloon: &microvm.Balloon{FreePageReporting: true}}, "it needs 1.14.0 or newer"},
		"serial limit":      {microvm.Spec{Serial: &microvm.Serial{RateLimit: microvm.PerSecond(1000)}}, "it needs 1.16.0 or newer"},
		"vsock path of a restore": {microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s", VsockPath: filepath.Join(t.TempDir(), "v.sock")}},
			`field "vsock_override": not supported by Firecracker 1.13.2: it needs 1.16.0 or newer`},
	} {
		err := r.CreateVMWithSpec(bg, "b", q.spec)
		var known *fcapi.UnsupportedError
		var e *microvm.Error
		switch {
		case !errors.Is(err, microvm.ErrUnsupported) || !errors.As(err, &known) || !errors.As(err, &e):
			t.Errorf("%s: %v", name, err)
		case known.Have != (fcapi.Version{Major: 1, Minor: 13, Patch: 2}) || !strings.Contains(err.Error(), "1.13.2") || !strings.Contains(err.Error(), q.says):
			t.Errorf("%s: %v", name, err)
		case e.Retry || e.Remedy == "":
			t.Errorf("%s: retry %v, remedy %q", name, e.Retry, e.Remedy)
		}
	}
	if diff := cmp.Diff(files, listed(t, c.StateDir)); diff != "" {
		t.Errorf("changed:\n%s", diff)
	}
	// The file is asked once, whatever is refused, and again when it is another.
	if asked, spawned := starts(); asked != 2 || spawned != 0 {
		t.Errorf("asked %d times, started %d times", asked, spawned)
	}
	b, err := os.ReadFile(c.Binary)
	must(t, err)
	must(t, os.WriteFile(c.Binary+".new", append(b, '\n'), 0o700))
	must(t, os.Rename(c.Binary+".new", c.Binary))
	if p, err := r.program(bg); err != nil || p.text != "1.13.2-fcemu" {
		t.Errorf("%v, %v", p, err)
	}
	if asked, _ := starts(); asked != 4 {
		t.Errorf("another file was asked %d times", asked-2)
	}
}

// Row 25: the record is of the process, not of the file.
func TestAnUpgradeOfTheFileIsNoUpgradeOfTheVM(t *testing.T) {
	t.Parallel()
	c := emulating(t, "1.14.1")
	r := open(t, c)
	start(t, r, "a", microvm.Spec{})
	start(t, r, "asleep", microvm.Spec{StopMode: microvm.StopModeHibernate})
	must(t, r.SnapshotVM(bg, "a", "old"))
	must(t, r.StopVM(bg, "a"))
	must(t, r.StopVM(bg, "asleep"))
	must(t, r.Close())

	c = upgraded(c, "1.17.0")
	var starts func() (int, int)
	plain := c.Binary
	c.Binary, starts = recorder(t)
	r = open(t, c)
	must(t, r.StartVM(bg, "a"))
	if v := mustGet(t, r, "a"); v.VMMVersion != "1.14.1-fcemu" {
		t.Errorf("the paused VM runs in %s", v.VMMVersion)
	}
	must(t, r.SnapshotVM(bg, "a", "new"))
	refused := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Fatalf("%s: nothing is refused", what)
		}
		var e *microvm.Error
		if !errors.Is(err, microvm.ErrUnsupported) || !errors.As(err, &e) || e.Retry {
			t.Errorf("%s: %v", what, err)
		}
		for _, s := range []string{"1.14.1-fcemu", "8.0.0", "1.17.0-fcemu", "11.0.0"} {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %v does not say %s", what, err, s)
			}
		}
	}
	for _, name := range []string{"old", "new"} {
		info, err := r.GetSnapshot(bg, "a", name)
		must(t, err)
		if info.VMMVersion != "1.14.1-fcemu" || info.Format != "8.0.0" {
			t.Errorf("%s: %+v", name, info)
		}
		files := listed(t, c.StateDir)
		refused("restore of "+name, r.CreateVMWithSpec(bg, "b", microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: name}}))
		if diff := cmp.Diff(files, listed(t, c.StateDir)); diff != "" {
			t.Errorf("changed:\n%s", diff)
		}
	}
	// Memory that nothing could wake again is not made.
	refused("hibernate", r.StopVMMode(bg, "a", microvm.StopModeHibernate))
	if v := mustGet(t, r, "a"); v.Status != microvm.StatusRunning {
		t.Errorf("after the refusal it is %s", v.Status)
	}
	refused("wake", r.StartVM(bg, "asleep"))
	if v := mustGet(t, r, "asleep"); v.Status != microvm.StatusStopped || v.StopReason.Cause != microvm.StopHibernated {
		t.Errorf("after the refusal it is %s, %v", v.Status, v.StopReason)
	}
	if _, spawned := starts(); spawned != 0 {
		t.Errorf("%d VMMs were started", spawned)
	}
	must(t, r.Close())

	// The release of the same format wakes it, a boot takes what there is.
	c.Binary = plain
	c = upgraded(c, "1.13.0")
	r = open(t, c)
	must(t, r.StartVM(bg, "asleep"))
	clone(t, r, "b", "a", "new")
	for _, id := range []string{"asleep", "b"} {
		if v := mustGet(t, r, id); v.VMMVersion != "1.13.0-fcemu" || v.Status != microvm.StatusRunning {
			t.Errorf("%s: %+v", id, v)
		}
	}
	must(t, r.Close())
	c = upgraded(c, "1.17.0")
	r = open(t, c)
	must(t, r.StopVMMode(bg, "a", microvm.StopModeShutdown))
	must(t, r.StartVM(bg, "a"))
	if v := mustGet(t, r, "a"); v.VMMVersion != "1.17.0-fcemu" {
		t.Errorf("booted in %s", v.VMMVersion)
	}
}

func TestASnapshotThatDoesNotSayWhoWroteItIsRefused(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	r := open(t, c)
	start(t, r, "a", microvm.Spec{})
	must(t, r.SnapshotVM(bg, "a", "s"))
	path := filepath.Join(c.StateDir, "snapshots", mustGet(t, r, "a").UID, "s", "manifest.json")
	b, err := os.ReadFile(path)
	must(t, err)
	var m map[string]any
	must(t, json.Unmarshal(b, &m))
	delete(m, "vmm")
	delete(m, "vmm_version")
	b, err = json.Marshal(m)
	must(t, err)
	must(t, os.WriteFile(path, b, 0o600))
	err = r.CreateVMWithSpec(bg, "b", microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s"}})
	var e *microvm.Error
	if !errors.Is(err, microvm.ErrUnsupported) || !errors.As(err, &e) || e.Retry {
		t.Errorf("%v", err)
	}
	if isThere(r.store.Dir("b")) {
		t.Error("a directory is left")
	}
}

// withVsockDefect is a VMM whose vsock is mute after a bare pause and resume.
func withVsockDefect(t *testing.T) Config {
	t.Helper()
	if !under.real {
		c := emulating(t, "1.16.1")
		c.emulatedDefects = true
		return c
	}
	c := testConfig(t)
	r := open(t, c)
	p, err := r.program(bg)
	must(t, err)
	if !p.defective(fcapi.DefectVsockMuteAfterResume) {
		t.Skipf("%s does not have the defect", p.release)
	}
	return c
}

func TestAVsockThatAPauseWouldMuteIsReset(t *testing.T) {
	t.Parallel()
	c, h := withVsockDefect(t), &holds{}
	c.failpoint = h.failpoint
	r := open(t, c)
	start(t, r, "a", microvm.Spec{Vsock: &microvm.Vsock{}})
	start(t, r, "deaf", microvm.Spec{})
	resets := func(id string) (n int) {
		b, err := os.ReadFile(filepath.Join(r.store.Dir(id), runName, logFile))
		must(t, err)
		return strings.Count(string(b), `"/snapshot/create"`)
	}
	for i := range 2 {
		n := len(counts(t, r, "a"))
		must(t, r.StopVM(bg, "a"))
		must(t, r.StartVM(bg, "a"))
		eventually(t, "it goes on", func() bool { return len(counts(t, r, "a")) > n })
		if got := resets("a"); got != i+1 {
			t.Errorf("%d resets after %d pauses", got, i+1)
		}
	}
	// A snapshot resets it by itself; one that fails before it is written does not.
	must(t, r.SnapshotVM(bg, "a", "s"))
	if got := resets("a"); got != 3 {
		t.Errorf("%d writes after a snapshot", got)
	}
	h.failNext("snapshot.paused", errors.New("no"))
	var e *microvm.Error
	if err := r.SnapshotVM(bg, "a", "t"); !errors.As(err, &e) || e.Stage != "snapshot.paused" {
		t.Fatalf("it did not fail where it did: %v", err)
	}
	if got := resets("a"); got != 4 {
		t.Errorf("%d writes after a snapshot that failed", got)
	}
	must(t, r.StopVM(bg, "deaf"))
	must(t, r.StartVM(bg, "deaf"))
	if got := resets("deaf"); got != 0 {
		t.Errorf("%d resets of a VM without vsock", got)
	}
	if isThere(filepath.Join(r.store.Dir("a"), runName, resetFile)) {
		t.Errorf("%s is left", resetFile)
	}
	clone(t, r, "b", "a", "s")
	if got := resets("b"); got != 0 {
		t.Errorf("%d resets of a clone", got)
	}
}

// The VMM answers one request at a time: the reset must wait for the snapshot
// that nobody waits for any more, however long that takes.
func TestTheVsockIsResetBehindASnapshotThatIsStillBeingWritten(t *testing.T) {
	t.Parallel()
	c := emulating(t, "1.16.1")
	c.emulatedDefects, c.APITimeout = true, time.Second
	c.Env = append(c.Env, "FCEMU_FAULT=delay=2500ms:PUT /snapshot/create:1")
	r := open(t, c)
	start(t, r, "a", microvm.Spec{Vsock: &microvm.Vsock{}})
	log := filepath.Join(r.store.Dir("a"), runName, logFile)
	says := func(text string) int {
		b, err := os.ReadFile(log)
		must(t, err)
		return strings.Count(string(b), text)
	}
	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- r.SnapshotVM(ctx, "a", "s") }()
	eventually(t, "the snapshot is being written", func() bool { return says("was ordered for the PUT request") == 1 })
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if got := says(`received a Put request on "/snapshot/create"`); got != 2 {
		t.Errorf("%d writes, want that of the snapshot and that of the reset", got)
	}
	if v := mustGet(t, r, "a"); v.Status != microvm.StatusRunning {
		t.Errorf("it is %s", v.Status)
	}
	if isThere(filepath.Join(r.store.Dir("a"), runName, resetFile)) {
		t.Errorf("%s is left", resetFile)
	}
}

func TestAVMMThatSaysNothingKeepsAllWaitingOnlyOnce(t *testing.T) {
	t.Parallel()
	if under.real {
		t.Skip("needs a VMM that fails, and MICROVM_TEST_FIRECRACKER is set")
	}
	c := testConfig(t)
	notes, ready := filepath.Join(t.TempDir(), "asked"), filepath.Join(t.TempDir(), "ready")
	must(t, os.WriteFile(notes, nil, 0o600))
	c.Binary = mute(t, `echo >>`+notes+`; while [ ! -e `+ready+` ]; do sleep 0.01; done; exit 3`)
	r := open(t, c)
	const n = 8
	failed := make(chan error, n)
	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	// The first to ask gives up: that is no answer for the others.
	go func() { failed <- r.CreateVM(ctx, "first") }()
	asked := func() int {
		b, err := os.ReadFile(notes)
		must(t, err)
		return len(b)
	}
	eventually(t, "it is asked", func() bool { return asked() == 1 })
	for i := range n - 1 {
		go func() { failed <- r.CreateVM(bg, fmt.Sprintf("vm%d", i)) }()
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	eventually(t, "it is asked again", func() bool { return asked() == 2 })
	// Whoever comes while it is asked gets that answer; give all of them the time
	// to come.
	eventually(t, "all wait", func() bool {
		var b [1 << 20]byte
		return strings.Count(string(b[:runtime.Stack(b[:], true)]), "(*Runtime).program(") >= n-1
	})
	must(t, os.WriteFile(ready, nil, 0o600))
	for range n - 1 {
		if err := <-failed; !errors.Is(err, microvm.ErrHost) || !strings.Contains(err.Error(), "exit status 3") {
			t.Error(err)
		}
	}
	if got := asked(); got != 2 {
		t.Errorf("asked %d times", got)
	}
}

// A script in the VMM's place stays the same file when what it starts is
// replaced.
func TestAProcessThatSaysSomethingElseHasTheFileAskedAnew(t *testing.T) {
	t.Parallel()
	c := emulating(t, "1.16.1")
	which := filepath.Join(t.TempDir(), "release")
	must(t, os.WriteFile(which, []byte("1.14.1"), 0o600))
	c.Binary = mute(t, `FCEMU_EMULATE_VERSION=$(cat `+which+`) exec `+under.binary+` "$@"`)
	c.emulatedDefects = true
	r := open(t, c)
	start(t, r, "old", microvm.Spec{Vsock: &microvm.Vsock{}})
	must(t, os.WriteFile(which, []byte("1.16.0"), 0o600))
	start(t, r, "a", microvm.Spec{Vsock: &microvm.Vsock{}})
	if p, err := r.program(bg); err != nil || p.text != "1.16.0-fcemu" || p.format.Major != 10 {
		t.Errorf("%v, %v", p, err)
	}
	must(t, r.SnapshotVM(bg, "a", "s"))
	must(t, os.WriteFile(which, []byte("1.16.1"), 0o600))
	r.programs.forget(program{release: r.programs.known})
	_, err := r.program(bg)
	must(t, err)
	// What was asked last would restore it, what is started then would not.
	must(t, os.WriteFile(which, []byte("1.16.0"), 0o600))
	err = r.CreateVMWithSpec(bg, "b", microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s"}})
	if !errors.Is(err, microvm.ErrUnsupported) || !strings.Contains(err.Error(), "vsock-dead-on-restore") {
		t.Errorf("%v", err)
	}
	if isThere(r.store.Dir("b")) {
		t.Error("a directory is left")
	}
}

func TestARestoreThatTheReleaseBreaksIsRefused(t *testing.T) {
	t.Parallel()
	c := emulating(t, "1.16.0")
	c.emulatedDefects = true
	r := open(t, c)
	start(t, r, "a", microvm.Spec{Vsock: &microvm.Vsock{}})
	must(t, r.SnapshotVM(bg, "a", "s")) // 1.16.1 restores it
	err := r.CreateVMWithSpec(bg, "b", microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s"}})
	for what, err := range map[string]error{
		"restore":   err,
		"hibernate": r.StopVMMode(bg, "a", microvm.StopModeHibernate),
		"create":    r.CreateVMWithSpec(bg, "c", microvm.Spec{Vsock: &microvm.Vsock{}, StopMode: microvm.StopModeHibernate}),
	} {
		if !errors.Is(err, microvm.ErrUnsupported) || !strings.Contains(err.Error(), "1.16.0") || !strings.Contains(err.Error(), "mended in 1.16.1") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if v := mustGet(t, r, "a"); v.Status != microvm.StatusRunning {
		t.Errorf("it is %s", v.Status)
	}
}

// A spec's stop mode is a default: that its hibernation would break is no reason
// not to boot the VM.
func TestAVMThatCouldNotWakeStartsAndStopsInAnotherMode(t *testing.T) {
	t.Parallel()
	c := emulating(t, "1.16.1")
	c.emulatedDefects = true
	r := open(t, c)
	start(t, r, "a", microvm.Spec{Vsock: &microvm.Vsock{}, StopMode: microvm.StopModeHibernate})
	must(t, r.StopVMMode(bg, "a", microvm.StopModeShutdown))
	must(t, r.Close())
	c = upgraded(c, "1.16.0")
	r = open(t, c)
	must(t, r.StartVM(bg, "a"))
	if err := r.StopVM(bg, "a"); !errors.Is(err, microvm.ErrUnsupported) {
		t.Errorf("hibernate: %v", err)
	}
	must(t, r.StopVMMode(bg, "a", microvm.StopModePause))
}
