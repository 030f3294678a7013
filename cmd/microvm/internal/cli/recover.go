package cli

import (
	"context"
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
	var o firecracker.RecoverOptions
	cmd := &cobra.Command{
		Use:   "recover",
		Short: "Mend what a crash has left, and say what can't be mended",
		Long: `Finish or take back what was cut off by a crash, and say which VMs run, which
another program is working on, and which can't be used and why. Every command
does the mending at its start; this one tells what it has found and done. Records
that can't be read are left where they are. The exit code is 1 when something is
left that needs you.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
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
	if len(r.SetAside) > 0 {
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
