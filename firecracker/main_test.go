package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/leaktest"
	"github.com/tangle-network/microvm/internal/testhost"
	"github.com/tangle-network/microvm/internal/tinyguest"
)

// under is the VMM that the tests run on.
var under struct {
	binary string
	real   bool
	kernel string
	rootfs string
	// witness is a script: see apifaults_test.go.
	witness string
}

func TestMain(m *testing.M) {
	os.Exit(testhost.Run(func() int { return run(m) }))
}

func run(m *testing.M) int {
	if order := os.Getenv(childVariable); order != "" {
		return runChild(order)
	}
	if order := os.Getenv(crowdVariable); order != "" {
		if err := runCrowd(order); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	if order := os.Getenv(netsVariable); order != "" {
		if err := runNets(order); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	testhost.Up()
	dir, err := os.MkdirTemp("", "microvm-firecracker-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := prepare(dir); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the tests:", err)
		return 1
	}
	code := leaktest.Run(m)
	if code == 0 {
		if left := emulators(); len(left) > 0 {
			fmt.Fprintln(os.Stderr, "the tests have left VMMs behind:", left)
			code = 1
		}
	}
	return code
}

// emulators are the VMMs that run our own build of the emulator.
func emulators() []string {
	var left []string
	exes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return []string{err.Error()}
	}
	for _, exe := range exes {
		if path, err := os.Readlink(exe); err == nil && !under.real && path == under.binary {
			left = append(left, exe)
		}
	}
	return left
}

// prepare takes the real VMM that MICROVM_TEST_FIRECRACKER names, or builds the
// emulator, whose null engine needs nothing of the machine.
func prepare(dir string) error {
	under.kernel = filepath.Join(dir, "vmlinux")
	if err := tinyguest.Write(under.kernel); err != nil {
		return err
	}
	under.rootfs = filepath.Join(dir, "rootfs")
	if err := os.WriteFile(under.rootfs, []byte(strings.Repeat("root disk\n", 1<<12)), 0o600); err != nil {
		return err
	}
	under.witness = filepath.Join(dir, "witness")
	if err := os.WriteFile(under.witness, []byte(witness), 0o700); err != nil {
		return err
	}
	if path := os.Getenv("MICROVM_TEST_FIRECRACKER"); path != "" {
		under.binary, under.real = path, true
		if os.Getenv("MICROVM_TEST_LINUX") != "" {
			patience = 15 * time.Minute
		}
		return nil
	}
	under.binary = filepath.Join(dir, "fcemu")
	out, err := exec.Command("go", "build", "-o", under.binary, "github.com/tangle-network/microvm/cmd/fcemu").CombinedOutput()
	if err != nil {
		return fmt.Errorf("build fcemu: %w: %s", err, out)
	}
	return nil
}

// testConfig is a configuration with a state directory of the test's own.
func testConfig(t testing.TB) Config {
	t.Helper()
	c := Config{
		StateDir: filepath.Join(t.TempDir(), "state"), Binary: under.binary,
		Kernel: under.kernel, Rootfs: under.rootfs,
		VCPUs: 1, MemoryMiB: 8,
		ShutdownGrace: 2 * time.Second,
		Log:           slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if !under.real {
		c.Env = []string{"FCEMU_ENGINE=null"}
		c.BootArgs = DefaultBootArgs + " fcemu.console=lines:0:200 fcemu.echo"
	}
	return c
}

// counts are the counts that the guest has printed: ours prints 16 hex digits a
// line, the null guest its ticks.
func counts(t testing.TB, r *Runtime, id string) []uint64 {
	t.Helper()
	b, err := r.ConsoleTail(context.Background(), id, -1)
	must(t, err)
	var out []uint64
	for line := range strings.Lines(string(b)) {
		line, whole := strings.CutSuffix(line, "\n")
		if !whole {
			continue
		}
		base, digits := 16, strings.TrimSpace(line)
		if d, ok := strings.CutPrefix(digits, "null guest: tick "); ok {
			base, digits = 10, d
		} else if len(digits) != 16 {
			continue
		}
		if n, err := strconv.ParseUint(digits, base, 64); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// countsFrom waits for the first counts of a VM, at least n of them.
func countsFrom(t testing.TB, r *Runtime, id string, n int) []uint64 {
	t.Helper()
	var got []uint64
	eventually(t, fmt.Sprintf("%q counts", id), func() bool {
		got = counts(t, r, id)
		return len(got) >= n
	})
	return got
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("runtime: %s", strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

// childVariable orders the test's program to be an operator's: see child.
const childVariable = "MICROVM_TEST_CHILD"

// child is what a program of its own does: it opens a runtime, runs the steps, and
// says so on its standard output. At the failpoint KillAt it kills itself.
type child struct {
	Config Config
	Steps  []step
	KillAt string
	Stay   bool // wait for the end after the steps
}

// step is one verb.
type step struct {
	Verb, ID, Other string
	Spec            microvm.Spec
}

func (s step) run(ctx context.Context, r *Runtime) error {
	switch s.Verb {
	case "create":
		spec := s.Spec.Clone()
		if n := spec.Network; n != nil {
			// VMs of many tests and programs live at once: each has an address of the
			// host for itself.
			for i := range n.Publish {
				k := rand.Uint32()
				n.Publish[i].HostIP = netip.AddrFrom4([4]byte{127, byte(k), byte(k >> 8), byte(k>>16) | 1})
				n.Publish[i].HostPort = 20000 + uint16(k>>24)
			}
		}
		return r.CreateVMWithSpec(ctx, s.ID, spec)
	case "start":
		return r.StartVM(ctx, s.ID)
	case "stop":
		return r.StopVM(ctx, s.ID)
	case "snapshot":
		return r.SnapshotVM(ctx, s.ID, s.Other)
	case "tap": // in the network namespace of this program
		return makeTAP(s.ID)
	case "metadata": // must be Other
		c := fcapi.New(filepath.Join(r.store.Dir(s.ID), runName, apiSocket))
		defer c.Close()
		got, err := c.GetMMDS(ctx)
		if err == nil && string(got) != s.Other {
			err = fmt.Errorf("the metadata are %s, not %s", got, s.Other)
		}
		return err
	case "egress":
		return r.UpdateEgress(ctx, s.ID, microvm.Egress{Default: microvm.EgressAllow})
	case "delete":
		return r.DeleteSnapshot(ctx, s.ID, s.Other)
	case "destroy":
		return r.DestroyVM(ctx, s.ID)
	case "metrics":
		m, err := r.ReadMetrics(ctx, s.ID)
		if err == nil && m.Trouble != "" {
			err = &microvm.Error{Verb: "read the metrics of", VMID: s.ID, Err: errors.New(m.Trouble)}
		}
		return err
	case "fork":
		return r.ForkVM(ctx, s.ID, s.Other)
	case "rename":
		return r.RenameVM(ctx, s.ID, s.Other)
	}
	return fmt.Errorf("no such verb: %q", s.Verb)
}

func runChild(order string) int {
	var c child
	if err := json.Unmarshal([]byte(order), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c.Config.failpoint = func(_ context.Context, name string) error {
		if name == c.KillAt {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return nil
	}
	r, err := Open(context.Background(), c.Config)
	for _, s := range c.Steps {
		if err == nil {
			err = s.run(context.Background(), r)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("done")
	if c.Stay {
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	return 0
}

// command is the program that does what c says.
func (c child) command(t testing.TB) *exec.Cmd {
	t.Helper()
	c.Config.Log = nil
	b, err := json.Marshal(c)
	must(t, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childVariable+"="+string(b))
	return cmd
}

// open opens a runtime that destroys its VMs when the test ends.
func open(t testing.TB, c Config) *Runtime {
	t.Helper()
	r, err := Open(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(t, r) })
	return r
}

func closeAll(t testing.TB, r *Runtime) {
	views, err := r.ListVMs(context.Background())
	if err != nil {
		t.Errorf("ListVMs at the end: %v", err)
	}
	for _, v := range views {
		if v.Status == microvm.StatusDestroyed {
			continue
		}
		if err := r.DestroyVM(context.Background(), v.ID); err != nil {
			t.Errorf("DestroyVM(%q) at the end: %v", v.ID, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustGet(t testing.TB, r *Runtime, id string) microvm.View {
	t.Helper()
	v, err := r.GetVM(context.Background(), id)
	must(t, err)
	return v
}

// patience is for what takes moments on a quiet machine, and can take much longer
// on a busy one. In a host that is itself emulated a guest takes 10 s to boot, and
// many minutes when that host is on a busy machine.
var patience = 2 * time.Minute

// eventually waits for what another process or goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// holds stops verbs at a failpoint, or fails them there.
type holds struct {
	mu   sync.Mutex
	next map[string]*hold
	errs map[string]error
}

// failNext makes the next verb that passes the failpoint fail.
func (h *holds) failNext(name string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.errs == nil {
		h.errs = map[string]error{}
	}
	h.errs[name] = err
}

type hold struct{ entered, leave chan struct{} }

func (h *holds) failpoint(ctx context.Context, name string) error {
	h.mu.Lock()
	one := h.next[name]
	delete(h.next, name)
	err := h.errs[name]
	delete(h.errs, name)
	h.mu.Unlock()
	if one == nil || err != nil {
		return err
	}
	close(one.entered)
	select {
	case <-one.leave:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *holds) hold(name string) (entered <-chan struct{}, release func()) {
	one := &hold{make(chan struct{}), make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next == nil {
		h.next = map[string]*hold{}
	}
	h.next[name] = one
	return one.entered, sync.OnceFunc(func() {
		h.mu.Lock()
		if h.next[name] == one {
			delete(h.next, name)
		}
		h.mu.Unlock()
		close(one.leave)
	})
}

// pressKeys sends Ctrl-Alt-Del, past the runtime.
func pressKeys(ctx context.Context, r *Runtime, id string) error {
	c := fcapi.New(filepath.Join(r.store.Dir(id), runName, apiSocket))
	defer c.Close()
	return c.Do(ctx, fcapi.SendCtrlAltDelRequest(), nil)
}

// leftovers are the processes that work in the state directory, and the files
// there that belong neither to snapshots nor to tombstones.
// The emulator's helper programs die with it, but take a moment.
func leftovers(stateDir string) (left []string) {
	for range 500 {
		if left = leftoversNow(stateDir); !slices.ContainsFunc(left, func(s string) bool { return strings.HasSuffix(s, "(deleted)") }) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return left
}

func leftoversNow(stateDir string) []string {
	left := []string{}
	procs, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		return []string{err.Error()}
	}
	for _, p := range procs {
		if cwd, err := os.Readlink(p); err == nil && strings.HasPrefix(cwd, stateDir+"/") {
			left = append(left, "process "+p+" in "+cwd)
		}
	}
	return append(left, filesLeft(stateDir)...)
}

func filesLeft(stateDir string) (left []string) {
	err := filepath.WalkDir(stateDir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(stateDir, path)
		if err != nil {
			return err
		}
		parts := strings.Split(rel, "/")
		switch {
		case rel == networksName+"/uids", rel == networksName+"/addresses.json":
		case parts[0] == networksName && len(parts) == 2 && d.IsDir():
			left = append(left, rel)
		case rel == networksName+"/table.lock":
		case d.IsDir() && len(parts) <= 2, parts[0] == "snapshots" && len(parts) > 2:
		case parts[0] == "vms" && len(parts) == 3 && (parts[2] == "vm.json" || parts[2] == "lock"):
		default:
			left = append(left, rel)
		}
		return nil
	})
	if err != nil {
		left = append(left, err.Error())
	}
	return left
}

// typeIn types into the guest's serial port.
func typeIn(r *Runtime, id, keys string) error {
	w, err := r.ConsoleInput(context.Background(), id)
	if err != nil {
		return err
	}
	_, err = w.Write([]byte(keys))
	return errors.Join(err, w.Close())
}
