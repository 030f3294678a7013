package vmm

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Field case 4: what a terminal does to the operator's program does not reach
// the processes that it started.
func TestATerminalReachesTheOperatorOnly(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, operator int, terminal *os.File){
		"Ctrl-C": func(t *testing.T, _ int, terminal *os.File) {
			if _, err := terminal.Write([]byte{3}); err != nil {
				t.Error(err)
			}
		},
		"hang-up": func(t *testing.T, _ int, terminal *os.File) { terminal.Close() },
		"SIGTERM to the group": func(t *testing.T, operator int, _ *os.File) {
			if err := unix.Kill(-operator, unix.SIGTERM); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := openTerminal(t)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self)
			cmd.Env = []string{helperEnv + "=operator"}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, theirs
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			theirs.Close()
			line, err := bufio.NewReader(ours).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			w := newWatcher(t)
			p := open(t, w, decodeIdentity(t, line))
			t.Cleanup(func() { p.Kill() })
			end(t, cmd.Process.Pid, ours)
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) {
				t.Errorf("the operator's program: %v", err)
			} else if ws, ok := exit.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() {
				t.Errorf("the operator's program ended otherwise: %v", err)
			}
			mustLive(t, p)
		})
	}
}

// openTerminal returns both ends of a new pseudo-terminal (pts(4)).
func openTerminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { ours.Close() })
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}
