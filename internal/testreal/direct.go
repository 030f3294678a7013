//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Variables that tests read.
const (
	realVariable  = "MICROVM_TEST_FIRECRACKER"
	linuxVariable = "MICROVM_TEST_LINUX"
	guestVariable = "MICROVM_TEST_GUEST"
	agentVariable = "MICROVM_TEST_AGENT"
)

// Which tests of ./firecracker boot Linux in a real Firecracker. The law of the
// contract boots dozens of guests, which takes an emulated host half an hour.
const (
	linuxTests  = "Linux"
	nestedTests = "RealLinux|ALinuxGuestLives"
)

// tiny runs, with the tiny guest, everything that honours MICROVM_TEST_FIRECRACKER.
func (s *session) tiny(ctx context.Context, t *tally) (string, error) {
	if !s.kvm.opens {
		return "/dev/kvm is " + s.kvm.String(), nil
	}
	s.say("on Firecracker %s, /dev/kvm: %s", s.firecracker.Version, s.kvm.kind)
	// The tests of fcemu that can compare with a real one do; its others, and those
	// of packages that start VMMs here and there, prove nothing about a real one.
	for _, g := range [][]string{
		{"./firecracker", "./fcemu", "./fcemu/fidelity"},
		{"-run", "Real", "./fcapi", "./vmm", "./cmd/microvm"},
	} {
		if err := s.goTest(ctx, t, nil, g...); err != nil {
			return "", err
		}
	}
	return "", nil
}

// linux runs the tests with Linux guests where a trial shows that they boot.
func (s *session) linux(ctx context.Context, t *tally) (string, error) {
	if !s.kvm.opens {
		return "/dev/kvm is " + s.kvm.String(), nil
	}
	if why, err := s.tryLinux(ctx); why != "" || err != nil {
		return why, err
	}
	s.say("on Firecracker %s, /dev/kvm: %s", s.firecracker.Version, s.kvm.kind)
	s.linuxRan = true
	agent, err := s.buildAgent(ctx)
	if err != nil {
		return "", err
	}
	return "", s.goTest(ctx, t, []string{linuxVariable + "=1", guestVariable + "=" + s.guest, agentVariable + "=" + agent},
		"-run", cmp.Or(s.pattern, linuxTests), "./firecracker")
}

// trial is how long an ordinary kernel may take until its user space is up. It
// takes a second or two.
const trial = 20 * time.Second

// tryLinux boots the guest with our own command line, and says why it can't.
func (s *session) tryLinux(ctx context.Context) (why string, err error) {
	state, err := os.MkdirTemp("", "microvm-real-")
	if err != nil {
		return "", err
	}
	microvm := func(ctx context.Context, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "bin/microvm", append([]string{"--firecracker", s.firecracker.Path, "--state-dir", state}, args...)...)
		cmd.Env = append(environment(), "MICROVM_GUEST_DIR="+s.guest)
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it undoes what it has begun
		cmd.WaitDelay = 30 * time.Second
		out, err := cmd.CombinedOutput()
		text := strings.TrimSpace(string(out))
		if err != nil {
			err = fmt.Errorf("microvm %s: %w: %s", strings.Join(args, " "), err, text)
		}
		return text, err
	}
	if _, err := microvm(ctx, "create", "trial"); err != nil {
		return "", errors.Join(err, os.RemoveAll(state))
	}
	// A guest that spins must not outlive us, whoever interrupts us.
	defer func() {
		_, gone := microvm(context.WithoutCancel(ctx), "destroy", "trial")
		if gone == nil {
			gone = os.RemoveAll(state)
		}
		err = errors.Join(err, gone)
	}()
	if _, err := microvm(ctx, "start", "trial"); err != nil {
		return "", err
	}
	_, trialErr := microvm(ctx, "wait", "--console", "^GUEST-READY", "--timeout", trial.String(), "trial")
	if trialErr == nil {
		s.say("an ordinary Linux kernel boots here")
		return "", nil
	}
	if ctx.Err() != nil {
		return "", trialErr
	}
	log, err := microvm(ctx, "logs", "trial")
	if err != nil {
		return "", err
	}
	said := "its console stayed empty"
	if log != "" {
		lines := strings.Split(log, "\n")
		said = fmt.Sprintf("the last line on its console is %q", lines[len(lines)-1])
	}
	return fmt.Sprintf("an ordinary Linux kernel does not boot on this KVM (%s): tried for %v, %s; step 3 has a host for it", s.kvm.kind, trial, said), nil
}

// goTest runs go test and counts.
func (s *session) goTest(ctx context.Context, t *tally, env []string, args ...string) error {
	args = append([]string{"test", "-json", "-count=1", "-timeout", s.bound.String()}, args...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(append(environment(), realVariable+"="+s.firecracker.Path), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it ends its children
	cmd.WaitDelay = 30 * time.Second
	cmd.Stderr = s.out
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	readErr := t.read(out, s.out, s.verbose)
	err = cmd.Wait()
	switch {
	case readErr != nil:
		return fmt.Errorf("read the tests' output: %w", readErr)
	case err != nil && len(t.failed) == 0:
		return fmt.Errorf("go %s: %w", strings.Join(args, " "), errors.Join(ctx.Err(), err))
	}
	return nil
}

// environment is ours without the user's settings, which must not reach tests.
func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MICROVM_") && !strings.HasPrefix(v, "FCEMU_") {
			env = append(env, v)
		}
	}
	return env
}

// buildAgent makes the program that answers on vsock in the guest.
func (s *session) buildAgent(ctx context.Context) (string, error) {
	if err := os.MkdirAll(s.work, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(s.work, "vsockagent")
	return path, build(ctx, "build", "-ldflags=-s -w", "-o", path, "./fcemu/qemuengine/testdata/vsockagent")
}
