package firecracker

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
)

// realLinuxConfig is for Linux guests of a real Firecracker.
func realLinuxConfig(t *testing.T) Config {
	t.Helper()
	if !under.real {
		t.Skip("it needs a real Firecracker and a KVM that boots Linux (make test-real FIRECRACKER=path)")
	}
	c := linuxConfig(t)
	c.ShutdownGrace = patience
	return c
}

// echoPort is where the guest's agent answers everybody with what he sends.
const echoPort = 52

// linuxSpec is a guest with a shell, vsock, and the agent on its second disk.
func linuxSpec(t *testing.T) microvm.Spec {
	t.Helper()
	path := os.Getenv("MICROVM_TEST_AGENT")
	if path == "" {
		t.Fatal("MICROVM_TEST_AGENT names no program for the guest's side of vsock (make test-real sets it)")
	}
	b, err := os.ReadFile(path)
	must(t, err)
	const sector = 512 // the guest sees whole ones only
	b = append(b, make([]byte, sector-len(b)%sector)...)
	disk := filepath.Join(t.TempDir(), "agent")
	must(t, os.WriteFile(disk, b, 0o600))
	return microvm.Spec{
		Vsock: &microvm.Vsock{}, Console: &microvm.Console{Input: true},
		Drives: []microvm.Drive{{ID: "agent", Path: disk, ReadOnly: yes()}},
	}
}

// boot starts a guest and its agent.
func boot(t *testing.T, r *Runtime, id string, spec microvm.Spec) {
	t.Helper()
	began := time.Now()
	start(t, r, id, spec)
	waitTicks(t, r, id, 1)
	t.Logf("%s is up after %v", id, time.Since(began))
	inGuest(t, r, id, "", "microvm:")
	startAgent(t, r, id)
}

func startAgent(t *testing.T, r *Runtime, id string) {
	t.Helper()
	inGuest(t, r, id, fmt.Sprintf("cat /dev/vdb >/tmp/agent; chmod +x /tmp/agent; /tmp/agent echo %d &", echoPort), "listening")
	talk(t, r, id, "after boot")
}

// inGuest types a command into the guest's shell and waits for what it says.
func inGuest(t *testing.T, r *Runtime, id, command, want string) {
	t.Helper()
	before, err := r.ConsoleTail(bg, id, -1)
	must(t, err)
	must(t, typeIn(r, id, command+"\n"))
	var after []byte
	end := time.Now().Add(patience)
	for !strings.Contains(string(after), want) {
		if time.Now().After(end) {
			t.Fatalf("%s: %q did not bring %q within %v:\n%s", id, command, want, patience, after)
		}
		time.Sleep(20 * time.Millisecond)
		b, err := r.ConsoleTail(bg, id, -1)
		must(t, err)
		after = b[min(len(b), len(before)):]
	}
}

// dialEcho sends a text through the guest's vsock and wants it back.
func dialEcho(r *Runtime, id, text string, bound time.Duration) error {
	ctx, cancel := context.WithTimeout(bg, bound)
	defer cancel()
	c, err := r.DialVsock(ctx, id, echoPort)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(bound)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("read the echo: %w", err)
	}
	if string(got) != text {
		return fmt.Errorf("the echo of %q is %q", text, got)
	}
	return nil
}

func talk(t *testing.T, r *Runtime, id, when string) {
	t.Helper()
	began := time.Now()
	if err := dialEcho(r, id, "hello "+when, patience); err != nil {
		t.Errorf("%s: vsock %s: %v", id, when, err)
		return
	}
	t.Logf("%s: vsock answers %s, in %v", id, when, time.Since(began))
}

// The table of defects against the VMM: where it says that vsock is mute after a
// bare pause and resume, it is, and the provider's own pause and resume heal it.
func TestVsockOfARealLinuxGuest(t *testing.T) {
	r := open(t, realLinuxConfig(t))
	boot(t, r, "a", linuxSpec(t))
	v, err := fcapi.ParseVersion(mustGet(t, r, "a").VMMVersion)
	must(t, err)

	began := time.Now()
	talk(t, r, "a", "before anything")
	bound := 20*time.Second + 20*time.Since(began)

	// Past the provider.
	api := fcapi.New(filepath.Join(r.store.Dir("a"), runName, apiSocket))
	defer api.Close()
	must(t, api.Pause(bg))
	must(t, api.Resume(bg))
	mute := dialEcho(r, "a", "past the provider", bound)
	t.Logf("Firecracker %s, after a bare pause and resume, within %v: %v", v, bound, mute)
	if known := fcapi.HasDefect(v, fcapi.DefectVsockMuteAfterResume); known != (mute != nil) {
		t.Errorf("Firecracker %s, after a bare pause and resume: %v; that it is mute then is known of it: %v", v, mute, known)
	}

	for range 2 {
		must(t, r.StopVM(bg, "a"))
		must(t, r.StartVM(bg, "a"))
		talk(t, r, "a", "after the provider's pause and resume")
	}
	must(t, r.SnapshotVM(bg, "a", "s"))
	talk(t, r, "a", "after a snapshot")
	for _, id := range []string{"b", "c"} {
		clone(t, r, id, "a", "s")
	}
	for _, id := range []string{"b", "c", "a"} {
		talk(t, r, id, "beside the others")
	}
	must(t, r.StopVMMode(bg, "b", microvm.StopModeHibernate))
	must(t, r.StartVM(bg, "b"))
	talk(t, r, "b", "after a hibernation")
	must(t, r.StopVM(bg, "b"))
	must(t, r.StartVM(bg, "b"))
	talk(t, r, "b", "after the clone's own pause and resume")
}

// The guest's own clock of ticks tells what became of its memory.
func TestARealLinuxGuestThroughTheThreeStopModes(t *testing.T) {
	r := open(t, realLinuxConfig(t))
	spec := linuxSpec(t)
	boot(t, r, "a", spec)
	inGuest(t, r, "a", "echo kept >/root/file; sync; echo written-$((40+2))", "written-42")
	for _, mode := range []microvm.StopMode{microvm.StopModePause, microvm.StopModeHibernate, microvm.StopModeShutdown} {
		pid := mustGet(t, r, "a").PID
		began := time.Now()
		must(t, r.StopVMMode(bg, "a", mode))
		stopped := time.Since(began)
		v := mustGet(t, r, "a")
		t.Logf("%s: stopped in %v: %v", mode, stopped, v.StopReason)
		if keeps := mode == microvm.StopModePause; v.Status != microvm.StatusStopped || keeps && v.PID != pid || !keeps && v.PID != 0 {
			t.Errorf("%s: it is %s, pid %d, was %d", mode, v.Status, v.PID, pid)
		}
		before := ticks(t, r, "a")
		began = time.Now()
		must(t, r.StartVM(bg, "a"))
		after := waitTicks(t, r, "a", len(before)+2)
		t.Logf("%s: started, and two ticks on, after %v", mode, time.Since(began))
		// A tick may be lost to us on a line that begins with the shell's prompt.
		switch last, next := before[len(before)-1], after[len(before)]; {
		case mode == microvm.StopModeShutdown && next > 3:
			t.Errorf("%s: the first tick after it is %d, the last before it %d", mode, next, last)
		case mode != microvm.StopModeShutdown && (next <= last || next > last+3):
			t.Errorf("%s: after tick %d came %d", mode, last, next)
		}
		if mode == microvm.StopModeShutdown {
			inGuest(t, r, "a", "", "microvm:")
			startAgent(t, r, "a")
		}
		inGuest(t, r, "a", "cat /root/file; echo read-$((40+2))", "kept")
		talk(t, r, "a", "after "+string(mode))
	}
}

func TestAPanicOfARealLinuxGuestIsTheReason(t *testing.T) {
	r := open(t, realLinuxConfig(t))
	start(t, r, "a", microvm.Spec{Console: &microvm.Console{Input: true}})
	waitTicks(t, r, "a", 1)
	inGuest(t, r, "a", "", "microvm:")
	must(t, typeIn(r, "a", "echo c >/proc/sysrq-trigger\n"))
	v := waitFor(t, r, "a", microvm.StatusStopped)
	t.Log(v.StopReason)
	if v.StopReason == nil || v.StopReason.Cause != microvm.StopGuest || !strings.Contains(v.StopReason.Detail, "Kernel panic") {
		t.Errorf("the reason is %v", v.StopReason)
	}
	must(t, r.StartVM(bg, "a"))
	waitTicks(t, r, "a", 1)
}

// The guest's network as far as it goes without a host behind it: the driver, the
// TAP, and the metadata service that the VMM answers itself.
func TestMetadataReachARealLinuxGuest(t *testing.T) {
	c := realLinuxConfig(t)
	spec := microvm.Spec{
		BootArgs:          DefaultBootArgs + " ip=169.254.1.2:::255.255.0.0::eth0:off",
		Console:           &microvm.Console{Input: true},
		NetworkInterfaces: []microvm.NetworkInterface{{ID: "eth0", HostDevName: "tap0"}},
		MMDS:              &microvm.MMDS{Version: "V1", Interfaces: []string{"eth0"}, Contents: json.RawMessage(`{"who":"somebody"}`)},
	}
	// The TAP is in a network namespace of this program's.
	cmd := child{Config: c, Stay: true, Steps: []step{
		{Verb: "tap", ID: "tap0"}, {Verb: "create", ID: "a", Spec: spec}, {Verb: "start", ID: "a"},
	}}.command(t)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	stdin, err := cmd.StdinPipe() // keeps it waiting
	must(t, err)
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "done\n" {
		t.Fatalf("the program said %q, %v", line, err)
	}
	r := open(t, c)
	waitTicks(t, r, "a", 1)
	inGuest(t, r, "a", "", "microvm:")
	inGuest(t, r, "a", "wget -q -O - http://169.254.169.254/who", "somebody")
	must(t, stdin.Close())
	must(t, cmd.Wait())
}
