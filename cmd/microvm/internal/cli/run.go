package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm"
)

// cleanupTime bounds what a command does after its context has ended.
const cleanupTime = 30 * time.Second

type runOptions struct {
	remove bool
	detach bool
}

func (a *app) runCommand() *cobra.Command {
	var (
		f specFlags
		o runOptions
	)
	cmd := &cobra.Command{
		Use:   "run [flags] [ID]",
		Short: "Make a VM, start it and follow its console",
		Long: `Make a VM, start it and follow its console until it ends. Without ID one is
made up; without any flag the installed guest is run.

Ctrl-C shuts the VM down (with --rm, destroys it) and touches no other. With
--console-input the terminal is the guest's: Ctrl-C goes to the guest, and
Ctrl-] ends the run. A run that could not start its VM leaves nothing behind.

The exit code is 0 when the guest ended by itself, 1 when its VMM failed or was
killed. Firecracker does not tell a panic from a clean end: the console does.`,
		Example: `  microvm run
  microvm run --rm --memory 256 -i
  microvm run -d web -f web.json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.detach && (o.remove || f.consoleInput) {
				return &usageError{errors.New("--detach goes with neither --rm nor --console-input: nobody would be there")}
			}
			spec, id, err := a.specAndID(&f, args)
			if err != nil {
				return err
			}
			if spec.StopMode == "" {
				spec.StopMode = microvm.StopModeShutdown
			}
			a.serveNetworks = !o.detach
			return a.with(cmd.Context(), func(rt runtime) error { return a.runVM(cmd.Context(), rt, id, spec, o) })
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().BoolVar(&o.remove, "rm", false, "destroy the VM when it ends")
	cmd.Flags().BoolVarP(&o.detach, "detach", "d", false, "print the id and leave the VM running")
	return cmd
}

func (a *app) runVM(ctx context.Context, rt runtime, id string, spec microvm.Spec, o runOptions) (err error) {
	console, err := need[microvm.ConsoleReader](rt, "console")
	if err != nil {
		return err
	}
	if err := a.createVM(ctx, rt, id, spec); err != nil {
		return err
	}
	if err := a.startVM(ctx, rt, id); err != nil {
		// What never ran has nothing to be kept for.
		return errors.Join(err, a.cleanUp(ctx, "destroying", id, rt.DestroyVM))
	}
	if o.detach {
		return a.answerNew(ctx, rt, id)
	}
	a.sayVMM(ctx, rt, id)
	if spec.Console != nil && spec.Console.Input {
		err = a.attach(ctx, rt, id, -1)
	} else {
		out := &printableWriter{w: a.out}
		err = errors.Join(a.follow(ctx, console, id, -1, out), out.Flush())
	}
	return a.endRun(ctx, rt, id, o, err)
}

func (a *app) startVM(ctx context.Context, rt runtime, id string) error {
	defer a.progress("starting VM %q", id)()
	return rt.StartVM(ctx, id)
}

// sayVMM says what the guest runs in, emulators loudly.
func (a *app) sayVMM(ctx context.Context, rt runtime, id string) {
	view, err := rt.GetVM(ctx, id)
	if err != nil {
		return // the follower will meet the same error and report it
	}
	if isEmulator(view) {
		a.sayEmulator(view)
		return
	}
	a.note("VM %q runs in %s %s", id, view.VMM, view.VMMVersion)
}

// endRun ends the run's own VM, when it has not ended itself, and says why it
// stopped.
func (a *app) endRun(ctx context.Context, rt runtime, id string, o runOptions, failed error) error {
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	view, err := rt.GetVM(clean, id)
	if errors.Is(err, microvm.ErrVMNotFound) || err == nil && view.Status == microvm.StatusDestroyed {
		return failed // somebody else was quicker
	}
	if err != nil {
		return errors.Join(failed, err)
	}
	if view.Status == microvm.StatusRunning && !o.remove {
		if err := a.cleanUp(ctx, "shutting down", id, rt.StopVM); err != nil {
			return errors.Join(failed, err)
		}
		if view, err = rt.GetVM(clean, id); err != nil {
			return errors.Join(failed, err)
		}
	}
	if o.remove {
		if err := a.cleanUp(ctx, "destroying", id, rt.DestroyVM); err != nil {
			return errors.Join(failed, err)
		}
	}
	if view.StopReason != nil {
		a.note("VM %q stopped: %s", id, printableLine(view.StopReason.String()))
	}
	switch r := view.StopReason; {
	case failed != nil || ctx.Err() != nil:
		return errors.Join(failed, ctx.Err())
	case r != nil && r.Cause != microvm.StopVMMDied && (r.ExitCode == nil || *r.ExitCode == 0):
		return nil
	case r != nil:
		return &codeError{code: exitFailure}
	}
	return nil
}

// cleanUp carries out a verb although ctx may have ended.
func (a *app) cleanUp(ctx context.Context, doing, id string, verb func(context.Context, string) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	defer a.progress("%s VM %q", doing, id)()
	return verb(ctx, id)
}

// follow copies a guest's console to w until the VM or ctx ends.
func (a *app) follow(ctx context.Context, console microvm.ConsoleReader, id string, lines int, w io.Writer) error {
	r, err := console.FollowConsole(ctx, id, lines)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("follow the console of VM %q: %w", id, err)
	}
	return nil
}
