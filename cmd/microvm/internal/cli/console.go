package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
)

// escapeByte leaves the console: Ctrl-].
const escapeByte = 0x1d

// errLeft says that the user has left the console.
var errLeft = errors.New("left the console")

func (a *app) consoleCommand() *cobra.Command {
	var tail int
	cmd := &cobra.Command{
		Use:   "console ID",
		Short: "Type into the guest's serial console",
		Long: `Connect the terminal to the guest's serial console. Every key goes to the guest,
Ctrl-C included; Ctrl-] leaves, and the VM goes on.

The VM needs --console-input. Without a terminal, stdin is sent to the guest and
its output followed until the VM ends. The guest's bytes reach the terminal as
they are: "microvm logs" shows them harmlessly.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeVMs(microvm.StatusRunning),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.flags.json {
				return &usageError{errors.New("console has no --json: a console is bytes")}
			}
			return a.with(cmd.Context(), func(rt runtime) error {
				err := a.attach(cmd.Context(), rt, args[0], tail)
				if err == nil && cmd.Context().Err() == nil {
					return nil
				}
				return err
			})
		},
	}
	cmd.Flags().IntVarP(&tail, "tail", "n", 10, "begin with the last N lines; -1 for all")
	return cmd
}

// attach connects stdin and stdout with a guest's console until the VM ends,
// ctx ends or the user leaves by Ctrl-].
func (a *app) attach(ctx context.Context, rt runtime, id string, tail int) error {
	reader, err := need[microvm.ConsoleReader](rt, "console")
	if err != nil {
		return err
	}
	writer, err := need[microvm.ConsoleWriter](rt, "console input")
	if err != nil {
		return err
	}
	input, err := writer.ConsoleInput(ctx, id)
	if err != nil {
		return err
	}
	defer input.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	restore, err := a.rawTerminal()
	if err != nil {
		return err
	}
	defer restore()
	if isTerminal(a.in) {
		a.note("connected to VM %q; Ctrl-] leaves", id)
	}
	go func() {
		// It may stay in a read of stdin after the VM has ended; the program
		// ends then.
		if err := sendKeys(input, a.in, isTerminal(a.in)); err != nil {
			cancel(err)
		}
	}()
	err = a.follow(ctx, reader, id, tail, a.out)
	restore()
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errLeft):
		a.note("left the console of VM %q", id)
		return nil
	case cause != nil && !errors.Is(err, cause):
		return cause
	}
	return err
}

// sendKeys copies until the end of in, or until the escape on a terminal.
func sendKeys(w io.Writer, in io.Reader, terminal bool) error {
	buf := make([]byte, 4096)
	for {
		n, err := in.Read(buf)
		keys := buf[:n]
		at := -1
		if terminal {
			at = bytes.IndexByte(keys, escapeByte)
		}
		if at >= 0 {
			keys = keys[:at]
		}
		if _, werr := w.Write(keys); werr != nil {
			return fmt.Errorf("write to the guest's console: %w", werr)
		}
		switch {
		case at >= 0:
			return errLeft
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read stdin: %w", err)
		}
	}
}

// rawTerminal makes the terminal on stdin pass every key on; restore may be
// called twice. Without a terminal it does nothing.
func (a *app) rawTerminal() (restore func(), err error) {
	if !isTerminal(a.in) {
		return func() {}, nil
	}
	return makeRaw(a.in)
}

func makeRaw(f *os.File) (restore func(), err error) {
	fd := int(f.Fd())
	was, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("read the terminal's settings: %w", err)
	}
	raw := *was
	// As cfmakeraw(3), but output keeps its translation: our own notes and the
	// guest's "\r\n" both come out right.
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, fmt.Errorf("set the terminal: %w", err)
	}
	return func() {
		// Nothing can be done about a terminal that has gone.
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, was)
	}, nil
}
