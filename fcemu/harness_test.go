package fcemu_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm/fcemu"
	"github.com/tangle-network/microvm/fcemu/nullengine"
	"github.com/tangle-network/microvm/internal/leaktest"
)

func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }

// patience bounds every wait of these tests; nothing takes that long.
const patience = 20 * time.Second

// vmm is one run of the emulator inside the test, with the null engine.
type vmm struct {
	t       *testing.T
	dir     string
	conn    net.Conn
	answers *bufio.Reader
	code    chan int
	end     context.CancelCauseFunc
	real    bool // the original
}

// shortDir is a directory whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fcemu-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// write makes a file in dir.
func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// furnish puts the files into dir that the bodies of the tests name: a kernel
// (this program, which is an ELF for this machine), disks, and things that are
// none of those.
func furnish(t *testing.T, dir string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(exe, filepath.Join(dir, "vmlinux")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "disk", strings.Repeat("d", 1<<16))
	write(t, dir, "disk2", strings.Repeat("e", 1<<16))
	write(t, dir, "initrd", "initrd")
	write(t, dir, "text", "hello")
	write(t, dir, "empty", "")
	write(t, dir, "odd", strings.Repeat("o", 777))
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// process is a run with this command line; DIR in it stands for dir.
func process(t *testing.T, dir string, args ...string) fcemu.Process {
	t.Helper()
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "DIR", dir)
	}
	open := func(name string) int {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return int(f.Fd())
	}
	return fcemu.Process{
		Args: args, Stdin: -1, Stdout: open("stdout"), Stderr: open("stderr"), Engine: "null",
		Engines: map[string]fcemu.Factory{"null": func(o fcemu.EngineOptions) (fcemu.Engine, error) {
			return nullengine.New(nullengine.Options{EngineOptions: o}), nil
		}},
	}
}

// start runs the emulator in a furnished directory and connects to its API.
func start(t *testing.T, args ...string) *vmm {
	t.Helper()
	dir := shortDir(t)
	furnish(t, dir)
	return startIn(t, dir, args...)
}

func startIn(t *testing.T, dir string, args ...string) *vmm {
	t.Helper()
	sock := filepath.Join(dir, "api.sock")
	if err := os.Remove(sock); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	p := process(t, dir, append([]string{"--api-sock", sock, "--log-path", filepath.Join(dir, "log")}, args...)...)
	ctx, cancel := context.WithCancelCause(context.Background())
	v := &vmm{t: t, dir: dir, code: make(chan int, 1), end: cancel}
	go func() { v.code <- p.Run(ctx) }()
	t.Cleanup(v.stop)
	v.conn = v.dial()
	v.answers = bufio.NewReader(v.conn)
	return v
}

// original is the variable that names a real firecracker, against which the
// tests that use either are run instead of the emulator.
const original = "MICROVM_TEST_FIRECRACKER"

// either starts the emulator, or the original where there is one. Their texts
// differ; states, codes and bodies of successes must not.
func either(t *testing.T, args ...string) *vmm {
	t.Helper()
	bin := os.Getenv(original)
	if bin == "" {
		return start(t, args...)
	}
	dir := shortDir(t)
	furnish(t, dir)
	sock := filepath.Join(dir, "api.sock")
	cmd := exec.Command(bin, append([]string{"--api-sock", sock, "--log-path", filepath.Join(dir, "log")}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	v := &vmm{t: t, dir: dir, code: make(chan int, 1), real: true}
	v.end = func(error) { _ = cmd.Process.Kill() } // it may have ended
	go func() {
		_ = cmd.Wait() // the code says it all
		v.code <- cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(v.stop)
	v.conn = v.dial()
	v.answers = bufio.NewReader(v.conn)
	return v
}

// dial connects to the API as soon as it is there.
func (v *vmm) dial() net.Conn {
	v.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		c, err := net.Dial("unix", filepath.Join(v.dir, "api.sock"))
		if err == nil {
			v.t.Cleanup(func() { c.Close() })
			return c
		}
		if time.Now().After(deadline) {
			v.t.Fatalf("the API did not come up: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

// stop ends the run, whatever it does.
func (v *vmm) stop() {
	v.end(errors.New("the test is over"))
	select {
	case code := <-v.code:
		v.code <- code
	case <-time.After(patience):
		v.t.Error("the emulator does not end")
	}
}

// exit waits for the run to end by itself.
func (v *vmm) exit() int {
	v.t.Helper()
	select {
	case code := <-v.code:
		v.code <- code
		return code
	case <-time.After(patience):
		v.t.Fatal("the emulator still runs")
		return -1
	}
}

// answer is what came back.
type answer struct {
	status     int
	deprecated bool
	body       string
}

func (a answer) String() string { return fmt.Sprintf("%d %s", a.status, a.body) }

// do sends one request over the kept connection. DIR in path and body stands
// for the directory; an empty body is none.
func (v *vmm) do(method, path, body string) answer {
	v.t.Helper()
	body = strings.ReplaceAll(body, "DIR", v.dir)
	head := method + " " + path + " HTTP/1.1\r\n"
	if body != "" {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	a, err := v.send(head + "\r\n" + body)
	if err != nil {
		v.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (v *vmm) send(bytes string) (answer, error) {
	if err := v.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return answer{}, err
	}
	if _, err := io.WriteString(v.conn, bytes); err != nil {
		return answer{}, err
	}
	return readAnswer(v.answers)
}

func readAnswer(r *bufio.Reader) (answer, error) {
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header.Get("Deprecation") == "true", string(b)}, err
}

// must sends a request that must succeed.
func (v *vmm) must(method, path, body string) string {
	v.t.Helper()
	a := v.do(method, path, body)
	if a.status != 200 && a.status != 204 {
		v.t.Fatalf("%s %s %s: %v", method, path, body, a)
	}
	return a.body
}

// boot configures a small guest with these boot args and starts it.
func (v *vmm) boot(bootArgs string) {
	v.t.Helper()
	v.must("PUT", "/boot-source", fmt.Sprintf(`{"kernel_image_path":"DIR/vmlinux","boot_args":%q}`, bootArgs))
	v.must("PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":8}`)
	v.must("PUT", "/actions", `{"action_type":"InstanceStart"}`)
}

func (v *vmm) file(name string) string {
	v.t.Helper()
	b, err := os.ReadFile(filepath.Join(v.dir, name))
	if err != nil {
		v.t.Fatal(err)
	}
	return string(b)
}
