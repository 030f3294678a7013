package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm"
)

// completionTime bounds what a shell waits for.
const completionTime = 2 * time.Second

type completion = func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective)

// completeVMs offers the ids of VMs in one of the given states, or all.
func (a *app) completeVMs(states ...microvm.Status) completion {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		var ids []cobra.Completion
		err := a.with(ctx, func(rt runtime) error {
			views, err := rt.ListVMs(ctx)
			for _, v := range views {
				fits := len(states) == 0 && v.Status != microvm.StatusDestroyed || slices.Contains(states, v.Status)
				if fits && !slices.Contains(args, v.ID) {
					ids = append(ids, v.ID)
				}
			}
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return ids, cobra.ShellCompDirectiveNoFileComp
	}
}
