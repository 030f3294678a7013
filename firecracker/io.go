package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/console"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/vmm"
	"github.com/tangle-network/microvm/vsock"
)

// ConsoleTail returns the last lines of the guest's serial output; lines < 0
// means all that the bounded file still holds. A VM that never ran has none.
func (r *Runtime) ConsoleTail(ctx context.Context, id string, lines int) ([]byte, error) {
	const verb = "read the console of"
	rec, err := r.load(ctx, verb, id)
	if err != nil {
		return nil, err
	}
	b, err := console.Tail(filepath.Join(r.store.Dir(rec.ID), consoleFile), lines, 2*r.cfg.ConsoleBytes)
	if err != nil && !isMissing(err) {
		return nil, &microvm.Error{Verb: verb, VMID: id, Err: err}
	}
	return b, nil
}

// FollowConsole streams the serial output until the VM's process ends, ctx ends
// or the reader is closed. The VM must have a process.
func (r *Runtime) FollowConsole(ctx context.Context, id string, lines int) (io.ReadCloser, error) {
	const verb = "follow the console of"
	rec, err := r.load(ctx, verb, id)
	if err != nil {
		return nil, err
	}
	// What ended is delivered to its end; what lives is followed until it dies.
	var done <-chan struct{}
	if m, err := r.machine(rec); err == nil {
		done = m.proc.Done()
	} else if errors.Is(err, vmm.ErrGone) {
		done = closedChannel()
	} else {
		return nil, &microvm.Error{Verb: verb, VMID: id, Err: err}
	}
	f, err := console.Follow(filepath.Join(r.store.Dir(rec.ID), consoleFile), console.FollowOptions{Lines: lines, Done: done})
	if err != nil {
		if isMissing(err) {
			err = fmt.Errorf("no console: the VM is %s and has no serial output: %w", rec.Status, err)
		}
		return nil, r.withEvidence(&microvm.Error{Verb: verb, VMID: id, Err: err}, rec)
	}
	return console.NewReader(ctx, f), nil
}

func closedChannel() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// ConsoleInput opens the guest's serial input. The spec must have Console.Input,
// and the VM a process. A guest that does not read makes Write wait, until Close.
func (r *Runtime) ConsoleInput(ctx context.Context, id string) (io.WriteCloser, error) {
	const verb = "write to the console of"
	rec, err := r.load(ctx, verb, id)
	if err != nil {
		return nil, err
	}
	fail := func(err error, remedy string) error {
		return r.withEvidence(&microvm.Error{Verb: verb, VMID: id, Err: err, Remedy: remedy}, rec)
	}
	if rec.Spec.Console == nil || !rec.Spec.Console.Input {
		return nil, fail(fmt.Errorf("%w: its spec has no console.input", microvm.ErrUnsupported), "create the VM with console.input")
	}
	if _, err := r.machine(rec); err != nil {
		if errors.Is(err, vmm.ErrGone) {
			err = noVMM(rec)
		}
		return nil, fail(err, "start the VM")
	}
	path := filepath.Join(r.store.Dir(rec.ID), inputFIFO)
	// Without a reader, the open fails instead of waiting for one.
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fail(&os.PathError{Op: "open", Path: path, Err: err}, "")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		_ = unix.Close(fd)
		return nil, fail(fmt.Errorf("%w: %s is no FIFO", microvm.ErrHost, path), "")
	}
	return os.NewFile(uintptr(fd), path), nil
}

// DialVsock connects to a port of the guest, which must be running. It tries
// until ctx ends.
func (r *Runtime) DialVsock(ctx context.Context, id string, port uint32) (net.Conn, error) {
	const verb = "dial"
	rec, err := r.load(ctx, verb, id)
	if err != nil {
		return nil, err
	}
	fail := func(err error, remedy string) error {
		return r.withEvidence(&microvm.Error{Verb: verb, VMID: id, Err: err, Remedy: remedy}, rec)
	}
	if rec.Spec.Vsock == nil {
		return nil, fail(fmt.Errorf("%w: its spec has no vsock", microvm.ErrUnsupported), "create the VM with vsock")
	}
	m, err := r.running(rec)
	if err != nil {
		return nil, fail(err, "start the VM")
	}
	// A guest that ends answers no more: waiting for it has no sense.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-m.proc.Done():
			cancel(errGuestEnded)
		case <-ctx.Done():
		}
	}()
	d := vsock.Dialer{Retry: true}
	c, err := d.Dial(ctx, vsockOnHost(rec.Spec, filepath.Join(r.store.Dir(rec.ID), runName)), port)
	if err != nil {
		ended := errors.Is(context.Cause(ctx), errGuestEnded)
		if !ended && ctx.Err() == nil {
			// The sockets of a VMM that dies go before its death can be seen.
			t := time.NewTimer(200 * time.Millisecond)
			select {
			case <-m.proc.Done():
				ended = true
			case <-t.C:
			}
			t.Stop()
		}
		if ended {
			err = fmt.Errorf("%w: %w", errGuestEnded, err)
		}
		e := &microvm.Error{Verb: verb, VMID: id, Err: err, Retry: !ended}
		// A guest that lives and does not answer may say why, too.
		e.Log, e.Console = evidence(r.store.Dir(rec.ID))
		return nil, e
	}
	return c, nil
}

var errGuestEnded = errors.New("the VMM has ended")

// noVMM refuses what needs a VMM. A record may not know of its end yet.
func noVMM(rec *record.Record) error {
	from := rec.Status
	if from == microvm.StatusRunning {
		from = microvm.StatusStopped
	}
	return &microvm.TransitionError{VMID: rec.ID, From: from, To: microvm.StatusRunning}
}

// running is the VMM of a running VM.
func (r *Runtime) running(rec *record.Record) (*machine, error) {
	m, err := r.machine(rec)
	switch {
	case errors.Is(err, vmm.ErrGone):
		return nil, noVMM(rec)
	case err == nil && rec.Status != microvm.StatusRunning:
		return nil, &microvm.TransitionError{VMID: rec.ID, From: rec.Status, To: microvm.StatusRunning}
	}
	return m, err
}
