package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
)

// patience bounds every wait of these tests.
const patience = 60 * time.Second

// host is a state directory with the programs that work on it.
type host struct {
	t       *testing.T
	state   string
	program string
}

func newHost(t *testing.T) *host {
	t.Helper()
	program, err := exec.LookPath("microvm") // testscript.Main has put it on PATH
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, state: filepath.Join(t.TempDir(), "state"), program: program}
	t.Cleanup(func() {
		for _, pid := range vmms(h.state) {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill() // it may end by itself meanwhile
			}
		}
	})
	return h
}

func (h *host) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	h.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, h.program, args...)
	cmd.Env = append(os.Environ(), "MICROVM_STATE_DIR="+h.state, "MICROVM_FIRECRACKER_BIN="+emulator, "FCEMU_ENGINE=null",
		"MICROVM_EMULATOR=", "MICROVM_SOCKET_READY_TIMEOUT_MS=30000", "MICROVM_API_TIMEOUT_MS=30000")
	return cmd
}

// do runs a command that must succeed and returns what it printed.
func (h *host) do(args ...string) string {
	h.t.Helper()
	cmd := h.command(args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("microvm %s: %v\n%s", strings.Join(args, " "), err, errOut.Bytes())
	}
	return strings.TrimSpace(string(out))
}

func (h *host) view(id string) microvm.View {
	h.t.Helper()
	var v microvm.View
	if err := json.Unmarshal([]byte(h.do("inspect", "--json", id)), &v); err != nil {
		h.t.Fatal(err)
	}
	return v
}

// output collects what a program writes while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) await(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(patience); !strings.Contains(o.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %q in what was written:\n%s", text, o.String())
		}
	}
}

func exitCode(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	if err := cmd.Wait(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if s, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		t.Fatalf("microvm was ended by %s", s.Signal())
	}
	return cmd.ProcessState.ExitCode()
}

func (h *host) runFlags(id string, more ...string) []string {
	args := append([]string{"run", "--kernel", emulator, "--no-rootfs", "--memory", "64"}, more...)
	return append(args, id)
}

func TestASignalToRunEndsItsOwnVMOnly(t *testing.T) {
	for _, c := range []struct {
		name   string
		signal syscall.Signal
		flags  []string
		want   microvm.Status
		code   int
	}{
		{"interrupt", syscall.SIGINT, nil, microvm.StatusStopped, 130},
		{"terminate", syscall.SIGTERM, nil, microvm.StatusStopped, 143},
		{"hang up", syscall.SIGHUP, []string{"--rm"}, microvm.StatusDestroyed, 129},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.do(h.runFlags("other", "-d")...)
			cmd := h.command(h.runFlags("mine", c.flags...)...)
			var out, errOut output
			cmd.Stdout, cmd.Stderr = &out, &errOut
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			out.await(t, "null guest")
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			if code := exitCode(t, cmd); code != c.code {
				t.Errorf("exit code %d, want %d; it wrote %s", code, c.code, errOut.String())
			}
			if strings.Contains(errOut.String(), "context canceled") {
				t.Errorf("a signal is told as an error: %s", errOut.String())
			}
			if v := h.view("mine"); v.Status != c.want || v.PID != 0 {
				t.Errorf("the run's own VM is %s, pid %d; want %s without process", v.Status, v.PID, c.want)
			}
			if v := h.view("other"); v.Status != microvm.StatusRunning {
				t.Errorf("another VM became %s", v.Status)
			}
			if left := vmms(h.state); len(left) != 1 {
				t.Errorf("%d processes are left, want the other VM's", len(left))
			}
		})
	}
}

func TestAKilledRunLeavesAVMThatTheNextCommandCanUse(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	cmd := h.command(h.runFlags("a")...)
	var out output
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.await(t, "null guest")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	v := h.view("a")
	if v.Status != microvm.StatusRunning {
		t.Fatalf("the VM is %s, want running", v.Status)
	}
	if text := h.do("logs", "a"); !strings.Contains(text, "null guest") {
		t.Errorf("the console is lost: %q", text)
	}
	h.do("stop", "a")
	h.do("destroy", "a")
	if left := vmms(h.state); len(left) != 0 {
		t.Errorf("processes are left: %v", left)
	}
}

// The program is killed at a moment that differs from round to round; whatever
// it was doing then, the next command finds a state that it can work with.
func TestKillsInTheMiddleOfACreationLeaveNothingThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for round := range 12 {
		id := "vm-" + string(rune('a'+round))
		cmd := h.command("create", "--kernel", emulator, "--no-rootfs", "--memory", "64", id)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(round) * 7 * time.Millisecond)
		_ = cmd.Process.Kill() // it may have ended already
		_ = cmd.Wait()
		h.do("recover")
	}
	var views []microvm.View
	if err := json.Unmarshal([]byte(h.do("ls", "--json")), &views); err != nil {
		t.Fatal(err)
	}
	for _, v := range views {
		if v.Status != microvm.StatusCreated {
			t.Errorf("VM %q is %s, want created", v.ID, v.Status)
		}
		h.do("destroy", v.ID)
	}
	if left := vmms(h.state); len(left) != 0 {
		t.Errorf("processes are left: %v", left)
	}
}

func TestWatchPrintsALineForEachChange(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.do("ls") // makes the state directory
	watch := h.command("ls", "--watch", "--json")
	var out output
	watch.Stdout = &out
	h.do("create", "--kernel", emulator, "--no-rootfs", "--memory", "64", "first")
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	out.await(t, `"id":"first"`)
	h.do(h.runFlags("second", "-d")...)
	out.await(t, `"id":"second"`)
	if err := watch.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, watch); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	for line := range strings.Lines(out.String()) {
		var ev microvm.Event
		if err := json.Unmarshal([]byte(line), &ev); err != nil || ev.View.ID == "" {
			t.Errorf("%q is no event: %v", line, err)
		}
	}
}

// openTerminal makes a pseudo-terminal.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// onTerminal starts a program as the foreground of a terminal of its own.
func onTerminal(t *testing.T, cmd *exec.Cmd) (keys *os.File, screen *output) {
	t.Helper()
	master, slave := openTerminal(t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	screen = &output{}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			_, _ = screen.Write(buf[:n]) // it never fails
			if err != nil {
				return // the terminal is closed
			}
		}
	}()
	return master, screen
}

func TestCtrlCOnATerminalEndsTheRunAndNotOtherVMs(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.do(h.runFlags("other", "-d")...)
	cmd := h.command(h.runFlags("mine", "--rm")...)
	keys, screen := onTerminal(t, cmd)
	screen.await(t, "null guest")
	if _, err := keys.Write([]byte{0x03}); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd); code != 130 {
		t.Errorf("exit code %d, want 130:\n%s", code, screen.String())
	}
	if v := h.view("mine"); v.Status != microvm.StatusDestroyed {
		t.Errorf("the run's VM is %s, want destroyed", v.Status)
	}
	if v := h.view("other"); v.Status != microvm.StatusRunning {
		t.Errorf("Ctrl-C reached another VM: it is %s", v.Status)
	}
}

func TestTheConsoleSendsEveryKeyAndTheEscapeLeaves(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.do(h.runFlags("plain", "-d")...)
	h.do("create", "--kernel", emulator, "--no-rootfs", "--memory", "64", "--console-input", "--boot-args", "console=ttyS0 fcemu.echo", "talk")
	h.do("start", "talk")
	cmd := h.command("console", "talk")
	keys, screen := onTerminal(t, cmd)
	screen.await(t, "Ctrl-] leaves")
	// Ctrl-C is a key like any other here: the program must not end by it.
	if _, err := keys.Write([]byte("one\x03two\n")); err != nil {
		t.Fatal(err)
	}
	screen.await(t, "two")
	if _, err := keys.Write([]byte{0x1d}); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd); code != 0 {
		t.Errorf("exit code %d, want 0:\n%s", code, screen.String())
	}
	if v := h.view("talk"); v.Status != microvm.StatusRunning {
		t.Errorf("the VM is %s after its console was left", v.Status)
	}
	if text := h.do("logs", "talk"); !strings.Contains(text, `one\x03two`) {
		t.Errorf("the guest's bytes are %q in logs, want the control character as an escape", text)
	}
}

func TestRunWithInputGivesTheTerminalToTheGuestAndTheEscapeEndsTheRun(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	cmd := h.command(h.runFlags("mine", "-i", "--rm", "--boot-args", "console=ttyS0 fcemu.echo")...)
	keys, screen := onTerminal(t, cmd)
	screen.await(t, "Ctrl-] leaves")
	if _, err := keys.Write([]byte("typed\x03\n")); err != nil {
		t.Fatal(err)
	}
	screen.await(t, "typed")
	if v := h.view("mine"); v.Status != microvm.StatusRunning {
		t.Errorf("Ctrl-C ended the VM: it is %s", v.Status)
	}
	if _, err := keys.Write([]byte{0x1d}); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd); code != 0 {
		t.Errorf("exit code %d, want 0:\n%s", code, screen.String())
	}
	if v := h.view("mine"); v.Status != microvm.StatusDestroyed {
		t.Errorf("the VM is %s, want destroyed", v.Status)
	}
}

func TestFollowedLogsEndWithTheVM(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.do(h.runFlags("a", "-d", "--boot-args", "console=ttyS0 fcemu.console=lines:50:200 fcemu.reboot_after=2s")...)
	text := h.do("logs", "-f", "--tail", "-1", "a")
	if n := strings.Count(text, "\n"); n < 50 {
		t.Errorf("%d lines were followed, want the 50 of the guest:\n%s", n, text)
	}
}
