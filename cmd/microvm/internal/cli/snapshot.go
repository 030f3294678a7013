package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm"
)

func (a *app) snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "snapshot",
		Aliases: []string{"snap"},
		Short:   "Make, list and delete snapshots",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.snapshotCreateCommand(), a.snapshotListCommand(), a.snapshotInspectCommand(), a.snapshotRemoveCommand())
	return cmd
}

func (a *app) snapshotCreateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "create ID NAME",
		Short: "Make a snapshot of a VM",
		Long: `Make a snapshot of a VM. A running guest stands still for it and goes on; that
of a VM that was never started is cold: its spec and disks, no memory.`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeVMs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(rt runtime) error {
				done := a.progress("taking snapshot %q of VM %q", args[1], args[0])
				err := rt.SnapshotVM(cmd.Context(), args[0], args[1])
				done()
				if err != nil {
					return err
				}
				if !a.flags.json {
					_, err := fmt.Fprintln(a.out, args[1])
					return err
				}
				return a.printSnapshot(cmd.Context(), rt, args[0], args[1])
			})
		},
	}
}

func (a *app) snapshotListCommand() *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:               "ls [ID...]",
		Aliases:           []string{"list"},
		Short:             "List snapshots, of all VMs or of some",
		ValidArgsFunction: a.completeVMs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(rt runtime) error { return a.listSnapshots(cmd.Context(), rt, args, quiet) })
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print names only, as VM/NAME")
	return cmd
}

func (a *app) listSnapshots(ctx context.Context, rt runtime, ids []string, quiet bool) error {
	manager, err := need[microvm.SnapshotManager](rt, "description of snapshots")
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		views, err := rt.ListVMs(ctx)
		if err != nil {
			return err
		}
		for _, v := range views {
			ids = append(ids, v.ID)
		}
	}
	infos := []microvm.SnapshotInfo{}
	var faults []error
	for _, id := range ids {
		names, err := rt.ListSnapshots(ctx, id)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		for _, name := range names {
			info, err := manager.GetSnapshot(ctx, id, name)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			infos = append(infos, info)
		}
	}
	return errors.Join(append([]error{a.printSnapshots(infos, quiet)}, faults...)...)
}

func (a *app) printSnapshots(infos []microvm.SnapshotInfo, quiet bool) error {
	if quiet {
		names := make([]string, len(infos))
		for i, s := range infos {
			names[i] = s.VMID + "/" + s.Name
		}
		return a.printIDs(names)
	}
	if a.flags.json {
		return a.printJSON(infos)
	}
	rows := [][]cell{header("VM", "SNAPSHOT", "MADE", "KIND", "MEMORY", "ON DISK", "PAUSE")}
	now := time.Now()
	for _, s := range infos {
		kind, pause := "memory", s.Pause.Round(100*time.Microsecond).String()
		if s.Cold {
			kind = "cold"
		}
		if s.Pause == 0 {
			pause = "-"
		}
		rows = append(rows, plain(s.VMID, s.Name, ago(s.CreatedAt, now), kind, size(s.MemoryBytes), size(s.DiskBytes), pause))
	}
	return a.tty.table(a.out, rows)
}

func (a *app) snapshotInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "inspect ID NAME",
		Short:             "Describe a snapshot",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeSnapshots,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(rt runtime) error {
				return a.printSnapshot(cmd.Context(), rt, args[0], args[1])
			})
		},
	}
}

func (a *app) printSnapshot(ctx context.Context, rt runtime, id, name string) error {
	manager, err := need[microvm.SnapshotManager](rt, "description of snapshots")
	if err != nil {
		return err
	}
	s, err := manager.GetSnapshot(ctx, id, name)
	if err != nil {
		return err
	}
	if a.flags.json {
		return a.printJSON(s)
	}
	kind := "memory and disks"
	if s.Cold {
		kind = "cold: spec and disks"
	}
	rows := [][]cell{
		plain("vm", s.VMID),
		plain("snapshot", s.Name),
		plain("made", fmt.Sprintf("%s (%s)", s.CreatedAt.Local().Format(time.RFC3339), ago(s.CreatedAt, time.Now()))),
		plain("kind", kind),
		plain("vmm", strings.TrimSpace(s.VMM+" "+s.VMMVersion)),
		plain("format", s.Format),
		plain("memory", size(s.MemoryBytes)),
		plain("on disk", size(s.DiskBytes)),
		plain("pause", s.Pause.String()),
	}
	for _, row := range rows {
		row[0].sgr = bold
	}
	return a.tty.table(a.out, rows)
}

func (a *app) snapshotRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm ID NAME...",
		Aliases:           []string{"delete"},
		Short:             "Delete snapshots; VMs restored from them go on",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completeSnapshots,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(rt runtime) error {
				manager, err := need[microvm.SnapshotManager](rt, "deletion of snapshots")
				if err != nil {
					return err
				}
				var faults []error
				var gone []string
				for _, name := range args[1:] {
					if err := manager.DeleteSnapshot(cmd.Context(), args[0], name); err != nil {
						faults = append(faults, err)
						continue
					}
					gone = append(gone, name)
				}
				return errors.Join(append(faults, a.printIDs(gone))...)
			})
		},
	}
}

func (a *app) restoreCommand() *cobra.Command {
	var (
		paused    bool
		taps      []string
		net       netFlags
		vsockPath string
		stopMode  string
		input     bool
		labels    []string
	)
	cmd := &cobra.Command{
		Use:   "restore VM SNAPSHOT [NEW-ID]",
		Short: "Make a new VM from a snapshot",
		Long: `Make a new VM from a snapshot of VM, which may be destroyed meanwhile. It goes
on from the moment of the snapshot; with --paused it waits for "microvm start".
The VM of a cold snapshot is created, not running. Any number of VMs can be
made from one snapshot, at once too.

A VM whose original had a managed network gets one of its own, with the same
policy and no published ports; the network flags give it others.`,
		Example: `  microvm restore web warm web-2
  microvm restore --tap eth0=tap7 web warm web-3`,
		Args:              cobra.RangeArgs(2, 3),
		ValidArgsFunction: a.completeSnapshots,
		RunE: func(cmd *cobra.Command, args []string) error {
			id := newID()
			if len(args) == 3 {
				id = args[2]
			}
			from := &microvm.RestoreFrom{VMID: args[0], SnapshotID: args[1], ResumeImmediately: !paused, VsockPath: vsockPath}
			for _, n := range taps {
				iface, tap, ok := strings.Cut(n, "=")
				if !ok {
					return flagFault("--tap", n, "INTERFACE=TAP")
				}
				from.NetworkOverrides = append(from.NetworkOverrides, microvm.NetworkOverride{InterfaceID: iface, HostDevName: tap})
			}
			spec := microvm.Spec{RestoreFrom: from, StopMode: microvm.StopMode(stopMode)}
			if input {
				spec.Console = &microvm.Console{Input: true}
			}
			if err := addLabels(&spec, labels); err != nil {
				return err
			}
			faults := net.apply(cmd.Flags(), &spec.Network)
			if err := errors.Join(append(faults, microvm.ValidateID(id), spec.Validate())...); err != nil {
				return err
			}
			return a.with(cmd.Context(), func(rt runtime) error {
				done := a.progress("restoring VM %q", id)
				err := rt.CreateVMWithSpec(cmd.Context(), id, spec)
				done()
				if err != nil {
					return err
				}
				return a.answerNew(cmd.Context(), rt, id)
			})
		},
	}
	set := cmd.Flags()
	net.register(set)
	set.BoolVar(&paused, "paused", false, "leave the new VM paused until it is started")
	set.StringArrayVar(&taps, "tap", nil, "put an interface on another TAP: INTERFACE=TAP (repeatable; Firecracker since 1.12)")
	set.StringVar(&vsockPath, "vsock-path", "", "host side of the vsock, when the snapshotted VM had a path of its own (Firecracker since 1.16)")
	set.StringVar(&stopMode, "stop-mode", "", "what stop does: pause, hibernate or shutdown")
	set.BoolVarP(&input, "console-input", "i", false, "let the serial console accept input")
	set.StringArrayVar(&labels, "label", nil, "label KEY=VALUE (repeatable)")
	return cmd
}

// completeSnapshots offers ids of VMs, then the names of that VM's snapshots.
func (a *app) completeSnapshots(cmd *cobra.Command, args []string, prefix string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return a.completeVMs()(cmd, args, prefix)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	var names []cobra.Completion
	err := a.with(ctx, func(rt runtime) (err error) {
		names, err = rt.ListSnapshots(ctx, args[0])
		return err
	})
	if err != nil || len(args) > 1 && cmd.Name() != "rm" {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
