//go:build linux

package qemuengine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/fcemu"
)

// stateHeader is the first line of the engine's part of a state file; QEMU's
// migration stream follows. A stream fits only the machine that it came from.
type stateHeader struct {
	QEMU        string            `json:"qemu"`
	Accelerator string            `json:"accelerator"`
	Balloon     int               `json:"balloon_mib,omitempty"`
	MACs        map[string]string `json:"macs,omitempty"`
	Halted      bool              `json:"halted,omitempty"`
}

const maxStateHeader = 64 << 10

// CreateSnapshot writes the state file and then the memory file, as the
// original does: when the second fails the first stays. A Diff has all pages
// that were touched since the boot or the load, tracked or not: more than
// those since the last snapshot, never less.
func (e *Engine) CreateSnapshot(ctx context.Context, cfg *fcemu.Config, p fcemu.SnapshotCreate) error {
	v := e.vm
	if v == nil {
		return errNotStarted
	}
	if !v.paused {
		return errors.New("the guest is not paused")
	}
	if e.vsock != nil && e.vsock.plugged {
		return errors.New("the guest has not let go of its vsock device (it must be up and support ACPI hotplug), and QEMU can't save that device: resume it and try again later")
	}
	if v.stream == nil {
		// QEMU saves a guest only once between two runs.
		stream, err := v.saveDevices(ctx)
		if err != nil {
			return err
		}
		v.stream = stream
	}
	head, err := json.Marshal(stateHeader{
		QEMU: v.version, Accelerator: e.accel.name, Balloon: v.balloonMiB, MACs: e.files.macs, Halted: v.isHalted(),
	})
	if err != nil {
		return fmt.Errorf("encode the engine's state: %w", err)
	}
	head = append(head, '\n')
	st, err := v.stream.Stat()
	if err != nil {
		return fmt.Errorf("read the devices' state: %w", err)
	}
	blob := io.MultiReader(bytes.NewReader(head), io.NewSectionReader(v.stream, 0, st.Size()))
	if err := fcemu.WriteState(p.SnapshotPath, e.Name(), cfg, blob, int64(len(head))+st.Size()); err != nil {
		return err
	}
	return saveMemory(ctx, v.mem, v.memSize, p.MemFilePath, p.SnapshotType != "Diff")
}

// saveDevices lets QEMU write all but the memory, which is shared with us,
// into a nameless file.
func (v *vm) saveDevices(ctx context.Context) (*os.File, error) {
	f, err := newMemory(0)
	if err != nil {
		return nil, err
	}
	if err := v.migrate(ctx, f, "migrate", "fd:stream"); err != nil {
		f.Close()
		return nil, fmt.Errorf("save the devices: %w", err)
	}
	return f, nil
}

// migrate runs QEMU's migration in either direction over f.
func (v *vm) migrate(ctx context.Context, f *os.File, command, uri string) error {
	finished := make(chan string, 1)
	v.mu.Lock()
	v.migration = finished
	v.mu.Unlock()
	if err := v.qmp.passFile(ctx, "stream", f); err != nil {
		return err
	}
	capabilities := []object{
		{"capability": "x-ignore-shared", "state": true},
		{"capability": "events", "state": true},
	}
	if _, err := v.qmp.run(ctx, "migrate-set-capabilities", object{"capabilities": capabilities}); err != nil {
		return err
	}
	if command == "migrate" {
		// Nobody is served by a limit: the guest stands still meanwhile.
		if _, err := v.qmp.run(ctx, "migrate-set-parameters", object{"max-bandwidth": int64(1) << 40}); err != nil {
			return err
		}
	}
	if _, err := v.qmp.run(ctx, command, object{"uri": uri}); err != nil {
		return err
	}
	select {
	case status := <-finished:
		if status != "completed" {
			return v.migrationFault(ctx, status)
		}
		return nil
	case <-v.child.exited:
		return fmt.Errorf("QEMU ended: %w", v.child.failure())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (v *vm) migrationFault(ctx context.Context, status string) error {
	var m struct {
		Error string `json:"error-desc"`
	}
	if err := v.qmp.get(ctx, &m, "query-migrate", nil); err != nil || m.Error == "" {
		m.Error = v.child.stderr.String()
	}
	return fmt.Errorf("QEMU's migration %s: %s", status, m.Error)
}

// LoadSnapshot restores a guest. Its memory is a copy of the memory file, made
// now, so that any number of guests may be loaded from it at once and the file
// may go afterwards.
func (e *Engine) LoadSnapshot(ctx context.Context, cfg *fcemu.Config, p fcemu.SnapshotLoad, st io.Reader) error {
	if e.vm != nil {
		return errStarted
	}
	if t := p.MemBackend.BackendType; t != "" && t != "File" {
		return refuse("mem_backend " + t)
	}
	if p.ClockRealtime {
		return refuse("clock_realtime")
	}
	head, stream, err := e.readState(st)
	if err != nil {
		return err
	}
	defer stream.Close()
	for id, mac := range head.MACs {
		e.files.macs[id] = mac
	}
	if err := e.attachAll(ctx, cfg); err != nil {
		return err
	}
	mem, err := newMemory(int64(cfg.Machine.MemSizeMiB) << 20)
	if err != nil {
		return err
	}
	v, err := e.load(ctx, cfg, p, head, mem, stream)
	if err != nil {
		return err
	}
	v.paused, v.halted, v.balloonMiB = true, head.Halted, head.Balloon
	e.vm = v
	v.release()
	return nil
}

// load copies the memory while QEMU starts, and then feeds it the devices.
func (e *Engine) load(ctx context.Context, cfg *fcemu.Config, p fcemu.SnapshotLoad, head stateHeader, mem, stream *os.File) (*vm, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	copied := make(chan error, 1)
	dup, err := dupFile(mem) // spawn closes mem when it fails
	if err != nil {
		mem.Close()
		return nil, err
	}
	go func() {
		defer dup.Close()
		copied <- loadMemory(ctx, dup, int64(cfg.Machine.MemSizeMiB)<<20, p.MemBackend.BackendPath)
	}()
	v, err := e.spawn(ctx, cfg, machine{incoming: true}, mem)
	if err != nil {
		cancel()
		<-copied
		return nil, err
	}
	err = <-copied
	if err == nil && v.version != head.QEMU {
		err = fmt.Errorf("the snapshot was taken by QEMU %s, this is %s: their machines may differ", head.QEMU, v.version)
	}
	if err == nil {
		if err = v.migrate(ctx, stream, "migrate-incoming", "fd:stream"); err != nil {
			err = fmt.Errorf("load the devices: %w", err)
		}
	}
	if err == nil && cfg.Balloon != nil && cfg.Balloon.StatsPollingIntervalS > 0 {
		err = v.setBalloonPolling(ctx, cfg.Balloon.StatsPollingIntervalS)
	}
	if err != nil {
		v.abandon()
		return nil, err
	}
	return v, nil
}

func dupFile(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate a descriptor: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// attachAll opens what every device of a snapshot stands on, from the paths
// in it, here and now.
func (e *Engine) attachAll(ctx context.Context, cfg *fcemu.Config) error {
	type device struct{ section, id string }
	all := []device{{"machine-config", ""}}
	for _, d := range cfg.Drives {
		all = append(all, device{"drives", d.DriveID})
	}
	for _, n := range cfg.NetworkInterfaces {
		all = append(all, device{"network-interfaces", n.IfaceID})
	}
	if cfg.Vsock != nil {
		all = append(all, device{"vsock", ""})
	}
	for _, d := range all {
		if err := e.Attach(ctx, cfg, d.section, d.id); err != nil {
			return err
		}
	}
	return nil
}

// readState parses the engine's part of a state file. The stream's contents
// are QEMU's to judge.
func (e *Engine) readState(st io.Reader) (stateHeader, *os.File, error) {
	r := bufio.NewReader(st)
	head, err := readStateHeader(r)
	if err != nil {
		return head, nil, err
	}
	if head.Accelerator != e.accel.name {
		return head, nil, fmt.Errorf("the snapshot was taken under %q, this engine runs under %q: a guest can't change between them", head.Accelerator, e.accel.name)
	}
	stream, err := newMemory(0)
	if err != nil {
		return head, nil, err
	}
	if _, err := io.Copy(stream, r); err != nil {
		stream.Close()
		return head, nil, fmt.Errorf("read the devices' state: %w", err)
	}
	if _, err := stream.Seek(0, io.SeekStart); err != nil {
		stream.Close()
		return head, nil, fmt.Errorf("read the devices' state: %w", err)
	}
	return head, stream, nil
}

func readStateHeader(r *bufio.Reader) (stateHeader, error) {
	var head stateHeader
	line, err := readLine(r, maxStateHeader)
	if err != nil {
		return head, fmt.Errorf("read the engine's state: %w", err)
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return head, fmt.Errorf("read the engine's state: %w", err)
	}
	return head, nil
}
