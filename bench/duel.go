package main

import (
	"context"
	"fmt"
	"io"
	"time"
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
			up, err := c.up(ctx, at)
			if err != nil {
				return fmt.Errorf("%s: create and start %d: %w", c.name(), at, err)
			}
			down, err := c.down(ctx)
			if err != nil {
				return fmt.Errorf("%s: stop and destroy %d: %w", c.name(), at, err)
			}
			if round >= 0 {
				s.time(at, up, "CreateStart", "at", at, "by", c.name())
				s.time(at, down, "StopDestroy", "at", at, "by", c.name())
			}
			time.Sleep(settle)
		}
	}
	return nil
}
