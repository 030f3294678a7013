// Package cli is the command line of microvm: it turns arguments into calls of
// the runtime, and what comes back into text for people or JSON for programs.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm"
)

// runtime is what the commands drive. What only some runtimes can do is asked
// for with need.
type runtime interface {
	microvm.Runtime
	Close() error
}

// app is one call of the program.
type app struct {
	in       *os.File
	out, err io.Writer
	tty      terminal
	flags    globalFlags
	// open makes the runtime; tests put another one here.
	open func(context.Context, *app) (runtime, error)

	limited      context.Context // the command's, with --timeout
	deadline     context.CancelFunc
	vmm          vmmChoice // set by open
	emulatorSaid sync.Once
	// running is set when arguments and flags were understood: an error before
	// that is one of usage.
	running bool
	errMu   sync.Mutex
	// serveNetworks resolves names for the VMs while the runtime is open.
	serveNetworks bool
	// noRecovery opens the state as it is.
	noRecovery bool
}

type globalFlags struct {
	stateDir string
	vmm      string
	emulator string
	json     bool
	verbose  bool
	logLevel string
	timeout  time.Duration
}

// Main runs the program and returns its exit code. When ctx ends, the command
// cleans up and returns.
func Main(ctx context.Context, args []string, in, out, errOut *os.File) int {
	a := &app{in: in, out: out, err: errOut, tty: newTerminal(out, errOut), open: openFirecracker}
	return a.execute(ctx, args)
}

func (a *app) execute(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err != nil && !a.running {
		err = &usageError{err}
	}
	if a.limited != nil {
		ctx = a.limited
		defer a.deadline()
	}
	if err == nil {
		return exitOK
	}
	code := exitCode(ctx, err)
	if code > 128 {
		err = untilInterrupted(err)
	}
	if err != nil {
		a.report(err, code)
	}
	return code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "microvm",
		Short: "Run Firecracker microVMs on this host",
		Long: `microvm creates, runs, snapshots, restores and destroys Firecracker microVMs on
this host. There is no daemon: each command works on the state directory, and
VMs live on when the command has ended.

Begin with "microvm doctor", which says what this host can do, and "microvm run".`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	p := root.PersistentFlags()
	p.StringVar(&a.flags.stateDir, "state-dir", "", "where VMs and snapshots live (default $MICROVM_STATE_DIR, else /var/lib/microvm for root and $XDG_STATE_HOME/microvm for others)")
	p.StringVar(&a.flags.vmm, "firecracker", "", "the firecracker binary, a path or a name on PATH (default $MICROVM_FIRECRACKER_BIN, else firecracker beside this program or on PATH)")
	p.StringVar(&a.flags.emulator, "emulator", "", "run guests in fcemu, an EMULATOR of Firecracker, with this engine: auto, qemu or null (default $MICROVM_EMULATOR, else no emulator)")
	p.Lookup("emulator").NoOptDefVal = engineAuto
	p.BoolVar(&a.flags.json, "json", false, "answer in JSON, errors included")
	p.BoolVarP(&a.flags.verbose, "verbose", "v", false, "show all of the evidence that an error carries")
	p.StringVar(&a.flags.logLevel, "log-level", "warn", "what the runtime logs on stderr: debug, info, warn, error or off")
	p.DurationVar(&a.flags.timeout, "timeout", 0, "give up after this time, such as 30s (default: never)")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := a.flags.check(); err != nil {
			return err
		}
		a.running = true
		if a.flags.timeout > 0 {
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), a.flags.timeout, errTimeout)
			a.limited, a.deadline = ctx, cancel
			cmd.SetContext(ctx)
		}
		return nil
	}
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.AddGroup(
		&cobra.Group{ID: "life", Title: "Life of a VM:"},
		&cobra.Group{ID: "see", Title: "Seeing and reaching:"},
		&cobra.Group{ID: "snap", Title: "Snapshots:"},
		&cobra.Group{ID: "host", Title: "Images and host:"},
	)
	root.SetHelpCommandGroupID("host")
	root.SetCompletionCommandGroupID("host")
	group := func(id string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	group("life", a.runCommand(), a.createCommand(), a.startCommand(), a.stopCommand(), a.renameCommand(), a.destroyCommand(), a.pruneCommand())
	group("see", a.lsCommand(), a.inspectCommand(), a.logsCommand(), a.waitCommand(), a.consoleCommand(), a.vsockCommand(), a.statsCommand(), a.netCommand())
	group("snap", a.snapshotCommand(), a.restoreCommand())
	group("host", a.kernelCommand(), a.imageCommand(), a.recoverCommand(), a.doctorCommand(), a.versionCommand())
	return root
}

func (f globalFlags) check() error {
	if f.vmm != "" && f.emulator != "" {
		return errors.New("--firecracker and --emulator: one of them")
	}
	if _, err := parseEngine("--emulator", f.emulator); err != nil {
		return err
	}
	if _, err := f.level(); err != nil {
		return err
	}
	if f.timeout < 0 {
		return fmt.Errorf("--timeout %s: a time of 0 or more", f.timeout)
	}
	return nil
}

// levelOff is above every level that is logged.
const levelOff = slog.Level(100)

func (f globalFlags) level() (slog.Level, error) {
	switch f.logLevel {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	case "off":
		return levelOff, nil
	}
	return 0, fmt.Errorf("--log-level %q: one of debug, info, warn, error, off", f.logLevel)
}

func (a *app) logger() *slog.Logger {
	level, err := a.flags.level()
	if err != nil || level == levelOff {
		return slog.New(slog.DiscardHandler)
	}
	opts := &slog.HandlerOptions{Level: level}
	if a.flags.json {
		return slog.New(slog.NewJSONHandler(a.err, opts))
	}
	return slog.New(slog.NewTextHandler(a.err, opts))
}

// with opens the runtime for the time of do.
func (a *app) with(ctx context.Context, do func(runtime) error) (err error) {
	rt, err := a.open(ctx, a)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := rt.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("close the runtime: %w", cerr)
		}
	}()
	return do(rt)
}

// need asks a runtime for something that only some can do.
func need[T any](rt runtime, what string) (T, error) {
	t, ok := rt.(T)
	if !ok {
		return t, fmt.Errorf("this runtime has no %s: %w", what, microvm.ErrUnsupported)
	}
	return t, nil
}

// printJSON writes one value, indented, to stdout.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// printLine writes one value to stdout as one line of JSON, for streams.
func (a *app) printLine(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// note tells the user something on stderr that is neither result nor error.
func (a *app) note(format string, args ...any) {
	if !a.flags.json {
		a.warn(format, args...)
	}
}

// warn is a note that programs get too.
func (a *app) warn(format string, args ...any) {
	text := printableLine(fmt.Sprintf(format, args...))
	a.errMu.Lock()
	defer a.errMu.Unlock()
	if !a.flags.json {
		fmt.Fprintf(a.err, "microvm: %s\n", text)
		return
	}
	// A map of strings can always be encoded.
	b, _ := json.Marshal(map[string]string{"warning": text})
	fmt.Fprintf(a.err, "%s\n", b)
}
