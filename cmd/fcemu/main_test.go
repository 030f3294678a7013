package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm/internal/leaktest"
)

const patience = 30 * time.Second

var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "fcemu-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program = filepath.Join(dir, "fcemu")
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	code := 1
	if err := cmd.Run(); err == nil {
		code = leaktest.Run(m)
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// vm is a process of the program, in a directory of its own and with relative
// paths.
type vm struct {
	*exec.Cmd
	t      *testing.T
	stderr *strings.Builder
	conn   net.Conn
	r      *bufio.Reader
	ready  time.Duration
}

func start(t *testing.T, args ...string) *vm {
	t.Helper()
	dir, err := os.MkdirTemp("", "fcemu-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	v := &vm{t: t, stderr: &strings.Builder{}}
	v.Cmd = exec.Command(program, append([]string{"--api-sock", "api.sock", "--log-path", "log"}, args...)...)
	v.Dir, v.Stderr, v.Env = dir, v.stderr, append(os.Environ(), "FCEMU_ENGINE=null")
	began := time.Now()
	if err := v.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// It may have ended, which then says so.
		_ = v.Process.Kill()
		_ = v.Wait()
	})
	for {
		if v.conn, err = net.Dial("unix", filepath.Join(dir, "api.sock")); err == nil {
			break
		}
		if time.Since(began) > patience {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Microsecond)
	}
	v.ready = time.Since(began)
	t.Cleanup(func() { v.conn.Close() })
	v.r = bufio.NewReader(v.conn)
	return v
}

func (v *vm) must(method, path, body string) {
	v.t.Helper()
	if err := v.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		v.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(v.conn, "%s %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body); err != nil {
		v.t.Fatal(err)
	}
	resp, err := http.ReadResponse(v.r, nil)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		v.t.Fatalf("%s %s: %s", method, path, resp.Status)
	}
}

// boot starts a guest; its kernel is the program itself, an ELF.
func (v *vm) boot(args string) {
	v.t.Helper()
	v.must("PUT", "/boot-source", fmt.Sprintf(`{"kernel_image_path":%q,"boot_args":%q}`, program, args))
	v.must("PUT", "/actions", `{"action_type":"InstanceStart"}`)
}

// end waits for the process: its code, or minus the signal that killed it.
func (v *vm) end() int {
	v.t.Helper()
	timer := time.AfterFunc(patience, func() { _ = v.Process.Kill() })
	defer timer.Stop()
	err := v.Wait()
	var e *exec.ExitError
	if err != nil && !errors.As(err, &e) {
		v.t.Fatal(err)
	}
	ws := v.ProcessState.Sys().(syscall.WaitStatus)
	if ws.Signaled() {
		return -int(ws.Signal())
	}
	return ws.ExitStatus()
}

func TestAGuestsEndIsTheProcesss(t *testing.T) {
	t.Parallel()
	v := start(t, "--id", "vm-1")
	v.boot("reboot=k")
	v.must("PUT", "/actions", `{"action_type":"SendCtrlAltDel"}`)
	if code := v.end(); code != 0 {
		t.Errorf("exit code %d after a reset", code)
	}
	if !strings.Contains(v.stderr.String(), "emulator of Firecracker (engine: null)") {
		t.Errorf("standard error: %s", v.stderr)
	}
	v = start(t)
	v.boot("fcemu.fault_after=1ms")
	if code := v.end(); code != 1 {
		t.Errorf("exit code %d after a triple fault", code)
	}
}

func TestSignalsActAsOnTheOriginal(t *testing.T) {
	t.Parallel()
	for sig, want := range map[syscall.Signal]int{
		syscall.SIGTERM: -15, syscall.SIGINT: -2, syscall.SIGQUIT: -3, syscall.SIGUSR1: -10, syscall.SIGALRM: -14,
		syscall.SIGHUP: 156, syscall.SIGXFSZ: 151, syscall.SIGXCPU: 154, syscall.SIGSEGV: 150, syscall.SIGBUS: 149,
	} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			v := start(t)
			v.boot("fcemu.tick=1ms")
			if err := v.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if code := v.end(); code != want {
				t.Errorf("%v: %d, want %d", sig, code, want)
			}
		})
	}
}

func TestABadIDAbortsAndABadFlagIsCode153(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want int
	}{{[]string{"--id", "a_b", "--api-sock", "unused"}, -6}, {[]string{"--bogus"}, 153}} {
		v := &vm{t: t, Cmd: exec.Command(program, c.args...)}
		v.Dir = t.TempDir()
		if err := v.Start(); err != nil {
			t.Fatal(err)
		}
		if code := v.end(); code != c.want {
			t.Errorf("%v: %d, want %d", c.args, code, c.want)
		}
	}
}

func TestAutoSaysWhichEngineIsMissing(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(program, "--version")
	cmd.Env = []string{"PATH=" + t.TempDir()}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "Engine: null") || !strings.Contains(stderr.String(), "apt install qemu-system-x86") {
		t.Errorf("%v: %s, %s", err, out, &stderr)
	}
}

// The promise is 3 ms on a quiet machine; a busy one is given ten times that
// before this test fails.
func TestTheAPIIsReadyInMilliseconds(t *testing.T) {
	var took []time.Duration
	for range 20 {
		v := start(t)
		took = append(took, v.ready)
		v.must("PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":128}`)
	}
	slices.Sort(took)
	t.Logf("ready in %v (least), %v (median)", took[0], took[len(took)/2])
	if took[0] > 30*time.Millisecond {
		t.Errorf("the quickest of %d starts took %v", len(took), took[0])
	}
}

func TestManyGuestsRunAtOnceInFewMegabytesEach(t *testing.T) {
	const many = 100
	vms := make([]*vm, many)
	var wg sync.WaitGroup
	for i := range vms {
		vms[i] = start(t)
	}
	for _, v := range vms {
		wg.Go(func() { v.boot("fcemu.tick=10ms fcemu.rewrite=1") })
	}
	wg.Wait()
	var total int
	for _, v := range vms {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", v.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "\nPss:")
		var kib int
		if _, err := fmt.Sscan(rest, &kib); err != nil {
			t.Fatal(err)
		}
		total += kib
	}
	t.Logf("%d KiB each", total/many)
	if total/many > 4096 { // 1,000 in 4 GiB
		t.Errorf("%d guests take %d KiB each, want at most 4096", many, total/many)
	}
}
