package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm"
)

type lsOptions struct {
	all   bool
	quiet bool
	watch bool
	label []string
}

func (a *app) lsCommand() *cobra.Command {
	var o lsOptions
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list", "ps"},
		Short:   "List VMs",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(rt runtime) error {
				if o.watch {
					return a.watch(cmd.Context(), rt, o)
				}
				views, err := rt.ListVMs(cmd.Context())
				if err != nil {
					return err
				}
				return a.printViews(o.filter(views), o)
			})
		},
	}
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "show destroyed VMs too")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "print ids only")
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "go on showing changes, until Ctrl-C")
	cmd.Flags().StringArrayVar(&o.label, "label", nil, "only VMs with this label: KEY or KEY=VALUE (repeatable)")
	return cmd
}

func (o lsOptions) shows(v microvm.View) bool {
	if v.Status == microvm.StatusDestroyed && !o.all {
		return false
	}
	for _, l := range o.label {
		key, want, valued := strings.Cut(l, "=")
		got, ok := v.Labels[key]
		if !ok || valued && got != want {
			return false
		}
	}
	return true
}

func (o lsOptions) filter(views []microvm.View) []microvm.View {
	shown := []microvm.View{}
	for _, v := range views {
		if o.shows(v) {
			shown = append(shown, v)
		}
	}
	return shown
}

func (a *app) printViews(views []microvm.View, o lsOptions) error {
	switch {
	case o.quiet:
		ids := make([]string, len(views))
		for i, v := range views {
			ids[i] = v.ID
		}
		return a.printIDs(ids)
	case a.flags.json:
		return a.printJSON(views)
	}
	rows := [][]cell{header("ID", "STATUS", "SINCE", "PID", "VMM", "SNAPSHOTS", "NOTE")}
	now := time.Now()
	for _, v := range views {
		rows = append(rows, viewRow(v, now))
	}
	// Where no VM has an address the column would only take room.
	if slices.ContainsFunc(views, func(v microvm.View) bool { return len(v.Addresses) > 0 }) {
		rows[0] = slices.Insert(rows[0], 3, header("ADDRESS")...)
		for i, v := range views {
			address := "-"
			if len(v.Addresses) > 0 {
				address = v.Addresses[0].String()
			}
			rows[i+1] = slices.Insert(rows[i+1], 3, plain(address)...)
		}
	}
	return a.tty.table(a.out, rows)
}

func header(names ...string) []cell {
	cells := plain(names...)
	for i := range cells {
		cells[i].sgr = bold
	}
	return cells
}

func viewRow(v microvm.View, now time.Time) []cell {
	pid := "-"
	if v.PID != 0 {
		pid = strconv.Itoa(v.PID)
	}
	vmm := "-"
	if v.VMM != "" {
		vmm = v.VMM
		if isEmulator(v) {
			vmm += " (emulator)"
		}
	}
	row := plain(v.ID, string(v.Status), ago(since(v), now), pid, vmm, strconv.Itoa(len(v.Snapshots)), remark(v))
	switch v.Status {
	case microvm.StatusRunning:
		row[1].sgr = green
	case microvm.StatusStopped:
		row[1].sgr = yellow
	}
	if v.Trouble != "" {
		row[6].sgr = red
	}
	return row
}

// since is when the VM came into its state.
func since(v microvm.View) time.Time {
	switch v.Status {
	case microvm.StatusRunning:
		return v.StartedAt
	case microvm.StatusStopped, microvm.StatusDestroyed:
		if !v.StoppedAt.IsZero() {
			return v.StoppedAt
		}
	}
	return v.CreatedAt
}

func remark(v microvm.View) string {
	switch {
	case v.Trouble != "":
		return v.Trouble
	case v.StopReason != nil && v.Status == microvm.StatusStopped:
		return v.StopReason.String()
	}
	return ""
}

// watch shows the list again at each change on a terminal, and a line for each
// change elsewhere.
func (a *app) watch(ctx context.Context, rt runtime, o lsOptions) error {
	watcher, err := need[microvm.Watcher](rt, "watch")
	if err != nil {
		return err
	}
	// First the watch, then the list: what changes in between is seen twice
	// rather than never.
	events, err := watcher.Watch(ctx)
	if err != nil {
		return err
	}
	list, err := rt.ListVMs(ctx)
	if err != nil {
		return err
	}
	views := map[string]microvm.View{}
	for _, v := range list {
		views[v.ID] = v
	}
	redraw := a.tty.out && !a.flags.json && !o.quiet
	if redraw {
		err = a.redraw(views, o)
	} else {
		for _, v := range o.filter(list) {
			if err = a.printEvent(microvm.Event{Time: time.Now(), View: v}, o); err != nil {
				break
			}
		}
	}
	for err == nil {
		ev, ok := <-events
		if !ok {
			return context.Cause(ctx)
		}
		if ev.Gone {
			delete(views, ev.View.ID)
		} else {
			views[ev.View.ID] = ev.View
		}
		switch {
		case redraw:
			err = a.redraw(views, o)
		case o.shows(ev.View) || ev.View.Status == microvm.StatusDestroyed:
			err = a.printEvent(ev, o)
		}
	}
	return err
}

func (a *app) redraw(views map[string]microvm.View, o lsOptions) error {
	list := []microvm.View{}
	for _, v := range views {
		list = append(list, v)
	}
	slices.SortFunc(list, func(x, y microvm.View) int { return cmp.Compare(x.ID, y.ID) })
	if _, err := fmt.Fprint(a.out, "\x1b[H\x1b[2J"); err != nil {
		return err
	}
	return a.printViews(o.filter(list), o)
}

func (a *app) printEvent(ev microvm.Event, o lsOptions) error {
	if a.flags.json {
		return a.printLine(ev)
	}
	if o.quiet {
		_, err := fmt.Fprintln(a.out, ev.View.ID)
		return err
	}
	status := string(ev.View.Status)
	if ev.Gone {
		status = "gone"
	}
	_, err := fmt.Fprintln(a.out, strings.TrimRight(fmt.Sprintf("%s  %s  %s  %s",
		ev.Time.Local().Format(time.TimeOnly), ev.View.ID, status, printableLine(remark(ev.View))), " "))
	return err
}

func (a *app) inspectCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect [--format TEMPLATE] ID",
		Short: "Show all that is known about a VM",
		Example: `  microvm inspect web
  microvm inspect --format '{{.PID}}' web`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeVMs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			var tmpl *template.Template
			if format != "" {
				var err error
				if tmpl, err = template.New("format").Option("missingkey=error").Parse(format); err != nil {
					return &usageError{fmt.Errorf("--format: %w", err)}
				}
			}
			return a.with(cmd.Context(), func(rt runtime) error {
				v, err := rt.GetVM(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				switch {
				case tmpl != nil:
					if err := tmpl.Execute(a.out, v); err != nil {
						return &usageError{fmt.Errorf("--format: %w", err)}
					}
					_, err := fmt.Fprintln(a.out)
					return err
				case a.flags.json:
					return a.printJSON(v)
				}
				return a.tty.table(a.out, viewDetails(v, time.Now()))
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "print this Go template over the view, such as '{{.PID}}'")
	return cmd
}

func viewDetails(v microvm.View, now time.Time) [][]cell {
	var rows [][]cell
	add := func(name, value string) {
		if value != "" {
			row := plain(name, value)
			row[0].sgr = bold
			rows = append(rows, row)
		}
	}
	when := func(name string, t time.Time) {
		if !t.IsZero() {
			add(name, fmt.Sprintf("%s (%s)", t.Local().Format(time.RFC3339), ago(t, now)))
		}
	}
	add("id", v.ID)
	add("uid", v.UID)
	add("status", string(v.Status))
	if v.StopReason != nil {
		add("stop reason", v.StopReason.String())
	}
	add("trouble", v.Trouble)
	when("created", v.CreatedAt)
	when("started", v.StartedAt)
	when("stopped", v.StoppedAt)
	if v.PID != 0 {
		add("pid", strconv.Itoa(v.PID))
	}
	vmm := strings.TrimSpace(v.VMM + " " + v.VMMVersion)
	if isEmulator(v) {
		vmm += " (an EMULATOR of Firecracker)"
	}
	add("vmm", vmm)
	for _, addr := range v.Addresses {
		add("address", addr.String())
	}
	for _, s := range v.Snapshots {
		add("snapshot", s)
	}
	if v.SnapshotPause != 0 {
		add("snapshot pause", v.SnapshotPause.Round(10*time.Microsecond).String())
	}
	keys := make([]string, 0, len(v.Labels))
	for k := range v.Labels {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		add("label", k+"="+v.Labels[k])
	}
	add("spec digest", v.SpecDigest)
	return rows
}
