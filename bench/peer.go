package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// peer is the Rust crate fctools in a program of its own, which takes orders by
// lines: see peer/src/main.rs.
type peer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// buildPeer compiles it. The error says why the peer can't take part.
func buildPeer(target string, log io.Writer) (string, error) {
	cargo, err := exec.LookPath("cargo")
	if err != nil {
		return "", fmt.Errorf("there is no cargo on PATH: install Rust (rustup.rs)")
	}
	fmt.Fprintln(log, "bench: building the peer (crate fctools) with cargo")
	cmd := exec.Command(cargo, "build", "--release", "--locked", "--quiet", "--manifest-path", "peer/Cargo.toml", "--target-dir", target)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cargo build: %w: %s (is crates.io within reach?)", err, strings.Join(strings.Fields(string(out)), " "))
	}
	return filepath.Abs(filepath.Join(target, "release", "peer"))
}

func startPeer(program string, s setting) (*peer, error) {
	dir := filepath.Join(s.dir, "peer")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	cmd := exec.Command(program, s.vmm, s.kernel, s.rootfs, s.bootArgs, strconv.Itoa(memoryMiB), dir)
	cmd.Env, cmd.Stderr = s.environ(), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &peer{cmd: cmd, in: in, out: bufio.NewReader(out)}, nil
}

func (p *peer) name() string { return "fctools" }

func (p *peer) up(_ context.Context, n int) (time.Duration, error) {
	return p.order(fmt.Sprintf("up %d", n))
}

func (p *peer) down(context.Context) (time.Duration, error) { return p.order("down") }

func (p *peer) order(order string) (time.Duration, error) {
	if _, err := fmt.Fprintln(p.in, order); err != nil {
		return 0, err
	}
	answer, err := p.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("no answer to %q: %w", order, err)
	}
	ns, ok := strings.CutPrefix(strings.TrimSpace(answer), "ok ")
	if !ok {
		return 0, fmt.Errorf("%s: %s", order, strings.TrimSpace(answer))
	}
	took, err := strconv.ParseInt(ns, 10, 64)
	return time.Duration(took), err
}

func (p *peer) close() error { return errors.Join(p.in.Close(), p.cmd.Wait()) }
