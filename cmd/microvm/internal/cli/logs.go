package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tangle-network/microvm"
)

func (a *app) logsCommand() *cobra.Command {
	var (
		follow, raw bool
		tail        int
	)
	cmd := &cobra.Command{
		Use:   "logs [-f] [--tail N] ID",
		Short: "Show what the guest wrote to its serial console",
		Long: `Show what the guest wrote to its serial console, as far as the bounded console
file still holds it. Control characters become visible escapes, so that a guest
cannot drive your terminal; --raw passes every byte through.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeVMs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.flags.json {
				return &usageError{errors.New("logs has no --json: a console is bytes")}
			}
			return a.with(cmd.Context(), func(rt runtime) error {
				return a.logs(cmd.Context(), rt, args[0], tail, follow, raw)
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the VM ends")
	cmd.Flags().IntVarP(&tail, "tail", "n", -1, "begin with the last N lines (default: all)")
	cmd.Flags().BoolVar(&raw, "raw", false, "pass every byte through")
	return cmd
}

func (a *app) logs(ctx context.Context, rt runtime, id string, tail int, follow, raw bool) (err error) {
	console, err := need[microvm.ConsoleReader](rt, "console")
	if err != nil {
		return err
	}
	out := a.out
	if !raw {
		p := &printableWriter{w: a.out}
		defer func() {
			if ferr := p.Flush(); err == nil {
				err = ferr
			}
		}()
		out = p
	}
	if follow {
		return a.follow(ctx, console, id, tail, out)
	}
	b, err := console.ConsoleTail(ctx, id, tail)
	if err != nil {
		return err
	}
	_, err = out.Write(b)
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
