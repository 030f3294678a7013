//go:build linux

package qemuengine

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// child is a process that dies with this one and is always reaped.
type child struct {
	cmd    *exec.Cmd
	stderr *tail
	exited chan struct{}
	err    error // after exited
}

// startChild starts cmd so that the kernel kills it when this process dies in
// whatever way. The signal comes at the end of the thread that forked, so that
// thread is kept for this child alone until the child is reaped.
func startChild(cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, stderr: &tail{}, exited: make(chan struct{})}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = c.stderr
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.err = cmd.Wait()
			close(c.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return c, nil
}

// kill ends the child and returns when it is reaped.
func (c *child) kill() {
	// The only error is that it has ended already.
	_ = c.cmd.Process.Kill()
	<-c.exited
}

// failure says how the child ended and what it said.
func (c *child) failure() error {
	how := "it ended"
	if c.err != nil {
		how = c.err.Error()
	} else if s := c.cmd.ProcessState; s != nil {
		how = s.String()
	}
	if said := c.stderr.String(); said != "" {
		return fmt.Errorf("%s: %s", how, said)
	}
	return errors.New(how)
}

// tail keeps the last bytes of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > tailSize {
		t.b = append(t.b[:0], t.b[len(t.b)-tailSize:]...)
	}
	return len(p), nil
}

// String is what was written, on one line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.FieldsFunc(t.b, func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.TrimSpace(string(bytes.Join(lines, []byte("; "))))
}
