//go:build linux

// Program testreal is "make test-real": it runs the tests against a real
// Firecracker, in three steps, and says what each ran on.
//
//	tiny    a guest of a few hundred bytes, on any /dev/kvm that opens
//	linux   Linux guests, where KVM can boot Linux
//	nested  Linux guests, elsewhere: in a Linux host of its own under QEMU
//
// It exits with 0 if no test failed and at least one step ran, with 1 if not, and
// with 2 if it was called wrongly.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/vmm"
)

func main() {
	// QEMU dies with the thread that started it, and the main one lives longest.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout))
}

// session is one run.
type session struct {
	out         io.Writer
	verbose     bool
	firecracker vmm.Binary
	guest       string // folder with vmlinux, initrd, rootfs.ext4, linux-image.deb
	work        string // folder for what is made here
	bound       time.Duration
	pattern     string // of tests with Linux guests; empty: each step's own
	kvm         kvm
	linuxRan    bool
}

// step is one of the three. Its run returns why it did not run, in a sentence, or
// nothing.
type step struct {
	name, title string
	run         func(*session, context.Context, *tally) (notRun string, err error)
}

var steps = []step{
	{"tiny", "tiny guest on /dev/kvm", (*session).tiny},
	{"linux", "Linux guest on /dev/kvm", (*session).linux},
	{"nested", "Linux guest in a nested host", (*session).nested},
}

func run(ctx context.Context, args []string, out io.Writer) int {
	s := &session{out: out}
	flags := flag.NewFlagSet("testreal", flag.ContinueOnError)
	flags.SetOutput(out)
	firecracker := flags.String("firecracker", "", "the firecracker binary")
	jailer := flags.String("jailer", "", "the jailer binary")
	wanted := flags.String("steps", "tiny linux nested", "which steps to run")
	flags.StringVar(&s.guest, "guest", "build/guest", "folder with the guest's kernel, initrd and disk")
	flags.StringVar(&s.work, "work", "build/real", "folder for the nested host")
	flags.DurationVar(&s.bound, "bound", 40*time.Minute, "time that each step may take")
	flags.StringVar(&s.pattern, "run", "", "which tests of ./firecracker to run with Linux guests (default: see docs/testing.md)")
	flags.BoolVar(&s.verbose, "v", false, "show the output of tests that pass, too")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	names := strings.Fields(*wanted)
	for _, n := range names {
		if !slices.ContainsFunc(steps, func(s step) bool { return s.name == n }) {
			s.say("test-real: there is no step %q; the steps are tiny, linux and nested", n)
			return 2
		}
	}
	if err := s.prepare(ctx, *firecracker, *jailer); err != nil {
		s.say("test-real: %v", err)
		return 2
	}
	return s.steps(ctx, names)
}

func (s *session) say(format string, args ...any) {
	// Nobody can be told that standard output is gone.
	_, _ = fmt.Fprintf(s.out, format+"\n", args...)
}

// prepare looks at the machine and says what it sees.
func (s *session) prepare(ctx context.Context, firecracker, jailer string) error {
	if firecracker == "" {
		return errors.New("which firecracker? Call it as  make test-real FIRECRACKER=/path/to/firecracker [JAILER=/path/to/jailer]")
	}
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("the tiny guest and the nested host are for amd64; this machine is %s", runtime.GOARCH)
	}
	b, err := probe(ctx, firecracker, "Firecracker")
	if err != nil {
		return err
	}
	if b.Emulator {
		return fmt.Errorf("%s is fcemu, the emulator (%s): these tests are for a real Firecracker; \"make test\" runs them on the emulator", b.Path, b.Version)
	}
	s.firecracker = b
	s.say("firecracker  %s: %s, snapshot format %s", b.Path, b.Version, b.SnapshotVersion)
	if jailer != "" {
		j, err := probe(ctx, jailer, "Jailer")
		if err != nil {
			return err
		}
		if j.Version != b.Version {
			return fmt.Errorf("%s is release %s, but %s is release %s: they must be of one release", j.Path, j.Version, b.Path, b.Version)
		}
		s.say("jailer       %s: %s; the provider does not use a jailer yet, so no test here does", j.Path, j.Version)
	}
	for _, dir := range []*string{&s.guest, &s.work} {
		if *dir, err = filepath.Abs(*dir); err != nil {
			return err
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	s.say("host kernel  Linux %s %s, %d CPUs", unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:]), runtime.NumCPU())
	s.kvm = probeKVM("/")
	s.say("/dev/kvm     %s", s.kvm)
	return nil
}

// probe makes the path absolute, since tests run in folders of their own.
func probe(ctx context.Context, path, name string) (vmm.Binary, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return vmm.Binary{}, err
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return vmm.Binary{}, fmt.Errorf("%s %s can't be executed: %w", strings.ToLower(name), path, err)
	}
	b, err := vmm.Probe(ctx, path)
	if err != nil {
		return b, err
	}
	if b.Name != name {
		return b, fmt.Errorf("%s says that it is a %s, not a %s", path, b.Name, name)
	}
	return b, nil
}

// steps runs them and sums up.
func (s *session) steps(ctx context.Context, names []string) int {
	var summary []string
	code, ran := 0, 0
	for i, st := range steps {
		head := fmt.Sprintf("step %d, %s", i+1, st.title)
		if !slices.Contains(names, st.name) {
			summary = append(summary, head+": not asked for")
			continue
		}
		s.say("\n== %s", head)
		var t tally
		began := time.Now()
		c, cancel := context.WithTimeout(ctx, s.bound)
		notRun, err := st.run(s, c, &t)
		cancel()
		took := time.Since(began).Round(100 * time.Millisecond)
		switch {
		case err != nil:
			code = 1
			s.say("%v", err)
			summary = append(summary, fmt.Sprintf("%s: FAILED after %v: %s; %v", head, took, t.counts(), err))
		case notRun != "":
			s.say("not run: %s", notRun)
			summary = append(summary, head+": not run: "+notRun)
		case len(t.failed) > 0 || t.passed == 0:
			code = 1
			ran++
			summary = append(summary, fmt.Sprintf("%s: FAILED: %s, in %v", head, t.counts(), took))
		default:
			ran++
			summary = append(summary, fmt.Sprintf("%s: %s, in %v", head, t.counts(), took))
		}
		summary = append(summary, t.details()...)
		if ctx.Err() != nil {
			s.say("interrupted")
			return 1
		}
	}
	s.say("\n== summary: Firecracker %s", s.firecracker.Version)
	for _, line := range summary {
		s.say("%s", line)
	}
	if ran == 0 {
		code = 1
	}
	return code
}
