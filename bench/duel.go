package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// contender makes VMs run and ends them again. It takes its own time, so that
// what it needs besides (new names, sweeping up) costs it nothing.
type contender interface {
	name() string
	// up makes n VMs run at once; VMs that run are none before.
	up(ctx context.Context, n int) (time.Duration, error)
	// down ends all of them and leaves nothing behind.
	down(ctx context.Context) (time.Duration, error)
	close() error
}

// settle is how long the machine may rest between two turns: the kernel gives a
// dead VM's memory back behind our back.
const settle = 10 * time.Millisecond

// duel lets the contenders take turns, so that a machine that becomes faster or
// slower does so for all of them. Each round another one begins.
func duel(ctx context.Context, cs []contender, at, rounds int, s *samples, log io.Writer) error {
	if rounds < 1 {
		return nil
	}
	fmt.Fprintf(log, "bench: %d at a time, %d rounds of %d contenders\n", at, rounds, len(cs))
	for round := -1; round < rounds; round++ { // the first warms up
		for turn := range cs {
			c := cs[(turn+max(round, 0))%len(cs)]
			began := ownCPU()
			up, err := c.up(ctx, at)
			upCPU := ownCPU() - began
			if err != nil {
				return fmt.Errorf("%s: create and start %d: %w", c.name(), at, err)
			}
			began = ownCPU()
			down, err := c.down(ctx)
			downCPU := ownCPU() - began
			if err != nil {
				return fmt.Errorf("%s: stop and destroy %d: %w", c.name(), at, err)
			}
			if round >= 0 {
				s.add(outcome("CreateStart", at, c.name(), up, upCPU))
				s.add(outcome("StopDestroy", at, c.name(), down, downCPU))
			}
			time.Sleep(settle)
		}
	}
	return nil
}

// outcome is the sample of one turn: its time, and how long this program (not the
// VMMs, not the peer) has kept a CPU busy for it.
func outcome(what string, at int, by string, took, cpu time.Duration) sample {
	n := float64(at)
	return sample{title(what, "at", at, "by", by), at, []value{{float64(took.Nanoseconds()) / n, "ns/op"}, {float64(cpu.Nanoseconds()) / n, "cpu-ns/op"}}}
}

func ownCPU() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
