// Command microvm creates, runs, snapshots, restores and destroys microVMs.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/tangle-network/microvm/cmd/microvm/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case sig := <-signals:
			cancel(cli.Interrupted{Signal: sig.(syscall.Signal)})
			// The first signal asks for an orderly end; the next one has its
			// ordinary effect.
			signal.Stop(signals)
		case <-done:
		}
	}()
	return cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}
