package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm"
)

func (a *app) waitCommand() *cobra.Command {
	var (
		states  []string
		console string
	)
	cmd := &cobra.Command{
		Use:   "wait [--state STATE | --console REGEXP] ID",
		Short: "Wait for a state of a VM, or for a line on its console",
		Long: `Wait until a VM has one of the given states, and print which; or until its
console has a line that matches a regular expression (Go's, RE2), beginning with
what is there already, and print that line. It is a failure when the VM ends
before such a line comes. Bound the wait by --timeout.`,
		Example: `  microvm wait --state stopped web
  microvm wait --console 'login:' --timeout 30s web`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeVMs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if console != "" && cmd.Flags().Changed("state") {
				return &usageError{errors.New("--state and --console: one of them")}
			}
			if console != "" {
				re, err := regexp.Compile(console)
				if err != nil {
					return &usageError{fmt.Errorf("--console: %w", err)}
				}
				return a.with(cmd.Context(), func(rt runtime) error { return a.waitConsole(cmd.Context(), rt, args[0], re) })
			}
			var want []microvm.Status
			known := []microvm.Status{microvm.StatusCreated, microvm.StatusRunning, microvm.StatusStopped, microvm.StatusDestroyed}
			for _, s := range states {
				if !slices.Contains(known, microvm.Status(s)) {
					return &usageError{fmt.Errorf("--state %q: one of created, running, stopped, destroyed", s)}
				}
				want = append(want, microvm.Status(s))
			}
			return a.with(cmd.Context(), func(rt runtime) error { return a.waitState(cmd.Context(), rt, args[0], want) })
		},
	}
	cmd.Flags().StringArrayVar(&states, "state", []string{string(microvm.StatusStopped)}, "created, running, stopped or destroyed (repeatable: any of them)")
	cmd.Flags().StringVar(&console, "console", "", "a regular expression for a line of the console")
	return cmd
}

func (a *app) waitState(ctx context.Context, rt runtime, id string, want []microvm.Status) error {
	waiter, err := need[microvm.Waiter](rt, "wait")
	if err != nil {
		return err
	}
	done := a.progress("waiting for VM %q", id)
	view, err := waiter.WaitVM(ctx, id, want...)
	done()
	if err != nil {
		return err
	}
	if a.flags.json {
		return a.printJSON(view)
	}
	text := string(view.Status)
	if view.StopReason != nil && view.Status == microvm.StatusStopped {
		text += ": " + view.StopReason.String()
	}
	_, err = fmt.Fprintln(a.out, printableLine(text))
	return err
}

// maxLine bounds a line of the console; what is longer is matched in pieces.
const maxLine = 64 << 10

func (a *app) waitConsole(ctx context.Context, rt runtime, id string, re *regexp.Regexp) error {
	reader, err := need[microvm.ConsoleReader](rt, "console")
	if err != nil {
		return err
	}
	stream, err := reader.FollowConsole(ctx, id, -1)
	if err != nil {
		return err
	}
	defer stream.Close()
	done := a.progress("waiting for the console of VM %q", id)
	line, err := findLine(ctx, stream, re)
	done()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("VM %q ended before its console had a line that matches %q", id, re)
	case err != nil:
		return fmt.Errorf("follow the console of VM %q: %w", id, err)
	case a.flags.json:
		return a.printJSON(map[string]string{"line": line})
	}
	_, err = fmt.Fprintln(a.out, line)
	return err
}

// promptQuiet is how long an unfinished line must have stayed as it is before it
// counts as one, as a prompt does.
const promptQuiet = 300 * time.Millisecond

// findLine reads up to the first line that matches. It leaves a read of r
// behind, which ends with r.
func findLine(ctx context.Context, r io.Reader, re *regexp.Regexp) (string, error) {
	type piece struct {
		text string
		err  error
	}
	pieces := make(chan piece)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			select {
			case pieces <- piece{string(buf[:n]), err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	quiet := time.NewTimer(promptQuiet)
	defer quiet.Stop()
	line := ""
	for {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-quiet.C:
			if text := printableLine(line); re.MatchString(text) && line != "" {
				return text, nil
			}
		case p := <-pieces:
			line += p.text
			for {
				text, rest, whole := strings.Cut(line, "\n")
				if !whole && len(line) < maxLine && p.err == nil {
					break
				}
				line = rest
				// The line feed makes a carriage return before it vanish.
				if text = printableLine(text + "\n"); re.MatchString(text) {
					return text, nil
				}
				if !whole {
					break
				}
			}
			if p.err != nil {
				return "", p.err
			}
			quiet.Reset(promptQuiet)
		}
	}
}
