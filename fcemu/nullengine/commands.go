package nullengine

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tangle-network/microvm/fcemu"
)

// Commands are what the boot args tell a null guest to do. All times are
// measured while it runs: a paused guest waits.
type Commands struct {
	Seed        uint64        // fcemu.seed=N
	Pages       uint64        // fcemu.pages=N, or fcemu.dirty=MiB
	Tick        time.Duration // fcemu.tick=DURATION
	Rewrite     uint64        // fcemu.rewrite=N: pages written again per tick
	Console     bool          // fcemu.console=lines:COUNT:RATE
	Lines       uint64        // COUNT, 0 without end
	Echo        bool          // fcemu.echo
	RebootAfter time.Duration // fcemu.reboot_after=DURATION, -1 never
	PanicAfter  time.Duration // fcemu.panic_after=DURATION
	HaltAfter   time.Duration // fcemu.poweroff_after=DURATION
	FaultAfter  time.Duration // fcemu.fault_after=DURATION
	IgnoreKeys  bool          // fcemu.ignore_cad
	DiskWriter  string        // fcemu.disk_writer=DRIVE
	VsockAfter  time.Duration // fcemu.vsock_after=DURATION: connections wait until then
	ListenAfter time.Duration // fcemu.listen_after=DURATION: connections are refused until then
	VsockMute   uint64        // fcemu.vsock_mute=N: the first N connections get no answer
	VsockDial   uint32        // fcemu.vsock_dial=PORT: the guest calls the host, once
	RebootCode  int           // 1 with reboot=t, else 0
	PanicWait   time.Duration // panic=SECONDS; negative: never leaves
}

const (
	never        = time.Duration(-1)
	defaultPages = 16
	defaultTick  = 100 * time.Millisecond
)

// ParseCommands reads the guest's commands from its boot args. Arguments that
// do not begin with "fcemu." are not looked at, except for reboot= and panic=.
func ParseCommands(bootArgs string) (Commands, error) {
	c := Commands{Pages: defaultPages, RebootAfter: never, PanicAfter: never, HaltAfter: never, FaultAfter: never, PanicWait: never}
	kernel, _ := fcemu.SplitBootArgs(bootArgs)
	for _, arg := range strings.Fields(kernel) {
		name, value, _ := strings.Cut(arg, "=")
		var err error
		switch name {
		case "reboot":
			if value == "t" || value == "triple" {
				c.RebootCode = 1
			}
		case "panic":
			c.PanicWait, err = panicWait(value)
		default:
			if strings.HasPrefix(name, "fcemu.") {
				err = c.set(name[len("fcemu."):], value)
			}
		}
		if err != nil {
			return c, fmt.Errorf("boot_args: %s: %w", arg, err)
		}
	}
	if c.Tick == 0 && (c.Rewrite > 0 || c.DiskWriter != "") {
		c.Tick = defaultTick
	}
	return c, nil
}

func panicWait(value string) (time.Duration, error) {
	n, err := strconv.Atoi(value)
	switch {
	case err != nil:
		return never, err
	case n == 0:
		return never, nil
	case n < 0:
		return 0, nil
	}
	return time.Duration(n) * time.Second, nil
}

func (c *Commands) set(name, value string) (err error) {
	switch name {
	case "seed":
		c.Seed, err = strconv.ParseUint(value, 0, 64)
	case "pages":
		c.Pages, err = strconv.ParseUint(value, 10, 40)
	case "dirty":
		c.Pages, err = strconv.ParseUint(value, 10, 32)
		c.Pages *= (1 << 20) / PageSize
	case "tick":
		c.Tick, err = duration(value)
		if err == nil && c.Tick < time.Millisecond {
			err = fmt.Errorf("want at least 1ms")
		}
	case "rewrite":
		c.Rewrite, err = strconv.ParseUint(value, 10, 32)
	case "console":
		err = c.console(value)
	case "echo":
		c.Echo = true
	case "reboot_after":
		c.RebootAfter, err = duration(value)
	case "panic_after":
		c.PanicAfter, err = duration(value)
	case "poweroff_after":
		c.HaltAfter, err = duration(value)
	case "fault_after":
		c.FaultAfter, err = duration(value)
	case "ignore_cad":
		c.IgnoreKeys = true
	case "disk_writer":
		c.DiskWriter = value
	case "vsock_after":
		c.VsockAfter, err = duration(value)
	case "listen_after":
		c.ListenAfter, err = duration(value)
	case "vsock_mute":
		c.VsockMute, err = strconv.ParseUint(value, 10, 32)
	case "vsock_dial":
		var port uint64
		port, err = strconv.ParseUint(value, 10, 32)
		c.VsockDial = uint32(port)
	default:
		err = fmt.Errorf("the null guest knows no such command (docs/emulator.md lists them)")
	}
	return err
}

func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil && d < 0 {
		err = fmt.Errorf("want a duration of 0 or more")
	}
	return d, err
}

// console takes lines:COUNT:RATE, a rate of lines per second; 0 means without
// end, and as fast as it goes.
func (c *Commands) console(value string) error {
	parts := strings.Split(value, ":")
	if len(parts) != 3 || parts[0] != "lines" {
		return fmt.Errorf("want lines:COUNT:RATE")
	}
	rate, err := strconv.ParseUint(parts[2], 10, 32)
	if err == nil {
		c.Lines, err = strconv.ParseUint(parts[1], 10, 63)
	}
	if err != nil {
		return err
	}
	c.Console = true
	c.Tick = time.Microsecond // as fast as it goes
	if rate > 0 {
		c.Tick = max(time.Second/time.Duration(rate), time.Microsecond)
	}
	return nil
}
