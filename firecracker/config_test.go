package firecracker

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/network"
)

func env(m map[string]string) func(string) (string, bool) {
	return func(k string) (string, bool) { v, ok := m[k]; return v, ok }
}

func TestFromEnvReadsTheVariables(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  map[string]string
		want Config
	}{
		"nothing set": {nil, Config{}},
		"everything": {map[string]string{
			"MICROVM_FIRECRACKER_BIN": "/opt/firecracker", "MICROVM_KERNEL": "/k", "MICROVM_INITRD": "/i", "MICROVM_ROOTFS": "/r",
			"MICROVM_ROOTFS_RO": "1", "MICROVM_BOOT_ARGS": "quiet", "MICROVM_STATE_DIR": "/s", "MICROVM_VCPU_COUNT": "4",
			"MICROVM_MEM_MIB": "256", "MICROVM_API_TIMEOUT_MS": "1500", "MICROVM_SOCKET_READY_TIMEOUT_MS": "700",
			"MICROVM_COMPOSE_GRACEFUL_SHUTDOWN": "false", "MICROVM_COMPOSE_NETWORK": "1", "MICROVM_COMPOSE_FIREWALL": "0",
			"MICROVM_NETWORK_SUBNET": "10.9.0.0/16", "MICROVM_NETWORK_MTU": "1400", "MICROVM_NETWORK_IPV6": "true", "FCEMU_ENGINE": "null", "FCEMU_EMULATE_VERSION": "1.7.0", "FCEMU_FAULT": "delay:PUT /actions",
		}, Config{
			Binary: "/opt/firecracker", Kernel: "/k", Initrd: "/i", Rootfs: "/r", RootfsReadOnly: true, BootArgs: "quiet", StateDir: "/s",
			VCPUs: 4, MemoryMiB: 256, APITimeout: 1500 * time.Millisecond, SocketReadyTimeout: 700 * time.Millisecond, ShutdownGrace: -1,
			DefaultNetwork: &microvm.Network{MTU: 1400, Egress: microvm.Egress{Default: microvm.EgressAllow}},
			Network:        network.Config{Pool: netip.MustParsePrefix("10.9.0.0/16"), IPv6: true},
			Env:            []string{"FCEMU_ENGINE=null", "FCEMU_EMULATE_VERSION=1.7.0", "FCEMU_FAULT=delay:PUT /actions"},
		}},
		"a network that is closed":  {map[string]string{"MICROVM_COMPOSE_NETWORK": "1"}, Config{DefaultNetwork: &microvm.Network{}}},
		"a network that is not had": {map[string]string{"MICROVM_COMPOSE_NETWORK": "0", "MICROVM_NETWORK_BRIDGE": "br0"}, Config{}},
		"the longer name wins":      {map[string]string{"MICROVM_FIRECRACKER_KERNEL": "/long", "MICROVM_KERNEL": "/short"}, Config{Kernel: "/long"}},
	} {
		got, err := fromEnv(env(c.env))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.want, got, cmpopts.IgnoreUnexported(Config{}), cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestFromEnvNamesEveryBadVariable(t *testing.T) {
	t.Parallel()
	bad := map[string]string{
		"MICROVM_VCPU_COUNT": "33", "MICROVM_MEM_MIB": "lots", "MICROVM_API_TIMEOUT_MS": "0", "MICROVM_ROOTFS_RO": "perhaps",
		"MICROVM_COMPOSE_JAILER": "1", "MICROVM_NETWORK_SUBNET": "10.9.0.1", "MICROVM_COMPOSE_NETWORK": "on",
	}
	_, err := fromEnv(env(bad))
	if err == nil {
		t.Fatal("accepted")
	}
	for name := range bad {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
	if !errors.Is(err, microvm.ErrInvalidSpec) || !errors.Is(err, microvm.ErrUnsupported) {
		t.Errorf("kinds: %v", err)
	}
}

func TestDefaultsAreFilledIn(t *testing.T) {
	t.Parallel()
	c, err := Config{StateDir: "relative"}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c.StateDir, "/") || c.VCPUs != 2 || c.MemoryMiB != 1024 || c.APITimeout != 5*time.Second ||
		c.ConsoleBytes != 1<<20 || c.Binary != "firecracker" || c.BootArgs != DefaultBootArgs {
		t.Errorf("%+v", c)
	}
	for name, bad := range map[string]Config{
		"ConsoleBytes": {ConsoleBytes: 1}, "LogBytes": {LogBytes: -1}, "APITimeout": {APITimeout: -1},
	} {
		bad.StateDir = "s"
		if _, err := bad.withDefaults(); !errors.Is(err, microvm.ErrInvalidSpec) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheStateDirectoryDependsOnTheUser(t *testing.T) {
	c, err := DefaultStateDir()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if c != "/var/lib/microvm" {
			t.Errorf("root's is %s", c)
		}
		return
	}
	t.Setenv("XDG_STATE_HOME", "/xdg")
	if c, err = DefaultStateDir(); err != nil || c != "/xdg/microvm" {
		t.Errorf("%s, %v", c, err)
	}
}
