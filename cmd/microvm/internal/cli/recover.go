package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm/firecracker"
)

// recoverer is a runtime that can mend what a crash has left.
type recoverer interface {
	Recover(ctx context.Context, o firecracker.RecoverOptions) (firecracker.Report, error)
}

func (a *app) recoverCommand() *cobra.Command {
	o := firecracker.RecoverOptions{Repairs: firecracker.DefaultRepairs}
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Mend what a crash has left, and say what can't be mended",
		Long: `Finish or take back what was cut off by a crash, and say which VMs run, which
another program is working on, and which can't be used and why. Every command
does the mending at its start; this one tells what it has found and done. Records
that can't be read are left where they are. Of destructive repairs (taking back a
creation, finishing a destroy, ending a VMM that no record names) one run makes at
most --max; the others are left to the next run. The exit code is 1 when something
is left that needs you.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Repairs == 0 {
				return &usageError{errors.New("--max 0: give 1 or more, or -1 for any number; --dry-run changes nothing")}
			}
			a.noRecovery = true // at the start: it would leave nothing to tell
			return a.with(cmd.Context(), func(rt runtime) error {
				r, err := need[recoverer](rt, "recovery")
				if err != nil {
					return err
				}
				report, err := r.Recover(cmd.Context(), o)
				if err != nil {
					return err
				}
				return a.printRecovery(report)
			})
		},
	}
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "tell what would be done, and change nothing")
	cmd.Flags().IntVar(&o.Repairs, "max", o.Repairs, "destructive repairs that may be made; -1: any number")
	return cmd
}

func (a *app) printRecovery(r firecracker.Report) error {
	if a.flags.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
	} else if err := a.printRecoveryText(r); err != nil {
		return err
	}
	if len(r.SetAside)+len(r.Deferred) > 0 {
		return &codeError{code: exitFailure}
	}
	return nil
}

func (a *app) printRecoveryText(r firecracker.Report) error {
	var b strings.Builder
	for _, part := range []struct {
		what string
		ids  []string
	}{
		{"running", r.Adopted},
		{"finished", r.Finished},
		{"taken back", r.RolledBack},
		{"in another program's hands", r.Busy},
		{"left to the next run (--max)", r.Deferred},
	} {
		if len(part.ids) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", part.what, printableLine(strings.Join(part.ids, " ")))
		}
	}
	for _, s := range r.SetAside {
		fmt.Fprintf(&b, "can't be used: %s: %s\n", printableLine(s.Path), printableLine(s.Err))
	}
	if b.Len() == 0 {
		b.WriteString("nothing to recover\n")
	}
	_, err := fmt.Fprint(a.out, b.String())
	return err
}
