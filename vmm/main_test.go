package vmm

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm/internal/leaktest"
)

// The test binary is its own helper: with helperEnv set it is one of the small
// programs below instead of the tests.
const helperEnv = "VMM_TEST_HELPER"

func TestMain(m *testing.M) {
	if mode, args, _ := strings.Cut(os.Getenv(helperEnv), " "); mode != "" {
		if err := helper(mode, strings.Fields(args)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
		os.Exit(0)
	}
	os.Exit(leaktest.Run(m))
}

func helper(mode string, args []string) error {
	switch mode {
	case "exit":
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(code)
	case "ignore-term":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		time.Sleep(time.Hour)
	case "slow-term": // ends 50 ms after SIGTERM
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, syscall.SIGTERM)
		fmt.Println("ready")
		<-ch
		time.Sleep(50 * time.Millisecond)
	case "serve": // listens on a socket after a while
		d, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		time.Sleep(d)
		l, err := net.Listen("unix", args[0])
		if err != nil {
			return err
		}
		for {
			c, err := l.Accept()
			if err != nil {
				return err
			}
			c.Close()
		}
	case "family": // a child in its own process group, whose identity it prints
		pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "3600"}, &syscall.ProcAttr{})
		if err != nil {
			return err
		}
		if err := printIdentity(pid); err != nil {
			return err
		}
		time.Sleep(time.Hour)
	case "operator": // starts a process, prints its identity, stays
		if signal.Ignored(syscall.SIGHUP) { // the tests run under nohup
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP)
			go func() {
				<-hup
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}()
		}
		w, err := NewWatcher()
		if err != nil {
			return err
		}
		p, err := w.Start(Command{Path: "/bin/sleep", Args: []string{"3600"}})
		if err != nil {
			return err
		}
		if err := printIdentity(p.PID()); err != nil {
			return err
		}
		time.Sleep(time.Hour)
	case "foreign-reaper":
		return foreignReaper()
	case "nonblock": // does to its descriptors what Firecracker does to its stdout
		for fd := range 3 {
			if err := syscall.SetNonblock(fd, true); err != nil {
				return err
			}
		}
		_, err := os.Stdout.WriteString("ready\n")
		time.Sleep(time.Hour)
		return err
	case "complain": // and die
		fmt.Fprintln(os.Stderr, "the kernel image is no kernel")
		os.Exit(3)
	case "leave": // as the jailer does with --new-pid-ns: the child is what counts
		pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "3600"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}})
		if err != nil {
			return err
		}
		fmt.Println(pid)
	case "recycle":
		return recycle()
	case "signals":
		return countSignals()
	case "high-limit":
		return startUnderAHighLimit(args[0])
	default:
		return fmt.Errorf("no helper %q", mode)
	}
	return nil
}

func printIdentity(pid int) error {
	stat, err := readStat(pid)
	if err != nil {
		return err
	}
	boot, err := BootID()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(Identity{PID: pid, StartTime: stat.startTime, BootID: boot})
}

// foreignReaper is an operator's program that collects all its children by
// itself, as an init in a container does.
func foreignReaper() error {
	go func() {
		for {
			var ws syscall.WaitStatus
			if _, err := syscall.Wait4(-1, &ws, syscall.WALL, nil); err != nil {
				time.Sleep(50 * time.Microsecond)
			}
		}
	}()
	w, err := NewWatcher()
	if err != nil {
		return err
	}
	for range 50 {
		p, err := w.Start(Command{Path: "/bin/sh", Args: []string{"-c", "exit 7"}})
		if err != nil {
			return err
		}
		select {
		case <-p.Done():
		case <-time.After(10 * time.Second):
			return fmt.Errorf("process %d: no death notice", p.PID())
		}
		if s, known := p.Exit(); known && s.Code != 7 {
			return fmt.Errorf("exit status %v", s)
		}
	}
	return w.Close()
}
