package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm"
)

func (a *app) logsCommand() *cobra.Command {
	var o logsOptions
	var pattern string
	cmd := &cobra.Command{
		Use:   "logs [-f] [--tail N] [--grep REGEXP] ID",
		Short: "Show what the guest wrote to its serial console",
		Long: `Show what the guest wrote to its serial console, as far as the bounded console
file still holds it. Control characters become visible escapes, so that a guest
cannot drive your terminal; --raw passes every byte through.

--grep shows only the lines, of those that --tail leaves, in which the regular
expression (RE2) matches what is shown without --raw; the exit code is 1 when
there is none. Where output was cut off before it could be read, a line says so.`,
		Example: `  microvm logs --tail 20 web
  microvm logs -f --grep '(?i)error|panic' web`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeVMs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.flags.json {
				return &usageError{errors.New("logs has no --json: a console is bytes")}
			}
			if cmd.Flags().Changed("grep") {
				var err error
				if o.grep, err = regexp.Compile(pattern); err != nil {
					return &usageError{fmt.Errorf("--grep: %w", err)}
				}
			}
			return a.with(cmd.Context(), func(rt runtime) error { return a.logs(cmd.Context(), rt, args[0], o) })
		},
	}
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on until the VM ends")
	cmd.Flags().IntVarP(&o.tail, "tail", "n", -1, "begin with the last N lines (default: all)")
	cmd.Flags().BoolVar(&o.raw, "raw", false, "pass every byte through")
	cmd.Flags().StringVar(&pattern, "grep", "", "show only lines that match this regular expression")
	return cmd
}

type logsOptions struct {
	tail        int
	follow, raw bool
	grep        *regexp.Regexp // nil: all lines
}

func (a *app) logs(ctx context.Context, rt runtime, id string, o logsOptions) (err error) {
	console, err := need[microvm.ConsoleReader](rt, "console")
	if err != nil {
		return err
	}
	out := a.out
	// What is held back is written at the end, by the outermost first.
	var held []interface{ Flush() error }
	defer func() {
		for _, w := range held {
			if ferr := w.Flush(); err == nil {
				err = ferr
			}
		}
	}()
	if !o.raw {
		p := &printableWriter{w: out}
		held = append(held, p)
		out = p
	}
	var lines *lineFilter
	if o.grep != nil {
		lines = &lineFilter{w: out, match: o.grep}
		held = slices.Insert(held, 0, interface{ Flush() error }(lines))
		out = lines
	}
	if o.follow {
		err = a.follow(ctx, console, id, o.tail, out)
	} else {
		var b []byte
		if b, err = console.ConsoleTail(ctx, id, o.tail); err == nil {
			_, err = out.Write(b)
		}
	}
	if err == nil && lines != nil {
		if err = lines.Flush(); err == nil && lines.shown == 0 {
			err = fmt.Errorf("no line of the console of VM %q matches %q", id, o.grep)
		}
	}
	return err
}

func (a *app) vsockCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "vsock ID PORT",
		Short: "Connect stdin and stdout to a vsock port of the guest",
		Long: `Connect stdin and stdout to a vsock port of the guest, whose VM needs a vsock
device (--vsock). It tries until the guest listens: bound it by --timeout.`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeVMs(microvm.StatusRunning),
		RunE: func(cmd *cobra.Command, args []string) error {
			var port uint32
			if _, err := fmt.Sscanf(args[1], "%d", &port); err != nil || fmt.Sprint(port) != args[1] {
				return &usageError{fmt.Errorf("port %q: a number from 0 to 4,294,967,295", args[1])}
			}
			return a.with(cmd.Context(), func(rt runtime) error { return a.vsock(cmd.Context(), rt, args[0], port) })
		},
	}
}

func (a *app) vsock(ctx context.Context, rt runtime, id string, port uint32) error {
	dialer, err := need[microvm.VsockDialer](rt, "vsock")
	if err != nil {
		return err
	}
	done := a.progress("connecting to port %d of VM %q", port, id)
	conn, err := dialer.DialVsock(ctx, id, port)
	done()
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	sent := make(chan error, 1)
	go func() {
		// It may stay in a read of stdin after the guest has hung up; the
		// program ends then.
		_, err := io.Copy(conn, a.in)
		if c, ok := conn.(interface{ CloseWrite() error }); err == nil && ok {
			err = c.CloseWrite()
		}
		sent <- err
	}()
	_, err = io.Copy(a.out, conn)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("read from port %d of VM %q: %w", port, id, err)
	}
	select {
	case err := <-sent:
		if err != nil {
			return fmt.Errorf("write to port %d of VM %q: %w", port, id, err)
		}
	default:
	}
	return nil
}
