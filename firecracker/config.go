package firecracker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/console"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/network"
)

// Config says where things are and what a spec that leaves fields out gets. The
// zero value is useful: each field names its default.
type Config struct {
	// StateDir holds everything; default DefaultStateDir(). It is made with mode
	// 0700. Snapshots and clones are cheap when it is on a file system with
	// reflinks (xfs, btrfs).
	StateDir string
	// Binary is the VMM, a path or a name on PATH; default "firecracker".
	Binary string
	// Env is added to the VMM's environment, which otherwise holds PATH alone;
	// a PATH in it takes the place of this program's.
	Env []string

	// Defaults for specs. Initrd goes with Kernel: a spec that names a kernel of
	// its own does not get it.
	Kernel, Initrd, Rootfs string
	RootfsReadOnly         bool
	BootArgs               string // default DefaultBootArgs
	VCPUs                  int    // default 2
	MemoryMiB              int    // default 1024
	// DefaultNetwork is the network of VMs whose spec has neither a Network nor
	// NetworkInterfaces; default: none.
	DefaultNetwork *microvm.Network

	// APITimeout bounds each API call but snapshots' and loads'; default 5 s. What
	// a new VMM is told goes in one.
	APITimeout time.Duration
	// SocketReadyTimeout bounds the time from the start of the VMM to its API;
	// default 5 s.
	SocketReadyTimeout time.Duration
	// ShutdownGrace is how long a guest may take to shut down when asked;
	// default 10 s. Negative: the guest is not asked.
	ShutdownGrace time.Duration
	// TermGrace is the time between SIGTERM and SIGKILL; default 1 s.
	TermGrace time.Duration

	// ConsoleBytes and LogBytes bound the guest's console and the VMM's log of
	// each VM on disk; default 1 MiB, at least 64 KiB.
	ConsoleBytes, LogBytes int64
	// SerialBytesPerSecond limits the serial output of guests whose spec sets no
	// limit, where the VMM can (Firecracker since 1.16): it bounds how much a
	// console grows while no program trims it. Default 1 MiB/s; negative: none.
	SerialBytesPerSecond int64

	// VerifyRestore checks all checksums of a snapshot before it is restored,
	// which reads all of it. Without, sizes and the state's checksum are checked.
	VerifyRestore bool
	// NoRecovery leaves recovery and the forgetting of tombstones to the caller:
	// Open changes nothing then. Call Recover before any verb.
	NoRecovery bool
	// TombstoneRetention is after how long a destroyed VM without snapshots is
	// forgotten, by Open; default 7 days. Negative: never.
	TombstoneRetention time.Duration

	// Network says how managed networks are made: its Dir and Log are the Runtime's.
	Network network.Config

	// Log receives what no caller can be told; default: nothing is logged.
	Log *slog.Logger

	// failpoint is called at every stage boundary of every verb; tests fail or
	// kill there.
	failpoint func(ctx context.Context, name string) error
	// diskFault fails a step of writing a record.
	diskFault func(op record.Op, path string) error
	// emulatedDefects gives the emulator the defects of the release that it
	// emulates, for tests.
	emulatedDefects bool
	// transferBase is what a snapshot's creation or load may take whatever its
	// size; default 1 min. Tests have less.
	transferBase time.Duration
}

// DefaultBootArgs makes the serial port the console, and a reboot or a panic end
// the VMM.
const DefaultBootArgs = "console=ttyS0 reboot=k panic=1"

// DefaultStateDir is /var/lib/microvm for root, else $XDG_STATE_HOME/microvm,
// where XDG_STATE_HOME defaults to ~/.local/state.
func DefaultStateDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/microvm", nil
	}
	if d := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "microvm"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the state directory: %w (set StateDir or MICROVM_STATE_DIR)", err)
	}
	return filepath.Join(home, ".local", "state", "microvm"), nil
}

func (c Config) withDefaults() (Config, error) {
	if c.StateDir == "" {
		d, err := DefaultStateDir()
		if err != nil {
			return c, err
		}
		c.StateDir = d
	}
	abs, err := filepath.Abs(c.StateDir)
	if err != nil {
		return c, fmt.Errorf("state directory: %w", err)
	}
	c.StateDir = abs
	set := func(p *time.Duration, d time.Duration) {
		if *p == 0 {
			*p = d
		}
	}
	set(&c.APITimeout, 5*time.Second)
	set(&c.SocketReadyTimeout, 5*time.Second)
	set(&c.ShutdownGrace, 10*time.Second)
	set(&c.TermGrace, time.Second)
	set(&c.transferBase, time.Minute)
	set(&c.TombstoneRetention, 7*24*time.Hour)
	if c.Binary == "" {
		c.Binary = "firecracker"
	}
	if c.BootArgs == "" {
		c.BootArgs = DefaultBootArgs
	}
	if c.VCPUs == 0 {
		c.VCPUs = 2
	}
	if c.MemoryMiB == 0 {
		c.MemoryMiB = 1024
	}
	if c.SerialBytesPerSecond == 0 {
		c.SerialBytesPerSecond = 1 << 20
	}
	for _, b := range []struct {
		name string
		p    *int64
	}{{"ConsoleBytes", &c.ConsoleBytes}, {"LogBytes", &c.LogBytes}} {
		if *b.p == 0 {
			*b.p = 1 << 20
		}
		if *b.p < console.MinBound {
			return c, &microvm.FieldError{Field: b.name, Value: strconv.FormatInt(*b.p, 10), Rule: fmt.Sprintf("at least %d", console.MinBound)}
		}
	}
	if c.APITimeout < 0 || c.SocketReadyTimeout < 0 || c.TermGrace < 0 {
		return c, &microvm.FieldError{Field: "APITimeout, SocketReadyTimeout, TermGrace", Value: "negative", Rule: "positive, or 0 for the default"}
	}
	if c.DefaultNetwork != nil {
		if err := c.DefaultNetwork.Validate(); err != nil {
			return c, fmt.Errorf("DefaultNetwork: %w", err)
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// FromEnv reads a Config from MICROVM_… variables; what is unset keeps its
// default. A value that can't be parsed is an error, all of them at once.
//
//	MICROVM_FIRECRACKER_BIN          Binary
//	MICROVM_KERNEL, MICROVM_INITRD   Kernel, Initrd
//	MICROVM_ROOTFS, MICROVM_ROOTFS_RO  Rootfs, RootfsReadOnly (1, 0, true, false)
//	MICROVM_BOOT_ARGS                BootArgs
//	MICROVM_STATE_DIR                StateDir
//	MICROVM_VCPU_COUNT               VCPUs (default 2)
//	MICROVM_MEM_MIB                  MemoryMiB (default 1024)
//	MICROVM_API_TIMEOUT_MS           APITimeout (default 5000)
//	MICROVM_SOCKET_READY_TIMEOUT_MS  SocketReadyTimeout (default 5000)
//	MICROVM_COMPOSE_GRACEFUL_SHUTDOWN  0 or false: ShutdownGrace is -1
//	MICROVM_COMPOSE_NETWORK          1 or true: DefaultNetwork is a closed managed network
//	MICROVM_COMPOSE_FIREWALL         0 or false: that network's egress is open (Egress.Default)
//	MICROVM_NETWORK_MTU              that network's MTU
//	MICROVM_NETWORK_SUBNET           Network.Pool, such as 10.111.0.0/16
//	MICROVM_NETWORK_IPV6             Network.IPv6
//
// Accepted and not used are MICROVM_SOCKET_DIR (sockets live in the VM's directory),
// MICROVM_NETWORK_BRIDGE, MICROVM_NETWORK_EGRESS, MICROVM_FIREWALL_CHAIN_PREFIX and
// MICROVM_IPTABLES_BIN (there is no bridge, no chain and no fork: see package network).
//
// Each may also be written with MICROVM_FIRECRACKER_ in place of MICROVM_.
// FCEMU_ENGINE, FCEMU_EMULATE_VERSION and FCEMU_FAULT are handed on to the VMM.
func FromEnv() (Config, error) { return fromEnv(os.LookupEnv) }

func fromEnv(lookup func(string) (string, bool)) (Config, error) {
	var c Config
	var errs []error
	get := func(name string) string {
		if v, ok := lookup("MICROVM_FIRECRACKER_" + name); ok && name != "BIN" {
			return v
		}
		v, _ := lookup("MICROVM_" + name)
		return v
	}
	bad := func(name, value, rule string) {
		errs = append(errs, &microvm.FieldError{Field: "MICROVM_" + name, Value: strconv.Quote(value), Rule: rule})
	}
	number := func(name string, into *int, lo, hi int) {
		if v := get(name); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil || n < lo || n > hi {
				bad(name, v, fmt.Sprintf("a number from %d to %d", lo, hi))
				return
			}
			*into = n
		}
	}
	millis := func(name string, into *time.Duration) {
		n := 0
		number(name, &n, 1, 86_400_000)
		*into = time.Duration(n) * time.Millisecond
	}
	boolean := func(name string, otherwise bool) bool {
		v := get(name)
		switch strings.ToLower(v) {
		case "":
			return otherwise
		case "1", "true":
			return true
		case "0", "false":
			return false
		}
		bad(name, v, "1, 0, true or false")
		return otherwise
	}
	c.Binary, _ = lookup("MICROVM_FIRECRACKER_BIN")
	c.Kernel, c.Initrd, c.Rootfs = get("KERNEL"), get("INITRD"), get("ROOTFS")
	c.BootArgs, c.StateDir = get("BOOT_ARGS"), get("STATE_DIR")
	c.RootfsReadOnly = boolean("ROOTFS_RO", false)
	number("VCPU_COUNT", &c.VCPUs, 1, microvm.MaxVCPUs)
	number("MEM_MIB", &c.MemoryMiB, 1, microvm.MaxMemoryMiB)
	millis("API_TIMEOUT_MS", &c.APITimeout)
	millis("SOCKET_READY_TIMEOUT_MS", &c.SocketReadyTimeout)
	if !boolean("COMPOSE_GRACEFUL_SHUTDOWN", true) {
		c.ShutdownGrace = -1
	}
	if boolean("COMPOSE_NETWORK", false) {
		c.DefaultNetwork = &microvm.Network{}
		number("NETWORK_MTU", &c.DefaultNetwork.MTU, 68, 1500)
		if !boolean("COMPOSE_FIREWALL", true) {
			c.DefaultNetwork.Egress.Default = microvm.EgressAllow
		}
	}
	c.Network.IPv6 = boolean("NETWORK_IPV6", false)
	if v := get("NETWORK_SUBNET"); v != "" {
		p, err := netip.ParsePrefix(v)
		if err != nil {
			bad("NETWORK_SUBNET", v, "an IPv4 network, such as 10.111.0.0/16")
		}
		c.Network.Pool = p
	}
	if boolean("COMPOSE_JAILER", false) {
		errs = append(errs, fmt.Errorf("MICROVM_COMPOSE_JAILER: %w by this release: unset it or set it to 0", microvm.ErrUnsupported))
	}
	for _, name := range []string{"FCEMU_ENGINE", "FCEMU_EMULATE_VERSION", "FCEMU_FAULT"} {
		if v, ok := lookup(name); ok {
			c.Env = append(c.Env, name+"="+v)
		}
	}
	return c, errors.Join(errs...)
}
