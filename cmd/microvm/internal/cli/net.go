package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/network"
)

// networker is a runtime whose VMs have managed networks.
type networker interface {
	microvm.EgressUpdater
	Network(ctx context.Context, id string) (network.Slot, network.Counters, error)
	CleanNetworks(ctx context.Context) (network.Report, error)
}

func (a *app) netCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "net",
		Short: "Look at VMs' networks and change what they may reach",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.netListCommand(), a.netPolicyCommand(), a.netServeCommand(), a.netCleanCommand())
	return cmd
}

// netRow is one VM of net ls.
type netRow struct {
	ID        string           `json:"id"`
	Addresses []netip.Addr     `json:"addresses"` // on the host
	Namespace string           `json:"namespace"`
	Link      string           `json:"link"` // the host's end
	Guest     netip.Prefix     `json:"guest"`
	Gateway   netip.Addr       `json:"gateway"`
	MAC       string           `json:"mac"`
	Network   microvm.Network  `json:"network"`
	Counters  network.Counters `json:"counters"`
}

func netRowOf(id string, s network.Slot, c network.Counters) netRow {
	r := netRow{id, []netip.Addr{s.Address}, s.Namespace, s.Link, s.Guest, s.Gateway, s.MAC.String(), s.Options, c}
	if s.Address6.IsValid() {
		r.Addresses = append(r.Addresses, s.Address6)
	}
	return r
}

func (a *app) netListCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "ls [ID...]",
		Aliases:           []string{"list"},
		Short:             "List the networks of VMs and what has passed them",
		ValidArgsFunction: a.completeVMs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(rt runtime) error {
				n, err := need[networker](rt, "managed networks")
				if err != nil {
					return err
				}
				views, err := rt.ListVMs(cmd.Context())
				if err != nil {
					return err
				}
				ids := args
				if len(ids) == 0 {
					for _, v := range views {
						if len(v.Addresses) > 0 {
							ids = append(ids, v.ID)
						}
					}
				}
				rows := []netRow{}
				for _, id := range ids {
					s, c, err := n.Network(cmd.Context(), id)
					if err != nil {
						if len(args) == 0 && (errors.Is(err, network.ErrNoSlot) || errors.Is(err, microvm.ErrVMNotFound)) {
							continue // it has ended meanwhile
						}
						return err
					}
					rows = append(rows, netRowOf(id, s, c))
				}
				return a.printNetworks(rows)
			})
		},
	}
}

func (a *app) printNetworks(rows []netRow) error {
	if a.flags.json {
		return a.printJSON(rows)
	}
	table := [][]cell{header("ID", "ADDRESS", "PUBLISHED", "GROUP", "SENT", "RECEIVED", "DROPPED", "FORGED")}
	for _, r := range rows {
		ports := []string{}
		for _, p := range r.Network.Publish {
			ports = append(ports, p.String())
		}
		table = append(table, plain(
			r.ID, r.Addresses[0].String(), strings.Join(ports, " "), r.Network.Group,
			size(int64(r.Counters.TxBytes)), size(int64(r.Counters.RxBytes)),
			strconv.FormatUint(r.Counters.TxDroppedPackets+r.Counters.RxDroppedPackets, 10), strconv.FormatUint(r.Counters.SpoofedPackets, 10),
		))
	}
	return a.tty.table(a.out, table)
}

func (a *app) netPolicyCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "policy ID [--set FILE]",
		Short: "Show what a VM may reach, or replace it while it runs",
		Long: `Show what a VM may reach, as JSON, or replace it by what a file says (- for
stdin). A packet meets the old policy or the new one; flows that the new one does
not allow end.`,
		Example: `  microvm net policy web
  echo '{"allow": ["1.1.1.1/32:tcp:443", "*.example.org:tcp:443"]}' | microvm net policy web --set -`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeVMs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			var policy *microvm.Egress
			if cmd.Flags().Changed("set") {
				e, err := a.readPolicy(file)
				if err != nil {
					return err
				}
				policy = &e
			}
			return a.with(cmd.Context(), func(rt runtime) error {
				n, err := need[networker](rt, "managed networks")
				if err != nil {
					return err
				}
				if policy != nil {
					if err := n.UpdateEgress(cmd.Context(), args[0], *policy); err != nil {
						return err
					}
				}
				s, _, err := n.Network(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.printJSON(s.Options.Egress)
			})
		},
	}
	cmd.Flags().StringVar(&file, "set", "", "the new policy, a JSON file or - for stdin")
	return cmd
}

// readPolicy reads a policy as strictly as a spec is read.
func (a *app) readPolicy(file string) (e microvm.Egress, err error) {
	in := io.Reader(a.in)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return e, fmt.Errorf("open the policy: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, microvm.MaxSpecBytes+1))
	if err != nil {
		return e, fmt.Errorf("read the policy: %w", err)
	}
	spec := fmt.Sprintf(`{"network":{"egress":%s}}`, b)
	if !json.Valid(b) {
		return e, fmt.Errorf("policy %s: %w", file, &microvm.FieldError{Field: "policy", Value: fmt.Sprintf("%.40q", b), Rule: "one JSON object, such as {\"allow\": [\"1.1.1.1/32:tcp:443\"]}"})
	}
	s, err := microvm.ParseSpec(strings.NewReader(spec))
	if err == nil && s.Network != nil {
		err = s.Network.Egress.Validate()
	}
	if err != nil {
		return e, fmt.Errorf("policy %s: %w", file, err)
	}
	return s.Network.Egress, nil
}

func (a *app) netServeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Resolve names for VMs until Ctrl-C",
		Long: `Resolve names for the VMs of the state directory, and log what their policies
drop where they ask for it, until Ctrl-C. "microvm run" does so for as long as it
runs, and so does a program that has the runtime open; while none does, names do
not resolve, and flows that are open go on.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.serveNetworks = true
			return a.with(cmd.Context(), func(rt runtime) error {
				<-cmd.Context().Done()
				return cmd.Context().Err()
			})
		},
	}
}

func (a *app) netCleanCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "gc",
		Short: "Remove networks that no VM has, and mend those that VMs have",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(rt runtime) error {
				n, err := need[networker](rt, "managed networks")
				if err != nil {
					return err
				}
				rep, err := n.CleanNetworks(cmd.Context())
				if err != nil {
					return err
				}
				return a.printCleaned(rep)
			})
		},
	}
}

func (a *app) printCleaned(rep network.Report) error {
	failed := []string{}
	for what, err := range rep.Failed {
		failed = append(failed, what+": "+err.Error())
	}
	slices.Sort(failed)
	if a.flags.json {
		err := a.printJSON(map[string][]string{"removed": rep.Removed, "mended": rep.Mended, "busy": rep.Busy, "failed": failed})
		if err != nil {
			return err
		}
	} else {
		for what, list := range map[string][]string{"removed": rep.Removed, "mended": rep.Mended, "in another program's hands": rep.Busy, "failed": failed} {
			for _, text := range list {
				if _, err := fmt.Fprintf(a.out, "%s: %s\n", what, printableLine(text)); err != nil {
					return err
				}
			}
		}
	}
	if len(failed) > 0 {
		return &codeError{code: exitFailure}
	}
	return nil
}
