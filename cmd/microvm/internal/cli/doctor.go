package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm/cmd/microvm/internal/doctor"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Try what this host can do for microVMs",
		Long: `Try what this host can do for microVMs, by doing it, and give the command that
mends each thing missing. Nothing is changed on the host.

The exit code is 0 when Linux guests can run in some way, else 7.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.examine(cmd.Context())
			if err != nil {
				return err
			}
			if a.flags.json {
				err = a.printJSON(r)
			} else {
				err = a.printReport(r)
			}
			if err == nil && !r.CanRun {
				err = &codeError{code: exitHost}
			}
			return err
		},
	}
}

func (a *app) examine(ctx context.Context) (doctor.Report, error) {
	host, err := a.hostConfig()
	if err != nil {
		return doctor.Report{}, err
	}
	defer a.progress("examining this host")()
	choice, err := a.chooseVMM(&host)
	if err != nil {
		return doctor.Report{}, err
	}
	vmm := choice.path
	if path, ok := findProgram(vmm); ok {
		vmm = path
	}
	return doctor.Examine(ctx, doctor.Options{
		StateDir:  host.StateDir,
		GuestDirs: guestDirs(host.StateDir),
		Find: func(name string) (string, bool) {
			path, ok := findProgram(name)
			if helper := vsockHelper(host.StateDir); !ok && name == filepath.Base(helper) {
				return helper, true
			}
			return path, ok
		},
		VMM: vmm,
		Env: host.Env,
	}), nil
}

func (a *app) printReport(r doctor.Report) error {
	marks := map[doctor.Status][2]string{
		doctor.OK:      {"ok", green},
		doctor.Limited: {"limited", yellow},
		doctor.Missing: {"missing", red},
	}
	var b strings.Builder
	width := 0
	for _, c := range r.Checks {
		width = max(width, len(c.Name))
	}
	for _, c := range r.Checks {
		mark := marks[c.Status]
		fmt.Fprintf(&b, "%s  %-*s  %s\n", a.tty.paint(mark[1], fmt.Sprintf("%-7s", mark[0])), width, c.Name, printableLine(c.Detail))
		if c.Remedy != "" {
			fmt.Fprintf(&b, "%*s  for %s: %s\n", 7+2+width, "", c.For, c.Remedy)
		}
	}
	b.WriteByte('\n')
	if v := r.VMM; v != nil {
		kind := "Firecracker"
		if v.Emulator {
			kind = "EMULATOR of Firecracker, engine " + v.Engine
		}
		fmt.Fprintf(&b, "VMM in use: %s %s (%s)", v.Path, v.Version, kind)
		if v.SnapshotFormat != "" {
			fmt.Fprintf(&b, ", snapshot format %s", v.SnapshotFormat)
		}
		b.WriteByte('\n')
		for _, d := range v.Defects {
			mended := "in no release yet"
			if len(d.MendedIn) > 0 {
				mended = "in " + strings.Join(d.MendedIn, ", ")
			}
			fmt.Fprintf(&b, "  defect %s: %s (mended %s)\n", d.ID, d.Summary, mended)
		}
		for _, l := range v.Lacks {
			fmt.Fprintf(&b, "  lacks %s (since %s)\n", l.What, strings.Join(l.Since, ", "))
		}
	}
	sgr := green
	if !r.CanRun {
		sgr = red
	}
	fmt.Fprintln(&b, a.tty.paint(sgr, printableLine(r.Verdict)))
	if r.Remedy != "" {
		fmt.Fprintln(&b, r.Remedy)
	}
	_, err := fmt.Fprint(a.out, b.String())
	return err
}
