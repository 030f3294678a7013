//go:build linux

package qemuengine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/fcemu"
)

// vm is one QEMU process with what belongs to it.
type vm struct {
	child   *child
	qmp     *qmpClient
	serial  *serial
	mem     *os.File
	memSize int64
	version string
	disks   []disk

	// For the engine's goroutine only.
	paused      bool
	keysWaiting bool
	stream      *os.File // device state, valid until the guest goes on
	balloonMiB  int

	abandoned chan struct{} // closed when the end is of no interest
	released  chan struct{} // closed when the end may be announced
	reset     chan struct{} // closed when the guest has asked for a reset and stands still
	quit      sync.Once
	done      chan struct{} // closed when nothing of the VM is left
	faulted   chan bool     // whether a triple fault was logged, at the end of the log

	mu        sync.Mutex
	resetting bool
	halted    bool // power-off: the vCPUs will never run again
	migration chan string
	unplugged chan bool // the vsock device left (true) or refused (false)
	lastStats []diskStats
}

// disk is the present file of one drive.
type disk struct {
	backend driveBackend
	gen     int
}

// spawn starts QEMU with the guest stopped and its control connection up. It
// takes mem over.
func (e *Engine) spawn(ctx context.Context, cfg *fcemu.Config, m machine, mem *os.File) (*vm, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("QEMU did not answer in time"))
	defer cancel()
	v := &vm{
		mem: mem, memSize: int64(cfg.Machine.MemSizeMiB) << 20,
		abandoned: make(chan struct{}), released: make(chan struct{}), reset: make(chan struct{}),
		done: make(chan struct{}), faulted: make(chan bool, 1),
	}
	var ours, theirs []*os.File // closed on failure, closed in any case
	ours = append(ours, mem)
	defer func() {
		closeAll(theirs)
		closeAll(ours)
	}()

	drives, taps, nics, err := e.files.backends(cfg)
	if err != nil {
		return nil, err
	}
	for _, d := range drives {
		v.disks = append(v.disks, disk{backend: d})
	}
	control, controlVM, err := socketPair()
	if err != nil {
		return nil, err
	}
	ours, theirs = append(ours, control), append(theirs, controlVM)
	logR, logW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe for QEMU's log: %w", err)
	}
	ours, theirs = append(ours, logR), append(theirs, logW)

	m.accel, m.config, m.memory, m.drives, m.nics, m.logFile = e.accel.name, cfg, handPath(mem), drives, nics, handPath(logW)
	passed := []*os.File{controlVM}
	m.qmpFD = 3
	for i, tap := range taps {
		m.nics[i].fd = 3 + len(passed)
		passed = append(passed, tap)
	}
	if cfg.Vsock != nil && !m.incoming {
		c, err := e.vsock.connection(ctx)
		if err != nil {
			return nil, err
		}
		m.vsockFD = 3 + len(passed)
		passed = append(passed, c)
	}
	args, err := m.args()
	if err != nil {
		return nil, err
	}
	serial, vmIn, vmOut, err := newSerial(cfg.Serial, e.opt.Stdin, e.opt.Stdout)
	if err != nil {
		return nil, err
	}
	theirs = append(theirs, vmIn, vmOut)
	v.serial = serial
	cmd := exec.Command(e.qemu, args...)
	cmd.Stdin, cmd.Stdout, cmd.ExtraFiles = vmIn, vmOut, passed
	e.logf(fcemu.LevelDebug, "Starting %s %q.", e.qemu, args)
	if v.child, err = startChild(cmd); err != nil {
		serial.closeFiles()
		return nil, err
	}
	ours = nil // they are v's now
	serial.run()
	conn, err := net.FileConn(control)
	control.Close()
	if err == nil {
		v.qmp, err = newQMP(ctx, conn.(*net.UnixConn), v.event)
		if err != nil {
			conn.Close()
		}
	}
	if err != nil {
		v.child.kill()
		// The serial port ends when QEMU's ends of it are closed, ours too.
		closeAll(theirs)
		theirs = nil
		serial.stop()
		logR.Close()
		mem.Close()
		if said := v.child.stderr.String(); said != "" {
			return nil, fmt.Errorf("QEMU did not start: %s", said)
		}
		return nil, fmt.Errorf("QEMU did not start: %w", err)
	}
	v.version = v.qmp.greeting.String()
	go v.readLog(logR)
	go v.watch(e)
	return v, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make QEMU's control connection: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "qmp"), os.NewFile(uintptr(fds[1]), "qmp"), nil
}

// readLog looks for a triple fault among QEMU's messages about CPU resets.
func (v *vm) readLog(log *os.File) {
	defer log.Close()
	fault := false
	r := bufio.NewReader(log)
	for {
		line, err := readLine(r, maxQMPMessage)
		if strings.HasPrefix(string(line), "Triple fault") {
			fault = true
		}
		if err != nil {
			v.faulted <- fault
			return
		}
	}
}

// event is called for each event in order and must not block.
func (v *vm) event(m qmpMessage) {
	var data struct {
		Reason string `json:"reason"`
		Status string `json:"status"`
		Device string `json:"device"`
	}
	if len(m.Data) > 0 && json.Unmarshal(m.Data, &data) != nil {
		return // an event of another shape is none of those below
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch m.Event {
	case "SHUTDOWN":
		switch data.Reason {
		case "guest-shutdown":
			v.halted = true
		default: // guest-reset; a signal to QEMU alone ends the guest, too
			v.resetting = true
		}
	case "STOP":
		if v.resetting {
			v.quit.Do(func() { close(v.reset) })
		}
	case "MIGRATION":
		if data.Status == "completed" || data.Status == "failed" || data.Status == "cancelled" {
			notify(v.migration, data.Status)
		}
	case "DEVICE_DELETED":
		if data.Device == vsockID {
			notify(v.unplugged, true)
		}
	case "DEVICE_UNPLUG_GUEST_ERROR":
		if data.Device == vsockID {
			notify(v.unplugged, false)
		}
	}
}

// notify fills a channel of one place; nobody need be listening.
func notify[T any](c chan T, x T) {
	select {
	case c <- x:
	default:
	}
}

// watch waits for the end, clears away and announces it.
func (v *vm) watch(e *Engine) {
	defer close(v.done)
	end := fcemu.End{Reason: "the guest was reset"}
	select {
	case <-v.reset:
		ctx, cancel := context.WithTimeout(context.Background(), quitTimeout)
		// For the metrics' last flush; without an answer there are older ones.
		_, _ = v.blockStats(ctx)
		// A refusal or a time-out is answered by the kill that follows.
		_, err := v.qmp.run(ctx, "quit", nil)
		if err == nil {
			select {
			case <-v.child.exited:
			case <-ctx.Done():
			}
		}
		cancel()
	case <-v.abandoned:
	case <-v.child.exited:
		end = fcemu.End{ExitCode: 1, Reason: "QEMU ended: " + v.child.failure().Error()}
	}
	v.child.kill()
	v.qmp.close()
	v.serial.stop()
	if <-v.faulted {
		end = fcemu.End{ExitCode: 1, Reason: "the guest was reset by a triple fault"}
	}
	v.mem.Close()
	select {
	case <-v.abandoned:
		return
	case <-v.released:
	}
	select {
	case <-v.abandoned: // both may have happened
		return
	default:
	}
	e.logf(fcemu.LevelInfo, "The guest has ended: %s.", end.Reason)
	e.ended <- end
}

// release lets the end be announced from now on.
func (v *vm) release() { close(v.released) }

// abandon kills QEMU, whatever it does, and returns when nothing is left.
func (v *vm) abandon() {
	close(v.abandoned)
	<-v.done
	if v.stream != nil {
		v.stream.Close()
	}
}

func (v *vm) isHalted() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.halted
}

func (v *vm) cont(ctx context.Context) error {
	if v.stream != nil {
		v.stream.Close()
		v.stream = nil
	}
	if _, err := v.qmp.run(ctx, "cont", nil); err != nil {
		return fmt.Errorf("run the guest: %w", err)
	}
	return nil
}

func (v *vm) ctrlAltDel(ctx context.Context) error {
	var keys []object
	for _, k := range []string{"ctrl", "alt", "delete"} {
		keys = append(keys, object{"type": "qcode", "data": k})
	}
	if _, err := v.qmp.run(ctx, "send-key", object{"keys": keys}); err != nil {
		return fmt.Errorf("press Ctrl-Alt-Del: %w", err)
	}
	return nil
}
