package vmm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Binary is what a VMM's binary says about itself.
type Binary struct {
	Path string `json:"path"`
	// Name is "Firecracker" or "Jailer".
	Name string `json:"name"`
	// Version is without the leading "v": "1.16.1", "1.17.0-dev".
	Version string `json:"version"`
	// Emulator says that this is fcemu, not a Firecracker.
	Emulator bool `json:"emulator,omitempty"`
	// SnapshotVersion is the snapshot format without the leading "v", "10.0.0";
	// empty where there is none (the jailer).
	SnapshotVersion string `json:"snapshot_version,omitempty"`
}

const (
	probeBound  = 10 * time.Second
	probeOutput = 64 << 10
)

// emulatorMark ends the version number of fcemu.
const emulatorMark = "-fcemu"

// Probe asks a binary for its version and its snapshot format, by --version and
// --snapshot-version. It runs the binary twice, for at most 10 s in all, with
// the environment env and nothing else.
func Probe(ctx context.Context, path string, env ...string) (Binary, error) {
	ctx, cancel := context.WithTimeout(ctx, probeBound)
	defer cancel()
	out, err := firstLine(ctx, path, env, "--version")
	if err != nil {
		return Binary{}, err
	}
	b, err := parseVersion(out)
	if err != nil {
		return Binary{}, fmt.Errorf("%s --version: %w", path, err)
	}
	b.Path = path
	if b.Name == "Jailer" {
		return b, nil
	}
	out, err = firstLine(ctx, path, env, "--snapshot-version")
	if err != nil {
		return Binary{}, err
	}
	v, err := parseNumber(out)
	if err != nil {
		return Binary{}, fmt.Errorf("%s --snapshot-version: %w", path, err)
	}
	b.SnapshotVersion = v
	return b, nil
}

// firstLine runs the binary. What follows the first line is Firecracker's log.
func firstLine(ctx context.Context, path string, env []string, flag string) (string, error) {
	var out, errOut bounded
	cmd := exec.CommandContext(ctx, path, flag)
	cmd.Env = append([]string{}, env...) // nil would be ours
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for a grandchild that keeps the pipe open
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
		text, _, _ := strings.Cut(strings.TrimSpace(string(errOut.b)), "\n")
		if text != "" {
			return "", fmt.Errorf("%s %s: %w: %.200q", path, flag, err, text)
		}
		return "", fmt.Errorf("%s %s: %w", path, flag, err)
	}
	line, _, _ := bytes.Cut(out.b, []byte("\n"))
	return strings.TrimRight(string(line), "\r "), nil
}

// parseVersion reads "Firecracker v1.16.1".
func parseVersion(line string) (Binary, error) {
	name, rest, _ := strings.Cut(line, " ")
	if name != "Firecracker" && name != "Jailer" {
		return Binary{}, fmt.Errorf("%.80q is not what a Firecracker or a jailer says", line)
	}
	number, _, _ := strings.Cut(rest, " ")
	v, err := parseNumber(number)
	if err != nil {
		return Binary{}, err
	}
	return Binary{Name: name, Version: v, Emulator: strings.Contains(v, emulatorMark)}, nil
}

// parseNumber reads "v1.16.1", "v1.17.0-dev" or "10.0.0", and leaves out the v.
func parseNumber(s string) (string, error) {
	v := strings.TrimPrefix(s, "v")
	number, suffix, hasSuffix := strings.Cut(v, "-")
	parts := strings.Split(number, ".")
	ok := len(v) <= 64 && len(parts) == 3 && (!hasSuffix || suffix != "")
	for _, p := range parts {
		ok = ok && p != "" && len(p) <= 9 && strings.Trim(p, "0123456789") == ""
	}
	for _, c := range suffix {
		ok = ok && (c == '.' || c == '-' || c == '+' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z')
	}
	if !ok {
		return "", fmt.Errorf("%.80q is not a version such as v1.16.1", s)
	}
	return v, nil
}

// bounded keeps the beginning of what is written to it.
type bounded struct{ b []byte }

func (w *bounded) Write(p []byte) (int, error) {
	w.b = append(w.b, p[:min(len(p), probeOutput-len(w.b))]...)
	return len(p), nil
}
