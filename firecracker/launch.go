package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/console"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/vmm"
)

// launched is a VMM that this verb has started.
type launched struct {
	*machine
	release
}

// spawn starts the VM's VMM; meet waits for it. Its undo ends the process.
func (o *op) spawn(p program) (*machine, error) {
	if err := o.joinNetwork(); err != nil {
		return nil, err
	}
	o.stage = "spawn"
	if err := o.clearProcessFiles(); err != nil {
		return nil, err
	}
	files, err := o.openFiles()
	if err != nil {
		return nil, err
	}
	defer files.close()
	cmd := launchCommand(p.path, o.runDir(), o.uid(), o.r.environ())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files.in, files.out, files.err
	if o.slot != nil {
		if cmd.Netns, err = os.Open(o.slot.Namespace); err != nil {
			return nil, err
		}
		defer cmd.Netns.Close()
	}
	proc, err := o.r.watcher.Start(cmd)
	if err != nil {
		return nil, fmt.Errorf("%w: start %s: %w", microvm.ErrHost, p.path, err)
	}
	id := proc.Identity()
	m := newMachine(proc, o.ID, record.Process{PID: id.PID, StartTime: id.StartTime, BootID: id.BootID, Binary: p.path, ConsoleStart: files.outAt})
	o.undo.push(func() error { return o.endProcess(m) })
	if err := o.intend(func(in *record.Intent) { in.Process = &m.ident }); err != nil {
		return nil, err
	}
	o.r.keep(m, o.Dir)
	return m, nil
}

// meet waits for the API of a VMM that this verb has started.
func (o *op) meet(m *machine) error {
	ctx, cancel := context.WithTimeout(o.ctx, o.r.cfg.SocketReadyTimeout)
	defer cancel()
	o.stage = "wait for the API"
	conn, err := vmm.Connect(ctx, m.proc, o.runDir(), apiSocket)
	if err == nil {
		err = m.connected(o.run(apiSocket), conn)
	} else if o.ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no API after %s: %w", o.r.cfg.SocketReadyTimeout, err)
	}
	if err != nil {
		return err
	}
	// What was started may have been a wrapper: by now it is the VMM itself.
	dev, inode, err := m.proc.Program()
	if err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	m.ident.Program = record.Program{Dev: dev, Inode: inode}
	return nil
}

// describe asks the process what it is, and then carries out the requests that
// plan makes for that release. The process of p's own file is what that said: it
// is asked and told at once. Another (the file may have been replaced since, or be
// a wrapper) is asked first.
func (o *op) describe(m *machine, p program, plan func(release) []fcapi.Request) (*launched, error) {
	api := m.client(o.run(apiSocket))
	sure := m.ident.Program == record.Program{Dev: p.file.dev, Inode: p.file.ino}
	reqs := []fcapi.Request{fcapi.DescribeRequest()}
	if sure {
		reqs = append(reqs, plan(p.release)...)
	}
	var info fcapi.InstanceInfo
	n, err := api.DoAll(o.ctx, o.r.cfg.APITimeout, reqs, &info)
	if n == 0 {
		return nil, o.explain(m, err, o.r.cfg.APITimeout)
	}
	if info.ID != o.uid() {
		return nil, fmt.Errorf("%w: the process at %s is %.80q, not %q", microvm.ErrHost, apiSocket, info.ID, o.uid())
	}
	l, rerr := o.r.releaseOf(info.VMMVersion)
	m.ident.Version, m.ident.Name = info.VMMVersion, l.name
	switch {
	case rerr != nil:
		return nil, rerr
	case l.text == p.text:
		l.format = p.format
	default:
		o.r.programs.forget(p)
		if sure {
			return nil, fmt.Errorf("%w: %s says that it is %s, and its process that it is %s", microvm.ErrHost, p.path, p.release, l)
		}
	}
	if err != nil {
		o.stage = reqs[n].String()
		return nil, o.explain(m, err, o.r.cfg.APITimeout)
	}
	if !sure {
		if err := o.send(m, plan(l)...); err != nil {
			return nil, err
		}
	}
	return &launched{m, l}, nil
}

// environ is the VMM's environment: nothing of ours leaks into it unasked.
func (r *Runtime) environ() []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	for _, e := range r.cfg.Env {
		if strings.HasPrefix(e, "PATH=") {
			return r.cfg.Env
		}
	}
	return append([]string{"PATH=" + path}, r.cfg.Env...)
}

// clearProcessFiles removes what the last process has left: VMMs neither remove
// their sockets nor truncate their files, and refuse or garble old ones.
func (o *op) clearProcessFiles() error {
	if o.Rec.Status == "" { // a new VM: its run directory was just made
		return o.removeChosenSocket()
	}
	if err := o.removeSockets(); err != nil {
		return err
	}
	for _, name := range []string{logFile, stderrFile, metricsFile, sumFile} {
		if err := removeFile(o.run(name)); err != nil {
			return err
		}
	}
	return nil
}

// removeSockets removes the sockets of a dead VMM. A path with a live listener
// is refused: it is somebody else's.
func (o *op) removeSockets() error {
	return errors.Join(o.removeOwnSockets(), o.removeChosenSocket())
}

func (o *op) removeOwnSockets() error {
	return errors.Join(vmm.RemoveSocket(o.runDir(), apiSocket), vmm.RemoveSocket(o.runDir(), vsockSocket))
}

// removeChosenSocket removes the one whose path the spec has chosen.
func (o *op) removeChosenSocket() error {
	if o.Rec == nil || o.Rec.Spec.Vsock == nil || o.Rec.Spec.Vsock.Path == "" {
		return nil
	}
	p := o.Rec.Spec.Vsock.Path
	return vmm.RemoveSocket(filepath.Dir(p), filepath.Base(p))
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !isMissing(err) {
		return err
	}
	return nil
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// stdio are the files that a VMM is given; it keeps its own descriptors.
type stdio struct {
	in, out, err *os.File
	outAt        int64 // the size of out
}

func (s stdio) close() {
	for _, f := range []*os.File{s.in, s.out, s.err} {
		if f != nil {
			f.Close()
		}
	}
}

func (o *op) openFiles() (s stdio, err error) {
	defer func() {
		if err != nil {
			s.close()
			err = fmt.Errorf("open the VMM's files: %w", err)
		}
	}()
	if s.out, err = console.Create(o.consolePath()); errors.Is(err, fs.ErrExist) {
		s.out, err = console.Append(o.consolePath())
	}
	if err != nil {
		return s, err
	}
	st, err := s.out.Stat()
	if err != nil {
		return s, err
	}
	s.outAt = st.Size()
	if s.err, err = console.Create(o.run(stderrFile)); err != nil {
		return s, err
	}
	// Releases before 1.14 want the files to exist.
	for _, name := range []string{logFile, metricsFile} {
		f, err := os.OpenFile(o.run(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return s, err
		}
		f.Close()
	}
	if o.Rec.Spec.Console != nil && o.Rec.Spec.Console.Input {
		fifo := filepath.Join(o.Dir, inputFIFO)
		if err = unix.Mkfifo(fifo, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
			return s, err
		}
		// Read and write: the VMM never sees the end of it.
		s.in, err = os.OpenFile(fifo, os.O_RDWR|unix.O_NOFOLLOW, 0)
	}
	return s, err
}

// send carries out requests in order, those that say what VM a new VMM is to be:
// when one fails, the VMM is of no use.
func (o *op) send(m *machine, reqs ...fcapi.Request) error {
	n, err := o.api(m).DoAll(o.ctx, o.r.cfg.APITimeout, reqs)
	if err == nil {
		return nil
	}
	o.stage = reqs[n].String()
	return o.explain(m, unsupported(err), o.r.cfg.APITimeout)
}

func (o *op) sendOne(ctx context.Context, m *machine, q fcapi.Request, timeout time.Duration) error {
	o.stage = q.String()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := o.api(m).Do(ctx, q, nil); err != nil {
		return o.explain(m, unsupported(err), timeout)
	}
	return nil
}

// api is the client of a VMM, which sends it what its release understands.
func (o *op) api(m *machine) *fcapi.Client {
	c := m.client(o.run(apiSocket))
	if l, err := o.r.releaseOf(m.ident.Version); err == nil {
		c.CheckVersion(l.Version)
	}
	return c
}

// muteError is a call that the VMM has not answered in this time.
type muteError time.Duration

func (e muteError) Error() string { return "no answer within " + time.Duration(e).String() }

var errHungUp = errors.New("the VMM closed the connection")

// explain adds to the error of a call what the VMM did: it ended (one that can't
// load a snapshot answers, or not, and ends), hung up, or said nothing in time.
func (o *op) explain(m *machine, err error, timeout time.Duration) error {
	var conn *fcapi.ConnError
	late := errors.Is(err, context.DeadlineExceeded)
	if errors.As(err, &conn) && !late && o.ctx.Err() == nil {
		t := time.NewTimer(200 * time.Millisecond)
		defer t.Stop()
		select {
		case <-m.proc.Done():
		case <-t.C:
		}
	}
	switch {
	case m.dead():
		st, known := m.proc.Exit()
		return fmt.Errorf("%w: %w", err, &vmm.ExitedError{PID: m.proc.PID(), Status: st, Known: known})
	case late && o.ctx.Err() == nil:
		return fmt.Errorf("%w: %w", err, muteError(timeout))
	case conn != nil && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)):
		return fmt.Errorf("%w: %w", err, errHungUp)
	}
	return err
}

// endProcess ends a VMM and removes its sockets, whatever ctx says.
func (o *op) endProcess(m *machine) error {
	ctx, cancel := o.detached(o.r.cfg.TermGrace + 30*time.Second)
	defer cancel()
	_, err := m.proc.Stop(ctx, o.r.cfg.TermGrace)
	if err != nil {
		o.undead = true
		return fmt.Errorf("end VMM %d: %w", m.proc.PID(), err)
	}
	o.r.drop(o.uid(), m)
	return o.removeSocketsAfter(ctx)
}

// removeSocketsAfter removes the sockets of a VMM that has just ended. Its helper
// programs (the emulator has some) die with it, and may take a moment.
func (o *op) removeSocketsAfter(ctx context.Context) error {
	if err := o.removeChosenSocket(); err != nil {
		// What is there is somebody else's by now.
		o.r.cfg.Log.Warn("the socket of a VM that has ended stays", "vm", o.ID, "err", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := o.removeOwnSockets()
		var used *vmm.SocketInUseError
		if !errors.As(err, &used) {
			return err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}

// adoptLaunched puts a started VMM into the record.
func (o *op) adoptLaunched(l *launched, booted bool) {
	l.ident.Booted = booted
	l.into(o.Rec)
}

func (l *launched) into(rec *record.Record) { putVMM(rec, l.ident, l.release) }

func putVMM(rec *record.Record, p record.Process, l release) {
	rec.Process, rec.VMM, rec.VMMVersion = &p, p.Name, p.Version
	rec.VMMFormat = ""
	if l.format != (fcapi.Version{}) {
		rec.VMMFormat = l.format.String()
	}
}

// expectCreated begins to write the record of a new VM while its VMM starts: the
// process will most likely say of itself what its file has said.
func (o *op) expectCreated(m *machine, p program) {
	next, proc := *o.Rec, m.ident
	proc.Name, proc.Version = p.name, p.text
	proc.Program = record.Program{Dev: p.file.dev, Inode: p.file.ino}
	next.Status = microvm.StatusCreated
	putVMM(&next, proc, p.release)
	o.Prepare(next)
}

// transferTimeout bounds a snapshot's creation or load: a slow disk may write 10
// MiB/s only.
func (r *Runtime) transferTimeout(memoryMiB int) time.Duration {
	return r.cfg.transferBase + time.Duration(memoryMiB)*100*time.Millisecond
}
