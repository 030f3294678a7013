//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// nested runs the tests with Linux guests in a Linux host of its own, whose CPU
// QEMU emulates, SVM included.
func (s *session) nested(ctx context.Context, t *tally) (string, error) {
	if s.linuxRan {
		return "KVM boots Linux here, and step 2 has shown more than an emulated host could (STEPS=nested runs it alone)", nil
	}
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return "", fmt.Errorf("%w (apt-get install qemu-system-x86)", err)
	}
	began := time.Now()
	h, err := s.makeHost(ctx)
	if err != nil {
		return "", fmt.Errorf("make the nested host: %w", err)
	}
	s.say("made the nested host in %v: Debian's kernel %s, disk of %d MiB", time.Since(began).Round(100*time.Millisecond), h.release, h.size>>20)
	s.say("on Firecracker %s in a Linux host under %s: 2 emulated CPUs with SVM, %d MiB; its console: %s",
		s.firecracker.Version, version(ctx, qemu), hostMemoryMiB, h.console)
	return "", s.runHost(ctx, t, qemu, h)
}

const hostMemoryMiB = 3072

// arguments are QEMU's. The first serial port is the console, the second has the
// tests' output.
func (h host) arguments() []string {
	return []string{
		"-M", "q35,hpet=on", "-accel", "tcg,thread=multi", "-cpu", "max,+svm", "-smp", "2", "-m", strconv.Itoa(hostMemoryMiB),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", h.kernel, "-initrd", h.initrd, "-append", "console=ttyS0 reboot=t panic=-1 root=/dev/vda rw",
		// The disk is thrown away: nothing on it need survive.
		"-drive", "id=root,if=none,format=raw,cache=unsafe,file=" + h.disk, "-device", "virtio-blk-pci,drive=root",
		"-serial", "file:" + h.console,
		"-chardev", "stdio,id=tests,signal=off", "-serial", "chardev:tests",
	}
}

// runHost boots the host and reads the tests' output until it powers off.
func (s *session) runHost(ctx context.Context, t *tally, qemu string, h host) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	cmd := exec.CommandContext(ctx, qemu, h.arguments()...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.WaitDelay = 10 * time.Second
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	code, err := s.convert(ctx, t, out)
	if err != nil {
		end() // nobody reads what the host says any more
	}
	if wait := cmd.Wait(); wait != nil {
		err = errors.Join(err, fmt.Errorf("qemu: %w: %s", wait, complaints.Bytes()))
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w; the last lines of the nested host's console:\n%s", err, tail(h.console, 15))
	case code != 0 && len(t.failed) == 0:
		return fmt.Errorf("the tests in the nested host ended with exit code %d", code)
	}
	return nil
}

// convert has Go's own converter turn the output of a test binary into events.
func (s *session) convert(ctx context.Context, t *tally, output io.Reader) (code int, err error) {
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", "-t", "-p", "nested")
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	cmd.Stderr = s.out
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	read := make(chan error, 1)
	go func() { read <- t.read(out, s.out, true) }()
	code, err = pass(output, in)
	return code, errors.Join(err, in.Close(), <-read, cmd.Wait())
}

// lastWord is how hostinit ends.
const lastWord = "hostinit: exit code "

// pass copies lines until hostinit's last word, and returns the exit code that it
// tells.
func pass(output io.Reader, to io.Writer) (int, error) {
	r := bufio.NewReader(output)
	code, told := 0, false
	for {
		line, err := r.ReadString('\n')
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), lastWord); ok {
			if code, err = strconv.Atoi(n); err != nil {
				return 0, fmt.Errorf("the nested host's last word is %q", line)
			}
			told = true
		} else if _, err := io.WriteString(to, line); err != nil {
			return 0, err
		}
		switch {
		case errors.Is(err, io.EOF) && told:
			return code, nil
		case errors.Is(err, io.EOF):
			return 0, errors.New("the nested host has ended before its tests had")
		case err != nil:
			return 0, fmt.Errorf("read from the nested host: %w", err)
		}
	}
}

// version is the first line of what a program says to --version.
func version(ctx context.Context, program string) string {
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return filepath.Base(program)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

// tail is the last lines of a file, or why there are none.
func tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
