package cli

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm"
)

func (a *app) createCommand() *cobra.Command {
	var f specFlags
	cmd := &cobra.Command{
		Use:   "create [flags] [ID]",
		Short: "Make a VM without starting it",
		Long: `Make a VM without starting it, and print its id. Without ID one is made up.

What the flags and the spec file leave out takes its default; a spec without
kernel uses the installed guest (see "Default guest" in docs/cli.md).`,
		Example: `  microvm create web --vcpus 2 --memory 512
  microvm create -f web.json --label tier=front web`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, id, err := a.specAndID(&f, args)
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(rt runtime) error {
				if err := a.createVM(cmd.Context(), rt, id, spec); err != nil {
					return err
				}
				return a.answerNew(cmd.Context(), rt, id)
			})
		},
	}
	f.register(cmd.Flags())
	return cmd
}

// specAndID makes the spec that create and run were asked for.
func (a *app) specAndID(f *specFlags, args []string) (microvm.Spec, string, error) {
	id := ""
	if len(args) > 0 {
		id = args[0]
	} else {
		id = newID()
	}
	if err := microvm.ValidateID(id); err != nil {
		return microvm.Spec{}, "", err
	}
	spec, err := f.spec(a.in)
	if err != nil {
		return microvm.Spec{}, "", err
	}
	host, err := a.hostConfig()
	if err != nil {
		return microvm.Spec{}, "", err
	}
	if host.Kernel == "" {
		spec, err = withDefaultGuest(spec, guestDirs(host.StateDir))
	}
	return spec, id, err
}

// newID makes up an id that nobody has chosen.
func newID() string { return "vm-" + rand.Text()[:8] }

func (a *app) createVM(ctx context.Context, rt runtime, id string, spec microvm.Spec) error {
	defer a.progress("creating VM %q", id)()
	return rt.CreateVMWithSpec(ctx, id, spec)
}

// answerNew is answer for a verb that has started a VMM.
func (a *app) answerNew(ctx context.Context, rt runtime, id string) error {
	view, err := rt.GetVM(ctx, id)
	if err != nil {
		return err
	}
	a.sayEmulator(view)
	return a.answer(ctx, rt, id)
}

// answer prints the VM that a verb has made or changed: its id for people, the
// whole view for programs.
func (a *app) answer(ctx context.Context, rt runtime, id string) error {
	if !a.flags.json {
		_, err := fmt.Fprintln(a.out, id)
		return err
	}
	view, err := rt.GetVM(ctx, id)
	if err != nil {
		return err
	}
	return a.printJSON(view)
}
