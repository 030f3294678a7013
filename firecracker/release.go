package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/vmm"
)

// release is what a VMM says that it is.
type release struct {
	fcapi.Version
	name string // "firecracker" or "fcemu"
	text string // the version as the VMM writes it
	// format is that of the snapshots that it writes; zero where nobody knows.
	format fcapi.Version
	// sound says that it has none of the defects of that Firecracker: it is an
	// emulator.
	sound bool
}

func (l release) String() string { return l.name + " " + l.text }

// defective says whether the release has a defect.
func (l release) defective(id fcapi.DefectID) bool { return !l.sound && fcapi.HasDefect(l.Version, id) }

// writes describes it as the writer of a snapshot.
func (l release) writes() string {
	if l.format == (fcapi.Version{}) {
		return l.String()
	}
	return fmt.Sprintf("%s (snapshot format %s)", l, l.format)
}

// releaseOf understands the version that a VMM's process has answered.
func (r *Runtime) releaseOf(text string) (release, error) {
	v, err := fcapi.ParseVersion(text)
	if err != nil {
		return release{}, fmt.Errorf("%w: the VMM's version: %w", microvm.ErrUnsupported, err)
	}
	l := release{Version: v, name: nameFirecracker, text: text}
	if isEmulator(text) {
		l.name, l.sound = nameEmulator, !r.cfg.emulatedDefects
	}
	l.format, _ = fcapi.SnapshotFormat(v)
	return l, nil
}

const (
	nameFirecracker = "firecracker"
	nameEmulator    = "fcemu"
)

// writer is the release that has written a snapshot, from what was noted then.
// The format is that of the table where it was not noted.
func (r *Runtime) writer(name, text, format string) (release, error) {
	if name == "" || text == "" {
		return release{}, fmt.Errorf("%w: it is not noted which VMM has written the guest's memory, so no other can be trusted with it", microvm.ErrUnsupported)
	}
	l, err := r.releaseOf(text)
	if err != nil {
		return l, err
	}
	l.name = name
	if format != "" {
		if l.format, err = fcapi.ParseVersion(format); err != nil {
			return l, fmt.Errorf("%w: the noted snapshot format: %w", microvm.ErrHost, err)
		}
	}
	return l, nil
}

// program is the file that the next VMM is started from, and what it says of
// itself.
type program struct {
	path string
	file fileID
	release
}

// programs remembers what the VMM's file has said: a file is asked once, until
// another is put in its place.
type programs struct {
	mu     sync.Mutex
	file   fileID
	known  release
	asking *question // nil while nobody asks
}

// question is one that a file is being asked. Who comes meanwhile takes its
// answer, a failure too: a file that says nothing would keep them all waiting,
// one after the other.
type question struct {
	file     fileID
	answered chan struct{} // closed when the rest is final
	known    release
	err      error
	cut      bool // by the ctx of who asked: it says nothing about the file
}

type fileID struct {
	dev, ino uint64
	size     int64
	mtime    unix.Timespec
}

// program finds the VMM's file and asks it what it is.
func (r *Runtime) program(ctx context.Context) (program, error) {
	path, err := r.binary()
	if err != nil {
		return program{}, err
	}
	p := program{path: path}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return p, fmt.Errorf("%w: the VMM: stat %s: %w", microvm.ErrHost, path, err)
	}
	file := fileID{uint64(st.Dev), st.Ino, st.Size, st.Mtim}
	p.file = file
	all := &r.programs
	for {
		all.mu.Lock()
		if all.file == file {
			p.release = all.known
			all.mu.Unlock()
			return p, nil
		}
		q := all.asking
		if q == nil {
			break
		}
		all.mu.Unlock()
		select {
		case <-q.answered:
		case <-ctx.Done():
			return p, ctx.Err()
		}
		if q.file == file && !q.cut {
			p.release = q.known
			return p, q.err
		}
	}
	q := &question{file: file, answered: make(chan struct{})}
	all.asking = q
	all.mu.Unlock()
	q.known, q.err = r.ask(ctx, path)
	q.cut = q.err != nil && ctx.Err() != nil
	all.mu.Lock()
	defer all.mu.Unlock()
	all.asking = nil
	if q.err == nil {
		all.file, all.known = file, q.known
	}
	close(q.answered)
	p.release = q.known
	return p, q.err
}

// forget has the file asked anew: a process of it has said something else. It may
// be a script, or have been replaced by one that looks the same.
func (a *programs) forget(p program) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == p.release {
		a.file, a.known = fileID{}, release{}
	}
}

// ask runs the VMM's file for its version and its snapshot format.
func (r *Runtime) ask(ctx context.Context, path string) (release, error) {
	b, err := vmm.Probe(ctx, path, r.environ()...)
	if err != nil {
		if ctx.Err() != nil {
			return release{}, fmt.Errorf("ask the VMM for its version: %w", err)
		}
		return release{}, fmt.Errorf("%w: ask the VMM for its version: %w", microvm.ErrHost, err)
	}
	if b.SnapshotVersion == "" {
		return release{}, fmt.Errorf("%w: %s is a %s, not a VMM: name firecracker itself", microvm.ErrHost, path, b.Name)
	}
	l, err := r.releaseOf(b.Version)
	if err != nil {
		return l, fmt.Errorf("%s: %w", path, err)
	}
	// A development build knows better than the table.
	if l.format, err = fcapi.ParseVersion(b.SnapshotVersion); err != nil {
		return l, fmt.Errorf("%w: %s --snapshot-version: %w", microvm.ErrUnsupported, path, err)
	}
	return l, nil
}

// binary finds the VMM's file.
func (r *Runtime) binary() (string, error) {
	path, err := exec.LookPath(r.cfg.Binary)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", fmt.Errorf("%w: no VMM: %w: install firecracker and put it on PATH or set MICROVM_FIRECRACKER_BIN; "+
			"without KVM, MICROVM_FIRECRACKER_BIN=fcemu runs guests in the emulator", microvm.ErrHost, err)
	}
	return path, nil
}

// ready is the program that a VMM can be started from now.
func (r *Runtime) ready(ctx context.Context) (program, error) {
	p, err := r.program(ctx)
	if err == nil && p.name == nameFirecracker {
		err = checkKVM()
	}
	return p, err
}

// checkKVM says early what the VMM would say at InstanceStart only.
func checkKVM() error {
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		return unix.Close(fd)
	}
	return fmt.Errorf("%w: open /dev/kvm: %w: %s", microvm.ErrHost, err, kvmRemedy(err))
}

func kvmRemedy(err error) string {
	const orEmulate = "; without KVM, run guests in the emulator: MICROVM_FIRECRACKER_BIN=fcemu"
	if errors.Is(err, unix.EACCES) {
		return "add the user to the group kvm (usermod -aG kvm USER) and log in again" + orEmulate
	}
	return "enable virtualisation in the firmware or the hypervisor and load kvm_intel or kvm_amd" + orEmulate
}
