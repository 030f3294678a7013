package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Field case 37. In a PID namespace of its own the test says which pid comes
// next.
func TestARecycledPidIsNeverSignalled(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{helperEnv + "=recycle"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) {
		t.Skip("no right to make a PID namespace (CAP_SYS_ADMIN)")
	}
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func recycle() error {
	err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, ""))
	if err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	first, err := NewWatcher()
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := NewWatcher()
	if err != nil {
		return err
	}
	defer second.Close()
	started, err := first.Start(Command{Path: "/bin/sleep", Args: []string{"3600"}})
	if err != nil {
		return err
	}
	id := started.Identity()
	adopted, err := second.Open(id)
	if err != nil {
		return err
	}
	if err := started.Kill(); err != nil {
		return err
	}
	<-started.Done()
	<-adopted.Done()
	time.Sleep(30 * time.Millisecond) // some clock ticks

	var stranger *Process
	for range 100 { // threads take pids too
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(id.PID-1)), 0); err != nil {
			return err
		}
		if stranger, err = first.Start(Command{Path: "/bin/sleep", Args: []string{"3600"}}); err != nil {
			return err
		}
		if stranger.PID() == id.PID {
			break
		}
		if _, err := stranger.Stop(context.Background(), 0); err != nil {
			return err
		}
	}
	if stranger.PID() != id.PID {
		return errors.New("the pid did not come again")
	}
	for name, p := range map[string]*Process{"started": started, "adopted": adopted} {
		for call, err := range map[string]error{"Kill": p.Kill(), "Signal": p.Signal(syscall.SIGKILL)} {
			if !errors.Is(err, ErrGone) {
				return fmt.Errorf("%s of the %s process: %w", call, name, err)
			}
		}
		if step, err := p.Stop(context.Background(), time.Hour); step != StepNone || err != nil {
			return fmt.Errorf("stop of the %s process: %v, %w", name, step, err)
		}
	}
	if _, err := second.Open(id); !errors.Is(err, ErrGone) {
		return fmt.Errorf("open by the old identity: %w", err)
	}
	time.Sleep(10 * time.Millisecond)
	again, err := second.Open(stranger.Identity())
	if err != nil {
		return fmt.Errorf("the stranger: %w", err)
	}
	_, err = again.Stop(context.Background(), 0)
	return err
}
