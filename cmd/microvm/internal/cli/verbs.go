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

// atOnce is how many VMs one command works on at a time.
const atOnce = 8

func (a *app) startCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "start ID...",
		Short:             "Start VMs, or let stopped ones go on",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeVMs(microvm.StatusCreated, microvm.StatusStopped),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(rt runtime) error {
				return a.onEach(cmd.Context(), rt, "starting", args, func(ctx context.Context, id string) error {
					if err := rt.StartVM(ctx, id); err != nil {
						return err
					}
					view, err := rt.GetVM(ctx, id)
					if err != nil {
						return err
					}
					a.sayEmulator(view)
					return nil
				})
			})
		},
	}
}

// modeStopper is a runtime that can stop a VM in another way than its spec has.
type modeStopper interface {
	StopVMMode(ctx context.Context, id string, mode microvm.StopMode) error
}

func (a *app) stopCommand() *cobra.Command {
	var mode string
	cmd := &cobra.Command{
		Use:   "stop [--mode MODE] ID...",
		Short: "Stop running VMs",
		Long: `Stop running VMs, each as its spec says, or all in the given mode:

  pause      the vCPUs stop and memory stays; start resumes in milliseconds
  hibernate  memory goes to disk and the process ends; start restores it
  shutdown   the guest is asked to shut down, then made to; start boots anew`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeVMs(microvm.StatusRunning),
		RunE: func(cmd *cobra.Command, args []string) error {
			m := microvm.StopMode(mode)
			modes := []microvm.StopMode{"", microvm.StopModePause, microvm.StopModeHibernate, microvm.StopModeShutdown}
			if !slices.Contains(modes, m) {
				return &usageError{fmt.Errorf("--mode %q: one of pause, hibernate, shutdown", mode)}
			}
			return a.with(cmd.Context(), func(rt runtime) error {
				if m == "" {
					return a.onEach(cmd.Context(), rt, "stopping", args, rt.StopVM)
				}
				stopper, err := need[modeStopper](rt, "stop mode by call")
				if err != nil {
					return err
				}
				return a.onEach(cmd.Context(), rt, "stopping", args, func(ctx context.Context, id string) error {
					return stopper.StopVMMode(ctx, id, m)
				})
			})
		},
	}
	cmd.Flags().StringVar(&mode, "mode", "", "pause, hibernate or shutdown (default: as the VM's spec says)")
	return cmd
}

func (a *app) destroyCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "destroy ID...",
		Aliases: []string{"rm"},
		Short:   "End VMs and release everything that they hold",
		Long: `End VMs, running or not, and release everything that they hold. Snapshots stay,
and so do the VMs' names, until "microvm prune".`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeVMs(microvm.StatusCreated, microvm.StatusRunning, microvm.StatusStopped),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(rt runtime) error {
				return a.onEach(cmd.Context(), rt, "destroying", args, rt.DestroyVM)
			})
		},
	}
}

func (a *app) renameCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rename OLD NEW",
		Short:             "Give a VM another id; the guest does not notice",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeVMs(microvm.StatusCreated, microvm.StatusRunning, microvm.StatusStopped),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(rt runtime) error {
				if err := rt.RenameVM(cmd.Context(), args[0], args[1]); err != nil {
					return err
				}
				return a.answer(cmd.Context(), rt, args[1])
			})
		},
	}
}

func (a *app) pruneCommand() *cobra.Command {
	var age time.Duration
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Forget destroyed VMs that have no snapshots",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if age < 0 {
				return &usageError{fmt.Errorf("--older-than %s: a time of 0 or more", age)}
			}
			return a.with(cmd.Context(), func(rt runtime) error {
				pruner, err := need[microvm.Pruner](rt, "prune")
				if err != nil {
					return err
				}
				ids, err := pruner.Prune(cmd.Context(), time.Now().Add(-age))
				if perr := a.printIDs(ids); err == nil {
					err = perr
				}
				return err
			})
		},
	}
	cmd.Flags().DurationVar(&age, "older-than", 0, "only those destroyed at least this long ago, such as 24h")
	return cmd
}

func (a *app) printIDs(ids []string) error {
	if a.flags.json {
		return a.printJSON(append([]string{}, ids...))
	}
	for _, id := range ids {
		if _, err := fmt.Fprintln(a.out, id); err != nil {
			return err
		}
	}
	return nil
}

// onEach carries out a verb on several VMs at once and prints those on which it
// was done, in the order of the arguments. The errors of the others are joined.
func (a *app) onEach(ctx context.Context, rt runtime, doing string, ids []string, verb func(context.Context, string) error) error {
	what := fmt.Sprintf("%s %d VMs", doing, len(ids))
	if len(ids) == 1 {
		what = fmt.Sprintf("%s VM %q", doing, ids[0])
	}
	done := a.progress("%s", what)
	errs := make([]error, len(ids))
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i, id := range ids {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = verb(ctx, id)
		})
	}
	wg.Wait()
	done()
	var views []microvm.View
	for i, id := range ids {
		switch {
		case errs[i] != nil:
		case a.flags.json:
			view, err := rt.GetVM(ctx, id)
			if err != nil {
				errs[i] = err
				continue
			}
			views = append(views, view)
		default:
			if _, err := fmt.Fprintln(a.out, id); err != nil {
				return err
			}
		}
	}
	if a.flags.json {
		if err := a.printJSON(append([]microvm.View{}, views...)); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}
