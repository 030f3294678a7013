// Bench measures the provider beside a hand-written floor and a peer: see
// docs/performance.md, which is made of its samples.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
)

type options struct {
	fcemu, firecracker string
	samples, scratch   string
	peerTarget         string
	rounds, bulkRounds int
	netSweeps          int
	netRounds          int
	only, who          string
	load               string // of the machine before this run
}

func main() {
	var o options
	flag.StringVar(&o.fcemu, "fcemu", "../build/fcemu", "the emulator's `program`")
	flag.StringVar(&o.firecracker, "firecracker", "", "a real Firecracker's `program`; without it only the emulator is measured")
	flag.StringVar(&o.samples, "samples", "samples", "the `directory` for the samples")
	flag.StringVar(&o.scratch, "scratch", "", "a `directory` on the disk to measure; default the system's for temporary files")
	flag.StringVar(&o.peerTarget, "peer-target", "../build/peer", "where cargo builds the peer; empty: without the peer")
	flag.IntVar(&o.rounds, "rounds", 100, "rounds one at a time")
	flag.IntVar(&o.bulkRounds, "bulk-rounds", 10, "rounds 50 at a time")
	flag.IntVar(&o.netSweeps, "net-sweeps", 3, "how often the number of VMs with networks goes up and down")
	flag.IntVar(&o.netRounds, "net-rounds", 10, "rounds of networks at each number of VMs")
	flag.StringVar(&o.only, "only", "", "only the `section` duel, fleet, pieces or network; writes no samples")
	flag.StringVar(&o.who, "who", "", "only the `contender` provider, floor or fctools; with -only duel")
	order := flag.String("operator", "", "do what an operator's program does (used by the benchmark itself)")
	networks := flag.String("network", "", "measure networks (used by the benchmark itself)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *order != "":
		err = operate(ctx, *order, os.Stdout)
	case *networks != "":
		err = measureNetworks(ctx, *networks, os.Stdout)
	default:
		err = bench(ctx, o, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// bench measures all that this machine can run and writes the samples.
func bench(ctx context.Context, o options, log io.Writer) error {
	o.load = loadAverage()
	if o.only == "network" {
		return networksAlone(ctx, o, log)
	}
	var program string
	if o.peerTarget != "" {
		var err error
		if program, err = buildPeer(o.peerTarget, log); err != nil {
			fmt.Fprintln(log, "bench: the peer fctools is skipped:", err)
		}
	}
	for _, on := range []struct {
		name, vmm string
		emulated  bool
	}{{"null", o.fcemu, true}, {"firecracker", o.firecracker, false}} {
		if on.vmm == "" {
			fmt.Fprintln(log, "bench: a real Firecracker is skipped: give its path: make bench FIRECRACKER=path")
			continue
		}
		if err := benchOn(ctx, o, on.name, on.vmm, on.emulated, program, log); err != nil {
			return fmt.Errorf("on %s: %w", on.name, err)
		}
	}
	if o.only != "" {
		return nil
	}
	// Last: the kernel goes on ending namespaces for a while.
	return networksAlone(ctx, o, log)
}

func networksAlone(ctx context.Context, o options, log io.Writer) error {
	if err := benchNetworks(ctx, o, log); err != nil {
		return fmt.Errorf("networks: %w", err)
	}
	return nil
}

func benchOn(ctx context.Context, o options, name, vmm string, emulated bool, peerProgram string, log io.Writer) (err error) {
	path, err := exec.LookPath(vmm)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return err
	}
	dir, remove, err := scratch(o.scratch, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	set, err := newSetting(path, emulated, dir)
	if err != nil {
		return err
	}
	s := &samples{to: os.Stdout}
	if err := circumstances(s, set, name, o.load, peerProgram != ""); err != nil {
		return err
	}
	if o.only == "" || o.only == "duel" {
		if err := duels(ctx, o, set, peerProgram, s, log); err != nil {
			return err
		}
	}
	if o.only == "" || o.only == "pieces" {
		if err := pieces(dir, s); err != nil {
			return err
		}
	}
	if emulated && (o.only == "" || o.only == "fleet") {
		if err := errors.Join(queriesOfMany(ctx, set, s, log), fleets(ctx, set, s, log)); err != nil {
			return err
		}
	}
	if o.only == "" {
		return s.save(filepath.Join(o.samples, name+".txt"))
	}
	return nil
}

const inMemory = "/dev/shm"

// duels are the comparisons with the floor and the peer.
func duels(ctx context.Context, o options, set setting, peerProgram string, s *samples, log io.Writer) (err error) {
	var all []contender
	memory := "" // a state directory there
	defer func() {
		if memory != "" {
			err = errors.Join(err, os.RemoveAll(memory))
		}
	}()
	defer func() {
		for _, c := range all {
			err = errors.Join(err, c.close())
		}
	}()
	p, err := newProvider(ctx, set, "provider", filepath.Join(set.dir, "state"))
	if err != nil {
		return err
	}
	all = append(all, p, &floor{s: set})
	// The same without a disk: what is missing is what durable records cost.
	if disk(inMemory) == "tmpfs" {
		if memory, err = os.MkdirTemp(inMemory, "microvm-bench-"); err != nil {
			return err
		}
		p, err := newProvider(ctx, set, "provider-tmpfs", memory)
		if err != nil {
			return err
		}
		all = append(all, p)
	} else {
		fmt.Fprintln(log, "bench: the provider with its state in memory is skipped:", inMemory, "is no tmpfs")
	}
	if peerProgram != "" {
		rust, err := startPeer(peerProgram, set)
		if err != nil {
			return err
		}
		all = append(all, rust)
	}
	cs := all
	if o.who != "" {
		cs = slices.DeleteFunc(slices.Clone(cs), func(c contender) bool { return c.name() != o.who })
	}
	if err := duel(ctx, cs, 1, o.rounds, s, log); err != nil {
		return err
	}
	return duel(ctx, cs, 50, o.bulkRounds, s, log)
}
