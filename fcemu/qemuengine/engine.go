//go:build linux

package qemuengine

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"time"

	"github.com/tangle-network/microvm/fcemu"
)

// Options are what New needs. The descriptors in EngineOptions are the guest's
// serial port unless PUT /serial names a file; stdout becomes non-blocking at
// the start of the guest, as it does under Firecracker.
type Options struct {
	fcemu.EngineOptions
	// QEMU and VhostDeviceVsock name the programs; by default
	// qemu-system-x86_64 and vhost-device-vsock are looked up in PATH.
	QEMU, VhostDeviceVsock string
}

const (
	defaultQEMU = "qemu-system-x86_64"
	// startTimeout bounds how long QEMU may take to answer at all.
	startTimeout = time.Minute
	// quitTimeout bounds how long QEMU may take to write back and leave.
	quitTimeout = 10 * time.Second
)

// Engine runs one Linux guest in QEMU. Its methods are for one goroutine at a
// time, as fcemu.Engine says.
type Engine struct {
	opt   Options
	qemu  string
	accel accelerator
	files resources
	vsock *vsock
	ended chan fcemu.End
	vm    *vm // nil before the start
}

var _ fcemu.Engine = (*Engine)(nil)

// New finds QEMU and chooses between KVM and TCG. No process is started yet.
func New(opt Options) (fcemu.Engine, error) {
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("the qemu engine runs x86-64 guests on x86-64 hosts only, this host is %s: use --engine null", runtime.GOARCH)
	}
	if opt.Log == nil {
		opt.Log = func(fcemu.Level, string) {}
	}
	if opt.QEMU == "" {
		opt.QEMU = defaultQEMU
	}
	if opt.VhostDeviceVsock == "" {
		opt.VhostDeviceVsock = "vhost-device-vsock"
	}
	qemu, err := exec.LookPath(opt.QEMU)
	if err != nil {
		return nil, fmt.Errorf("the qemu engine needs QEMU (Debian: apt install qemu-system-x86): %w", err)
	}
	accel, err := chooseAccelerator()
	if err != nil {
		return nil, err
	}
	e := &Engine{opt: opt, qemu: qemu, accel: accel, files: newResources(), ended: make(chan fcemu.End, 1)}
	e.logf(fcemu.LevelInfo, "The qemu engine runs %s with %s.", qemu, accel.why)
	if opt.BootTimer {
		e.logf(fcemu.LevelWarn, "The qemu engine has no device for --boot-timer: no boot time will be logged.")
	}
	return e, nil
}

func (e *Engine) logf(level fcemu.Level, format string, args ...any) {
	e.opt.Log(level, fmt.Sprintf(format, args...))
}

// Name is "qemu".
func (e *Engine) Name() string { return "qemu" }

// Ended delivers the end of the guest, once.
func (e *Engine) Ended() <-chan fcemu.End { return e.ended }

var (
	errStarted    = errors.New("the guest has been started already")
	errNotStarted = errors.New("the guest has not been started")
)

// Start boots the guest.
func (e *Engine) Start(ctx context.Context, cfg *fcemu.Config) error {
	if e.vm != nil {
		return errStarted
	}
	if e.files.kernel == nil {
		return errors.New("no kernel: PUT /boot-source first")
	}
	pvh, err := checkKernel(e.files.kernel)
	if err != nil {
		return fmt.Errorf("kernel_image_path: %w", err)
	}
	if !pvh {
		return errors.New("kernel_image_path: this vmlinux has no PVH entry point, without which QEMU can't boot an ELF: build it with CONFIG_PVH=y (Linux 5.0 or newer; Debian's kernels have it)")
	}
	if err := checkMachine(&cfg.Machine); err != nil {
		return err
	}
	size := int64(cfg.Machine.MemSizeMiB) << 20
	mem, err := newMemory(size)
	if err != nil {
		return err
	}
	m := machine{kernel: handPath(e.files.kernel), bootArgs: bootArgs(cfg.BootSource.BootArgs, rootOf(cfg), e.accel.name)}
	if e.files.initrd != nil {
		m.initrd = handPath(e.files.initrd)
	}
	v, err := e.spawn(ctx, cfg, m, mem)
	if err != nil {
		return err
	}
	if err := e.boot(ctx, cfg, v); err != nil {
		v.abandon()
		return err
	}
	e.vm = v
	if e.vsock != nil {
		e.vsock.plugged = true
		e.openVsock()
	}
	v.release()
	return nil
}

func (e *Engine) boot(ctx context.Context, cfg *fcemu.Config, v *vm) error {
	if b := cfg.Balloon; b != nil && b.AmountMiB > 0 {
		if err := v.setBalloon(ctx, b.AmountMiB); err != nil {
			return err
		}
	}
	if b := cfg.Balloon; b != nil && b.StatsPollingIntervalS > 0 {
		if err := v.setBalloonPolling(ctx, b.StatsPollingIntervalS); err != nil {
			return err
		}
	}
	return v.cont(ctx)
}

// rootOf is the root drive's part of the kernel command line.
func rootOf(cfg *fcemu.Config) *rootDrive {
	for i := range cfg.Drives {
		d := &cfg.Drives[i]
		if !d.IsRootDevice {
			continue
		}
		r := &rootDrive{readOnly: d.IsReadOnly != nil && *d.IsReadOnly}
		if d.PartUUID != nil {
			r.partUUID = *d.PartUUID
		}
		return r
	}
	return nil
}

// Pause stops the vCPUs.
func (e *Engine) Pause(ctx context.Context) error {
	if e.vm == nil {
		return errNotStarted
	}
	if e.vm.paused || e.vm.isHalted() {
		e.vm.paused = true
		return nil
	}
	if err := e.unplugVsock(ctx); err != nil {
		e.openVsock()
		e.awaitVsock()
		return err
	}
	if _, err := e.vm.qmp.run(ctx, "stop", nil); err != nil {
		return fmt.Errorf("pause the guest: %w", err)
	}
	e.vm.paused = true
	return nil
}

// Resume continues the vCPUs. Keys pressed while they stood still arrive now.
func (e *Engine) Resume(ctx context.Context) error {
	if e.vm == nil {
		return errNotStarted
	}
	if !e.vm.paused {
		return nil
	}
	if e.vm.isHalted() { // its vCPUs have nothing to continue with
		e.vm.paused = false
		return nil
	}
	plugged, err := e.plugVsock(ctx)
	if err != nil {
		return err
	}
	if err := e.vm.cont(ctx); err != nil {
		return err
	}
	e.vm.paused = false
	e.openVsock()
	e.awaitVsock()
	if plugged {
		e.settleVsock(ctx)
	}
	if e.vm.keysWaiting {
		e.vm.keysWaiting = false
		return e.vm.ctrlAltDel(ctx)
	}
	return nil
}

// CtrlAltDel presses the keys on the guest's PS/2 keyboard.
func (e *Engine) CtrlAltDel(ctx context.Context) error {
	switch {
	case e.vm == nil:
		return errNotStarted
	case e.vm.isHalted():
		return nil
	case e.vm.paused:
		e.vm.keysWaiting = true
		return nil
	}
	return e.vm.ctrlAltDel(ctx)
}

// Close kills the guest and everything around it.
func (e *Engine) Close() error {
	if e.vsock != nil {
		e.vsock.stopWaiting()
	}
	e.closeVsock()
	if e.vm != nil {
		e.vm.abandon()
		e.vm = nil
	}
	e.files.close()
	return nil
}
