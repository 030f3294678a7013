package firecracker

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/testhost"
	"github.com/tangle-network/microvm/network"
)

func TestTheAddressGoesBeforeWhatBelongsToInit(t *testing.T) {
	t.Parallel()
	s := &network.Slot{Guest: netip.MustParsePrefix("172.30.0.2/30"), Gateway: netip.MustParseAddr("172.30.0.1")}
	const ip = "ip=172.30.0.2::172.30.0.1:255.255.255.252::eth0:off:172.30.0.1"
	for in, want := range map[string]string{
		"": ip,
		"console=ttyS0 console=tty0 panic=1 init=/bin/sh -- -c \"echo a  b; reboot -f\"": "console=ttyS0 console=tty0 panic=1 init=/bin/sh " + ip + " -- -c \"echo a  b; reboot -f\"",
		"foo --bar":      "foo --bar " + ip,
		"a  b":           "a  b " + ip,
		"-- x":           ip + " -- x",
		"a -- ip=1 -- b": "a " + ip + " -- ip=1 -- b",
		"ip=dhcp a":      "ip=dhcp a",
		"a --":           "a " + ip + " --",
		"a\t--\tb":       "a\t " + ip + " --\tb",
		"x--y -- z":      "x--y " + ip + " -- z",
	} {
		if got := withAddress(in, s); got != want {
			t.Errorf("%q:\ngot  %q\nwant %q", in, got, want)
		}
	}
	s.Guest6, s.Gateway6 = netip.MustParsePrefix("fd00::2/64"), netip.MustParseAddr("fd00::1")
	if got := withAddress("a -- b", s); got != "a "+ip+" microvm.ip6=fd00::2/64,fd00::1 -- b" {
		t.Errorf("with IPv6: %q", got)
	}
}

// networked is a configuration whose VMs can have networks.
func networked(t testing.TB) Config {
	t.Helper()
	testhost.Need(t)
	return testConfig(t)
}

func managed(allow ...string) microvm.Spec {
	n := &microvm.Network{}
	for _, a := range allow {
		r, err := microvm.ParseEgressRule(a)
		if err != nil {
			panic(err)
		}
		n.Egress.Allow = append(n.Egress.Allow, r)
	}
	return microvm.Spec{Network: n}
}

func slots(t testing.TB, c Config) int {
	t.Helper()
	m, err := filepath.Glob(filepath.Join(c.StateDir, networksName, "[0-9]*"))
	must(t, err)
	return len(m)
}

func TestAVMHasItsNetworkForAllItsLife(t *testing.T) {
	t.Parallel()
	c := networked(t)
	r := open(t, c)
	must(t, r.CreateVMWithSpec(bg, "a", managed("1.1.1.1/32:tcp:443")))
	v := mustGet(t, r, "a")
	if len(v.Addresses) != 1 {
		t.Fatalf("addresses: %v", v.Addresses)
	}
	at := v.Addresses[0]
	same := func(when, id string) {
		t.Helper()
		v := mustGet(t, r, id)
		if !slices.Equal(v.Addresses, []netip.Addr{at}) {
			t.Errorf("%s: addresses %v, not %v", when, v.Addresses, at)
		}
		here, err := os.Readlink("/proc/self/ns/net")
		must(t, err)
		if v.PID == 0 {
			return
		}
		there, err := os.Readlink(filepath.Join("/proc", itoa(v.PID), "ns/net"))
		must(t, err)
		if here == there {
			t.Errorf("%s: the VMM is not in a namespace of its own", when)
		}
	}
	same("created", "a")
	must(t, r.StartVM(bg, "a"))
	must(t, r.RenameVM(bg, "a", "b"))
	same("renamed", "b")
	must(t, r.SnapshotVM(bg, "b", "s"))
	must(t, r.StopVM(bg, "b"))
	same("stopped", "b")
	must(t, r.StartVM(bg, "b"))
	same("started again", "b")
	must(t, r.UpdateEgress(bg, "b", microvm.Egress{Default: microvm.EgressAllow}))

	for _, id := range []string{"c", "d", "e"} {
		must(t, r.CreateVMWithSpec(bg, id, microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "b", SnapshotID: "s", ResumeImmediately: true}}))
		if got := mustGet(t, r, id).Addresses; len(got) != 1 || got[0] == at {
			t.Errorf("clone %s: addresses %v", id, got)
		}
	}
	if n := slots(t, c); n != 4 {
		t.Errorf("%d slots for 4 VMs", n)
	}
	for _, id := range []string{"b", "c", "d", "e"} {
		must(t, r.DestroyVM(bg, id))
		if got := mustGet(t, r, id).Addresses; got != nil {
			t.Errorf("a destroyed VM has addresses: %v", got)
		}
	}
	if n := slots(t, c); n != 0 {
		t.Errorf("%d slots are left", n)
	}
}

func TestPortsAreNotTakenOverByAClone(t *testing.T) {
	t.Parallel()
	r := open(t, networked(t))
	s := managed()
	s.Network.Publish = []microvm.PublishedPort{{HostPort: 21080, GuestPort: 80}}
	start(t, r, "a", s)
	must(t, r.SnapshotVM(bg, "a", "s"))
	from := &microvm.RestoreFrom{VMID: "a", SnapshotID: "s"}
	must(t, r.CreateVMWithSpec(bg, "b", microvm.Spec{RestoreFrom: from}))
	if v := mustGet(t, r, "b"); len(v.Ports) != 0 {
		t.Errorf("ports: %v", v.Ports)
	}
	err := r.CreateVMWithSpec(bg, "c", microvm.Spec{RestoreFrom: from, Network: s.Network})
	if !errors.As(err, new(*network.PortTakenError)) || !strings.Contains(err.Error(), `VM "a" has it`) || !strings.Contains(err.Error(), "network.publish") {
		t.Errorf("%v", err)
	}
	if _, err := r.GetVM(bg, "c"); !errors.Is(err, microvm.ErrVMNotFound) {
		t.Errorf("what could not be made is there: %v", err)
	}
	other := *s.Network
	other.Publish = []microvm.PublishedPort{{HostPort: 21081, GuestPort: 80}}
	must(t, r.CreateVMWithSpec(bg, "c", microvm.Spec{RestoreFrom: from, Network: &other}))
	if v := mustGet(t, r, "c"); len(v.Ports) != 1 || v.Ports[0].HostPort != 21081 {
		t.Errorf("ports: %v", v.Ports)
	}
}

// A TAP serves one VMM at a time, and a snapshot names one.
func TestClonesThatStartAtOnceEachHaveATAP(t *testing.T) {
	t.Parallel()
	c := networked(t)
	r := open(t, c)
	start(t, r, "a", managed())
	must(t, r.SnapshotVM(bg, "a", "s"))
	const n = 32
	var all sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		all.Go(func() {
			errs[i] = r.CreateVMWithSpec(bg, fmt.Sprint("clone", i), microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s", ResumeImmediately: true}})
		})
	}
	all.Wait()
	must(t, errors.Join(errs...))
	seen := map[netip.Addr]bool{}
	for i := range n {
		seen[mustGet(t, r, fmt.Sprint("clone", i)).Addresses[0]] = true
	}
	if len(seen) != n {
		t.Errorf("%d addresses for %d clones", len(seen), n)
	}
	for i := range n {
		all.Go(func() { errs[i] = r.DestroyVM(bg, fmt.Sprint("clone", i)) })
	}
	all.Wait()
	must(t, errors.Join(errs...))
}

// A VMM that is about to die holds its TAP: the next one waits for that, not for luck.
func TestATAPIsFreeWhenAVerbHasReturned(t *testing.T) {
	t.Parallel()
	c := networked(t)
	c.Network.Pool = netip.MustParsePrefix("10.77.0.0/30") // two slots: always the same ones
	c.Network.Slots = network.SlotPool{Max: 1}
	r := open(t, c)
	s := managed()
	s.StopMode = microvm.StopModeShutdown
	start(t, r, "a", s)
	must(t, r.SnapshotVM(bg, "a", "s"))
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	for i := range rounds {
		must(t, r.StopVM(bg, "a"))
		must(t, r.StartVM(bg, "a"))
		id := fmt.Sprint("b", i)
		must(t, r.CreateVMWithSpec(bg, id, microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s", ResumeImmediately: true}}))
		must(t, r.DestroyVM(bg, id))
	}
	must(t, r.DestroyVM(bg, "a"))
	_, err := r.CleanNetworks(bg)
	must(t, err)
	if n := slots(t, c); n != 0 {
		t.Errorf("%d slots are left", n)
	}
}

// Links and TAPs have names of 15 characters, sockets of 107 bytes.
func TestTheLongestNamesHaveNetworks(t *testing.T) {
	t.Parallel()
	c := networked(t)
	c.StateDir = filepath.Join(c.StateDir, strings.Repeat("d", 150), strings.Repeat("e", 150))
	r := open(t, c)
	id := strings.Repeat("x", 60) + "._-9"
	s := managed()
	s.Vsock = &microvm.Vsock{}
	s.Network.Group = strings.Repeat("g", 60) + "._-9"
	start(t, r, id, s)
	must(t, r.DestroyVM(bg, id))
	// A chain's name has at most 127 bytes, and those that nft has words for are names too.
	for i, group := range []string{"drop", "accept", "-", ".", "..", "0"} {
		s := managed()
		s.Network.Group = group
		id := fmt.Sprint("a", i)
		must(t, r.CreateVMWithSpec(bg, id, s))
		must(t, r.DestroyVM(bg, id))
	}
}

// A clone's guest has its address in its memory: in a network of another it would be
// mute.
func TestAGuestIsNotBroughtToANetworkThatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	c := networked(t)
	first, err := Open(bg, c)
	must(t, err)
	start(t, first, "a", managed())
	must(t, first.SnapshotVM(bg, "a", "s"))
	must(t, first.DestroyVM(bg, "a"))
	must(t, first.Close())

	c.Network.Guest = netip.MustParsePrefix("192.168.7.2/24")
	r := open(t, c)
	err = r.CreateVMWithSpec(bg, "b", microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s"}})
	if !errors.Is(err, microvm.ErrInvalidSpec) || !strings.Contains(err.Error(), "[172.30.0.2/30], which the guest has in its memory") {
		t.Errorf("%v", err)
	}
	if n := slots(t, c); n != 0 {
		t.Errorf("%d slots are left", n)
	}
	must(t, r.CreateVMWithSpec(bg, "c", managed()))
}

func itoa(n int) string { return strconv.Itoa(n) }
