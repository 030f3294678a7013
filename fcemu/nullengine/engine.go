package nullengine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/tangle-network/microvm/fcemu"
)

// Options are what New needs.
type Options struct {
	fcemu.EngineOptions
	// Vsock answers the host's connections; Echo by default.
	Vsock Handler
}

// Engine is a guest that isn't there. Its methods are for one goroutine at a
// time, as fcemu.Engine says.
type Engine struct {
	opt   Options
	files map[string]*os.File // kernel and initrd
	taps  map[string]int
	vsock *vsock
	ended chan fcemu.End
	once  sync.Once

	// From the start on.
	mem     *memory
	uffd    *faultHandler
	console *console
	echo    *echo
	guest   *guest
	pmem    map[string]*os.File
	cooked  func() // gives the terminal back

	mu       sync.Mutex
	counters map[string]uint64
}

var (
	_ fcemu.Engine        = (*Engine)(nil)
	_ fcemu.Hotplugger    = (*Engine)(nil)
	_ fcemu.MemoryPlugger = (*Engine)(nil)
)

// New makes an engine; nothing runs yet.
func New(opt Options) *Engine {
	if opt.Log == nil {
		opt.Log = func(fcemu.Level, string) {}
	}
	if opt.Vsock == nil {
		opt.Vsock = Echo
	}
	return &Engine{
		opt: opt, files: map[string]*os.File{}, taps: map[string]int{}, pmem: map[string]*os.File{},
		ended: make(chan fcemu.End, 1), counters: map[string]uint64{},
	}
}

// Name is "null".
func (e *Engine) Name() string { return "null" }

// Ended delivers the end of the guest, once.
func (e *Engine) Ended() <-chan fcemu.End { return e.ended }

func (e *Engine) end(end fcemu.End) { e.once.Do(func() { e.ended <- end }) }

func (e *Engine) count(name string, n uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.counters[name] += n
}

// Counters are the metrics since the start of the process.
func (e *Engine) Counters() map[string]uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make(map[string]uint64, len(e.counters))
	for name, n := range e.counters {
		out[name] = n
	}
	return out
}

var errNotStarted = errors.New("the guest has not been started")

// Attach opens what Firecracker opens when a device is PUT.
func (e *Engine) Attach(_ context.Context, cfg *fcemu.Config, section, id string) error {
	switch section {
	case "boot-source":
		return e.openBootSource(&cfg.BootSource)
	case "network-interfaces":
		n, err := nic(cfg, id)
		if err != nil {
			return err
		}
		return e.openTap(n)
	case "vsock":
		return e.openVsock(cfg.Vsock)
	case "balloon":
		if cfg.Balloon.FreePageHinting {
			return errors.New("the null engine of fcemu does not emulate free_page_hinting")
		}
	case "machine-config", "drives", "entropy", "serial", "pmem", "hotplug/memory", "cpu-config", "mmds/config":
		// There is nothing to open, or it is opened at the start.
	default:
		return fmt.Errorf("the null engine of fcemu does not emulate %s", section)
	}
	return nil
}

func nic(cfg *fcemu.Config, id string) (*fcemu.NetworkInterface, error) {
	at := slices.IndexFunc(cfg.NetworkInterfaces, func(n fcemu.NetworkInterface) bool { return n.IfaceID == id })
	if at < 0 {
		return nil, fmt.Errorf("network interface %q: not configured", id)
	}
	return &cfg.NetworkInterfaces[at], nil
}

// Start boots the guest.
func (e *Engine) Start(_ context.Context, cfg *fcemu.Config) (err error) {
	if e.guest != nil {
		return errors.New("the guest has been started already")
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.drop())
		}
	}()
	if err := e.checkKernel(cfg); err != nil {
		return err
	}
	if e.mem, err = newMemory(cfg); err != nil {
		return err
	}
	if err := e.prepare(cfg); err != nil {
		return err
	}
	if err := e.guest.boot(); err != nil {
		return err
	}
	if err := e.inflate(cfg); err != nil {
		return err
	}
	e.guest.print("null guest: Kernel command line: " + kernelCommandLine(cfg, e.opt.PCI))
	return e.run()
}

// prepare makes the guest of a configuration whose memory is there.
func (e *Engine) prepare(cfg *fcemu.Config) (err error) {
	args := fcemu.DefaultBootArgs
	if a := cfg.BootSource.BootArgs; a != nil {
		args = *a
	}
	cmd, err := ParseCommands(args)
	if err != nil {
		return err
	}
	if e.console, err = openConsole(e.opt.Stdout, cfg.Serial, e.count); err != nil {
		return err
	}
	if e.cooked, err = rawTerminal(e.opt.Stdin); err != nil {
		return err
	}
	e.guest = &guest{cmd: cmd, mem: e.mem, console: e.console, count: e.count, ended: e.end}
	if cmd.DiskWriter != "" {
		if err := e.openDiskWriter(cfg, cmd.DiskWriter); err != nil {
			return err
		}
	}
	for i := range cfg.Pmem {
		if err := e.openPmem(&cfg.Pmem[i]); err != nil {
			return err
		}
	}
	if e.vsock != nil {
		e.vsock.serve(cmd, e.guest.print)
	}
	return nil
}

// run lets the guest go on.
func (e *Engine) run() error {
	if e.guest.cmd.Echo && e.opt.Stdin >= 0 && e.echo == nil {
		var err error
		if e.echo, err = startEcho(e.opt.Stdin, e.console); err != nil {
			return err
		}
	}
	if e.vsock != nil {
		e.vsock.run(e.guest.uptime())
	}
	e.guest.start()
	return nil
}

// stop pauses the guest.
func (e *Engine) stop() error {
	if e.echo != nil {
		e.echo.stop()
		e.echo = nil
	}
	if e.vsock != nil {
		e.vsock.halt()
	}
	return e.guest.stop()
}

// Pause stops the guest.
func (e *Engine) Pause(context.Context) error {
	if e.guest == nil {
		return errNotStarted
	}
	return e.stop()
}

// Resume continues the guest.
func (e *Engine) Resume(context.Context) error {
	if e.guest == nil {
		return errNotStarted
	}
	return e.run()
}

// CtrlAltDel presses the keys: a null guest restarts at once, which ends it.
func (e *Engine) CtrlAltDel(context.Context) error {
	if e.guest == nil {
		return errNotStarted
	}
	return e.guest.pressKeys()
}

// Close ends the guest and closes everything.
func (e *Engine) Close() error {
	errs := []error{e.drop()}
	e.vsock.close()
	e.vsock = nil
	for id := range e.taps {
		e.closeTap(id)
	}
	for name, f := range e.files {
		errs = append(errs, f.Close())
		delete(e.files, name)
	}
	return errors.Join(errs...)
}

// drop gives back what a start or a load has made; devices stay.
func (e *Engine) drop() error {
	var errs []error
	if e.guest != nil {
		if e.echo != nil {
			e.echo.stop()
			e.echo = nil
		}
		if e.vsock != nil {
			e.vsock.halt()
			e.vsock.reset()
		}
		e.guest.halt()
		if e.guest.drive != nil {
			errs = append(errs, e.guest.drive.Close())
		}
		e.guest = nil
	}
	if e.cooked != nil {
		e.cooked()
		e.cooked = nil
	}
	e.console.close()
	for id, f := range e.pmem {
		errs = append(errs, f.Close())
		delete(e.pmem, id)
	}
	errs = append(errs, e.uffd.close(), e.mem.close())
	e.console, e.uffd, e.mem = nil, nil, nil
	return errors.Join(errs...)
}
