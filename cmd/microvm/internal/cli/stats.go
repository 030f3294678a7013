package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm"
)

// minInterval is how often the VMMs may be asked at most: each reading is a
// request to each of them.
const minInterval = 100 * time.Millisecond

func (a *app) statsCommand() *cobra.Command {
	var once bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "stats [--no-stream] [--interval TIME] [ID...]",
		Short: "Show what VMs use",
		Long: `Show processor time, memory, disk and network traffic of VMs: of those named, or
of all that have a process. CPU is the share of one processor in the last
interval, so 200% is two of them; bytes count from the start of the VMM, as the
guest sees them.

On a terminal the table is drawn again at each interval, elsewhere printed again.
With --json each reading of a VM is one line, with all counters of its VMM;
--no-stream --json prints one list.`,
		Example: `  microvm stats
  microvm stats --no-stream --json web`,
		ValidArgsFunction: a.completeVMs(microvm.StatusRunning),
		RunE: func(cmd *cobra.Command, args []string) error {
			if interval < minInterval {
				return &usageError{fmt.Errorf("--interval %s: %s or more", interval, minInterval)}
			}
			return a.with(cmd.Context(), func(rt runtime) error {
				reader, err := need[microvm.MetricsReader](rt, "metrics")
				if err != nil {
					return err
				}
				s := &stats{app: a, rt: rt, reader: reader, ids: args, last: map[string]reading{}}
				return s.run(cmd.Context(), interval, once)
			})
		},
	}
	cmd.Flags().BoolVar(&once, "no-stream", false, "show one table and end; it takes one interval")
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "time between two readings")
	return cmd
}

// stats is one call of the command.
type stats struct {
	app    *app
	rt     runtime
	reader microvm.MetricsReader
	ids    []string // empty: all
	last   map[string]reading
}

// reading is what was read of one VM.
type reading struct {
	ID string `json:"id"`
	microvm.Metrics
	err error
	cpu string // share in the last interval
}

func (s *stats) run(ctx context.Context, interval time.Duration, once bool) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for first := true; ; first = false {
		list, err := s.read(ctx)
		if err != nil {
			return err
		}
		if first {
			// What is asked for by name must be there at the beginning.
			if err := named(s.ids, list); err != nil {
				return err
			}
		}
		list = slices.DeleteFunc(list, func(r reading) bool { return isGone(r.err) })
		if len(s.ids) > 0 && len(list) == 0 {
			return nil // they have all ended
		}
		// The share of a processor needs two readings.
		if table := !s.app.flags.json; !table || !once || !first {
			if err := s.show(list, once, table); err != nil {
				return err
			}
			if once {
				return errors.Join(failures(list)...)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// isGone says that a VM has no process any more, or is no more.
func isGone(err error) bool {
	return errors.Is(err, microvm.ErrInvalidTransition) || errors.Is(err, microvm.ErrVMNotFound)
}

func named(ids []string, list []reading) error {
	if len(ids) == 0 {
		return nil
	}
	var errs []error
	for _, r := range list {
		if isGone(r.err) || errors.Is(r.err, microvm.ErrInvalidSpec) {
			errs = append(errs, r.err)
		}
	}
	return errors.Join(errs...)
}

func failures(list []reading) (errs []error) {
	for _, r := range list {
		if r.err != nil {
			errs = append(errs, r.err)
		}
	}
	return errs
}

// read reads all VMs, up to atOnce of them at a time.
func (s *stats) read(ctx context.Context) ([]reading, error) {
	ids := s.ids
	if len(ids) == 0 {
		views, err := s.rt.ListVMs(ctx)
		if err != nil {
			return nil, err
		}
		for _, v := range views {
			if v.PID != 0 {
				ids = append(ids, v.ID)
			}
		}
	}
	list := make([]reading, len(ids))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, id := range ids {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			m, err := s.reader.ReadMetrics(ctx, id)
			list[i] = reading{ID: id, Metrics: m, err: err}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	now := map[string]reading{}
	for i := range list {
		r := &list[i]
		r.cpu = share(s.last[r.ID], *r)
		now[r.ID] = *r
	}
	s.last = now
	return list, nil
}

// share is which part of one processor was used between two readings.
func share(before, now reading) string {
	passed := now.Time.Sub(before.Time)
	if now.err != nil || before.Run != now.Run || before.Time.IsZero() || passed <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(now.CPUTime-before.CPUTime)/float64(passed))
}

func (s *stats) show(list []reading, once, table bool) error {
	a := s.app
	if !table {
		good := slices.DeleteFunc(slices.Clone(list), func(r reading) bool { return r.err != nil })
		if once {
			return a.printJSON(good)
		}
		for _, r := range good {
			if err := a.printLine(r); err != nil {
				return err
			}
		}
		for _, err := range failures(list) {
			a.warn("%v", err)
		}
		return nil
	}
	rows := [][]cell{header("ID", "CPU", "MEMORY", "DISK READ", "DISK WRITTEN", "NET IN", "NET OUT", "NOTE")}
	for _, r := range list {
		rows = append(rows, r.row())
	}
	if a.tty.out && !once {
		if _, err := fmt.Fprint(a.out, "\x1b[H\x1b[2J"); err != nil {
			return err
		}
	}
	return a.tty.table(a.out, rows)
}

func (r reading) row() []cell {
	if r.err != nil {
		row := plain(r.ID, "-", "-", "-", "-", "-", "-", r.err.Error())
		row[7].sgr = red
		return row
	}
	traffic := func(n uint64) string {
		if r.CountersAt.IsZero() {
			return "-"
		}
		return size(int64(min(n, 1<<62)))
	}
	row := plain(r.ID, r.cpu, size(r.ResidentBytes), traffic(r.Block.ReadBytes), traffic(r.Block.WriteBytes),
		traffic(r.Net.ReadBytes), traffic(r.Net.WriteBytes), r.Trouble)
	row[7].sgr = yellow
	return row
}
