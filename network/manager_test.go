package network

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/testhost"
)

var bg = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openManager(t testing.TB, change func(*Config)) *Manager {
	t.Helper()
	testhost.Need(t)
	c := Config{Dir: t.TempDir(), ResolvConf: filepath.Join(t.TempDir(), "resolv.conf")}
	must(t, os.WriteFile(c.ResolvConf, []byte("nameserver 192.0.2.53\n"), 0o600)) // the machine's may be empty
	if change != nil {
		change(&c)
	}
	m, err := Open(c)
	must(t, err)
	t.Cleanup(func() { must(t, m.Close()) })
	t.Cleanup(func() { must(t, m.Drain()) })
	return m
}

func acquire(t testing.TB, m *Manager, uid string, o microvm.Network) Slot {
	t.Helper()
	s, err := m.Acquire(bg, uid, o)
	must(t, err)
	t.Cleanup(func() { must(t, m.Release(bg, uid)) })
	return s
}

func TestASlotIsMadeAndReleased(t *testing.T) {
	m := openManager(t, nil)
	t0 := time.Now()
	s, err := m.Acquire(bg, "a", microvm.Network{Egress: microvm.Egress{Allow: rules(t, "1.1.1.1/32:tcp:443", "example.org:tcp:443")}, Group: "g", MaxConnections: 10, LogDropped: true,
		Publish: []microvm.PublishedPort{{HostPort: 8080, GuestPort: 80}}})
	must(t, err)
	t.Logf("%+v in %v", s, time.Since(t0))
	t0 = time.Now()
	must(t, m.Release(bg, "a"))
	t.Log(time.Since(t0))
}

func TestNamespacesAreShownToIPNetnsWhenThatIsAskedFor(t *testing.T) {
	testhost.Need(t)
	must(t, unix.Mount("tmpfs", "/run", "tmpfs", 0, "")) // in the mount namespace of the tests
	t.Cleanup(func() { must(t, unix.Unmount("/run", unix.MNT_DETACH)) })
	m := openManager(t, func(c *Config) { c.IPNetns = true })
	s := acquire(t, m, "a", microvm.Network{})
	shown := filepath.Join("/run/netns", s.Link)
	var here, there unix.Stat_t
	must(t, unix.Stat(s.Namespace, &here))
	must(t, unix.Stat(shown, &there))
	if here.Ino != there.Ino {
		t.Error("another namespace is shown")
	}
	must(t, m.Release(bg, "a"))
	if _, err := os.Lstat(shown); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still shown: %v", err)
	}
	// Somebody else's stays.
	must(t, os.WriteFile(shown, nil, 0o600))
	defer os.Remove(shown)
	quiet := openManager(t, func(c *Config) { c.Pool = netip.PrefixFrom(s.Address.Prev(), 31) })
	eventually(t, "the kernel has ended the namespace", func() bool {
		_, err := quiet.Acquire(bg, "b", microvm.Network{})
		return err == nil
	})
	must(t, quiet.Release(bg, "b"))
	if _, err := os.Lstat(shown); err != nil {
		t.Error(err)
	}
}

func TestTheAddressesOfSlotsDoNotChangeUnderThem(t *testing.T) {
	testhost.Need(t)
	c := Config{Dir: t.TempDir(), Pool: netip.MustParsePrefix("10.116.0.0/24")}
	m := openOver(t, c)
	acquire(t, m, "a", microvm.Network{})
	for _, change := range []func(*Config){
		func(c *Config) { c.Pool = netip.MustParsePrefix("10.116.0.0/31") },
		func(c *Config) { c.Guest = netip.MustParsePrefix("172.31.0.2/30") },
		func(c *Config) { c.IPv6 = true },
	} {
		other := c
		change(&other)
		if o, err := Open(other); err == nil {
			o.Close()
			t.Errorf("%+v is taken", other)
		} else if !errors.Is(err, microvm.ErrInvalidSpec) || !strings.Contains(err.Error(), "pool 10.116.0.0/24") {
			t.Error(err)
		}
	}
	must(t, m.Release(bg, "a"))
	c.Pool = netip.MustParsePrefix("10.117.0.0/24")
	s := acquire(t, openOver(t, c), "b", microvm.Network{})
	if !c.Pool.Contains(s.Address) {
		t.Errorf("address %v", s.Address)
	}
	if _, err := m.Acquire(bg, "c", microvm.Network{}); err == nil {
		t.Error("the former one goes on with other addresses")
	}
}
