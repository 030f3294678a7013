package network

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
	"github.com/tangle-network/microvm/internal/testhost"
)

// left is what there is of ours on the host, whoever's: links, addresses and routes of
// the pool, tables, mounts, and files.
func left(t testing.TB, c Config) (out []string) {
	t.Helper()
	pool := c.Pool
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, linkPrefix) && within32(c, l.Attrs().Name) {
			out = append(out, "link "+l.Attrs().Name)
		}
	}
	addrs, err := netlink.AddrList(nil, unix.AF_INET)
	must(t, err)
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && pool.Contains(ip.Unmap()) {
			out = append(out, "address "+ip.String())
		}
	}
	routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	must(t, err)
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if ip, ok := netip.AddrFromSlice(r.Dst.IP); ok && pool.Contains(ip.Unmap()) {
			out = append(out, "route "+r.Dst.String())
		}
	}
	sum := newHostTable(tableOf(c.Dir)).t.Name
	tables, err := netfilter(t).ListTables()
	must(t, err)
	for _, table := range tables {
		if table.Name == sum {
			out = append(out, "table "+table.Name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, c.Dir) {
			out = append(out, "mount "+line)
		}
	}
	for _, dir := range []string{c.Dir, filepath.Join(c.Dir, "uids")} {
		files, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		for _, f := range files {
			if f.Name() != "table.lock" && f.Name() != "uids" && f.Name() != addressesFile {
				out = append(out, "file "+f.Name())
			}
		}
	}
	return out
}

func within32(c Config, link string) bool {
	_, ok := c.indexOf(link)
	return ok
}

func nothingLeft(t testing.TB, c Config) {
	t.Helper()
	// The kernel ends a namespace, and the pair that led into it, in its own time.
	end := time.Now().Add(20 * time.Second)
	for len(left(t, c)) > 0 && time.Now().Before(end) {
		time.Sleep(20 * time.Millisecond)
	}
	if l := left(t, c); len(l) > 0 {
		t.Errorf("%d things are left: %q", len(l), l[:min(len(l), 20)])
	}
}

// ruleset is the host's nftables in a form that can be compared.
func ruleset(t testing.TB) string {
	t.Helper()
	c := netfilter(t)
	chains, err := c.ListChains()
	must(t, err)
	var b strings.Builder
	for _, ch := range chains {
		if strings.HasPrefix(ch.Table.Name, tableName) {
			continue
		}
		rules, err := c.GetRules(ch.Table, ch)
		must(t, err)
		j, err := json.Marshal(rules)
		must(t, err)
		fmt.Fprintf(&b, "%s %s %s\n", ch.Table.Name, ch.Name, j)
	}
	return b.String()
}

func openOver(t testing.TB, c Config) *Manager {
	t.Helper()
	testhost.Need(t)
	m, err := Open(c)
	must(t, err)
	t.Cleanup(func() { must(t, m.Close()) })
	t.Cleanup(func() { must(t, m.Drain()) })
	return m
}

func dead(string) bool { return false }

func TestWhatNoLivingVMOwnsIsRemoved(t *testing.T) {
	c := Config{Dir: t.TempDir(), Pool: netip.MustParsePrefix("10.112.0.0/24")}
	m := openOver(t, c)
	for _, uid := range []string{"a", "b", "c"} {
		_, err := m.Acquire(bg, uid, microvm.Network{Group: "g"})
		must(t, err)
	}
	// Cut off in the middle: an index that was reserved, a namespace without an owner.
	free := 100
	for exists(m.slotPath(free)) {
		free++
	}
	must(t, os.Mkdir(m.slotPath(free), 0o700))
	must(t, os.Remove(m.slotPath(m.byUID["b"], "owner")))
	other := openOver(t, Config{Dir: t.TempDir(), Pool: c.Pool})
	theirs, err := other.Acquire(bg, "x", microvm.Network{})
	must(t, err)

	next := openOver(t, c)
	rep, err := next.Reconcile(bg, func(uid string) bool { return uid == "a" })
	must(t, err)
	if len(rep.Removed) != 3 || !slices.Contains(rep.Removed, "c") || len(rep.Failed)+len(rep.Busy)+len(rep.Mended) != 0 {
		t.Errorf("%+v", rep)
	}
	if _, err := next.Find("a"); err != nil {
		t.Error(err)
	}
	rep, err = next.Reconcile(bg, dead)
	must(t, err)
	if !slices.Equal(rep.Removed, []string{"a"}) {
		t.Errorf("%+v", rep)
	}
	// Theirs on the same pool are not touched.
	if _, err := netlink.LinkByName(theirs.Link); err != nil || !netns.Is(theirs.Namespace) {
		t.Errorf("the other program's network: %v", err)
	}
	must(t, other.Release(bg, "x"))
	nothingLeft(t, withDefaults(t, c))
}

func withDefaults(t testing.TB, c Config) Config {
	t.Helper()
	c, err := c.withDefaults()
	must(t, err)
	return c
}

func TestANetworkIsMadeWholeAgain(t *testing.T) {
	w := testhost.NewWorld(t)
	testhost.Serve(t, w.NS, w.Addr(10)+":443")
	m := openManager(t, func(c *Config) { c.NoServe = true }) // its sockets would keep the namespace
	s := acquire(t, m, "a", microvm.Network{Egress: microvm.Egress{Allow: rules(t, w.Addr(10)+"/32")}, Publish: []microvm.PublishedPort{{HostPort: 8099, GuestPort: 80}}})
	works := func() {
		t.Helper()
		g := newGuest(t, s)
		testhost.Serve(t, g.ns, ":80")
		g.reaches("tcp", w.Addr(10)+":443")
		g.doesNotReach("tcp", w.Addr(11)+":443")
		if testhost.Ask(t, w.NS, "tcp", w.Addr(1)+":8099", 5*time.Second) == "" {
			t.Error("the published port is not answered")
		}
		g.tap.Close() // the VMM ends
	}
	works()
	alive := func(string) bool { return true }
	for what, harm := range map[string]func(){
		"the host's nftables were flushed": func() {
			c := netfilter(t)
			c.DelTable(m.table.t)
			must(t, c.Flush())
		},
		"the host was booted": func() {
			must(t, netns.Unpin(s.Namespace))
			eventually(t, "the link is gone", func() bool { _, err := netlink.LinkByName(s.Link); return err != nil })
			c := netfilter(t)
			c.DelTable(m.table.t)
			must(t, c.Flush())
		},
		"the namespace's nftables were flushed": func() {
			must(t, netns.Inside(s.Namespace, func() error {
				c := netfilter(t)
				c.FlushRuleset()
				return c.Flush()
			}))
		},
		"the link was removed": func() {
			l, err := netlink.LinkByName(s.Link)
			must(t, err)
			must(t, netlink.LinkDel(l))
		},
	} {
		harm()
		rep, err := m.Reconcile(bg, alive)
		must(t, err)
		if !slices.Equal(rep.Mended, []string{"a"}) || len(rep.Failed) != 0 {
			t.Errorf("%s: %+v", what, rep)
		}
		works()
	}
	if again, err := m.Acquire(bg, "a", microvm.Network{}); err != nil || again.Address != s.Address || len(again.Options.Publish) != 1 {
		t.Errorf("acquired again: %+v, %v", again, err)
	}
}

func TestAnAddressIsNobodyElses(t *testing.T) {
	// Four slots, of which a foreign link has one and another program two.
	c := Config{Dir: t.TempDir(), Pool: netip.MustParsePrefix("10.113.0.0/29")}
	m, other := openOver(t, c), openOver(t, Config{Dir: t.TempDir(), Pool: c.Pool})
	foreign := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "foreign0"}, PeerName: "foreign1"}
	must(t, netlink.LinkAdd(foreign))
	defer netlink.LinkDel(foreign)
	must(t, netlink.AddrAdd(foreign, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 113, 0, 3), Mask: net.CIDRMask(32, 32)}}))
	must(t, netlink.LinkSetUp(foreign))
	seen := map[netip.Addr]bool{}
	take := func(m *Manager, uid string) error {
		s, err := m.Acquire(bg, uid, microvm.Network{})
		if err == nil {
			if seen[s.Address] || s.Address.String() == "10.113.0.3" {
				t.Errorf("%v was given twice", s.Address)
			}
			seen[s.Address] = true
			t.Cleanup(func() { must(t, m.Release(bg, uid)) })
		}
		return err
	}
	must(t, take(other, "x"))
	must(t, take(other, "y"))
	must(t, take(m, "a"))
	for _, m := range []*Manager{m, other} {
		if err := take(m, "z"); !errors.Is(err, ErrPoolFull) {
			t.Errorf("a fifth: %v", err)
		}
	}
	must(t, m.Release(bg, "a"))
	clear(seen)
	eventually(t, "the address is free again", func() bool { return take(other, "z") == nil })
}

// Twenty goroutines of a program that is killed again and again make and release
// networks: what the last one leaves, the next removes.
func TestNothingIsLeftOfProgramsThatWereKilled(t *testing.T) {
	testhost.Need(t)
	c := Config{Dir: t.TempDir(), Pool: netip.MustParsePrefix("10.114.0.0/22"), Slots: SlotPool{Min: 2, Max: 4}}
	before := ruleset(t)
	made := 0
	for round := 0; made < 200; round++ {
		made += churn(t, c, time.Duration(100+rand.IntN(400))*time.Millisecond)
		if round > 200 {
			t.Fatalf("%d networks after %d programs", made, round)
		}
	}
	t.Logf("%d networks", made)
	c.Slots = SlotPool{}
	m := openOver(t, c)
	rep, err := m.Reconcile(bg, dead)
	must(t, err)
	if len(rep.Failed)+len(rep.Busy) > 0 {
		t.Errorf("%+v", rep)
	}
	must(t, m.Drain())
	nothingLeft(t, withDefaults(t, c))
	if after := ruleset(t); after != before {
		t.Errorf("the host's rules were\n%s\nand are\n%s", before, after)
	}
}

const churnDir = "MICROVM_NETWORK_TEST_CHURN"

// churn runs a program for a while, kills it, and returns how many networks it made.
func churn(t *testing.T, c Config, d time.Duration) int {
	t.Helper()
	b, err := json.Marshal(c)
	must(t, err)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestChurnProgram$")
	cmd.Env = append(os.Environ(), churnDir+"="+string(b))
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	n := 0
	for s := bufio.NewScanner(out); s.Scan(); {
		switch text := s.Text(); {
		case text == "made":
			if n++; n == 1 {
				time.AfterFunc(d, func() { cmd.Process.Kill() })
			}
		case strings.HasPrefix(text, "error"):
			t.Error(text)
		}
	}
	if err := cmd.Wait(); cmd.ProcessState.Success() {
		t.Errorf("the program ended by itself: %v", err)
	}
	return n
}

func TestChurnProgram(t *testing.T) {
	text := os.Getenv(churnDir)
	if text == "" {
		t.Skip("is run by TestNothingIsLeftOfProgramsThatWereKilled, as a program")
	}
	var c Config
	must(t, json.Unmarshal([]byte(text), &c))
	m, err := Open(c)
	must(t, err)
	if _, err := m.Reconcile(bg, dead); err != nil {
		fmt.Println("error", err)
	}
	var wg sync.WaitGroup
	for g := range 20 {
		wg.Go(func() {
			for i := 0; ; i++ {
				uid := fmt.Sprintf("%d-%d-%d", os.Getpid(), g, i)
				o := microvm.Network{Egress: microvm.Egress{Allow: rules(t, "1.1.1.1/32:tcp:443")}, Publish: []microvm.PublishedPort{{HostPort: uint16(20000 + 1000*g + i), GuestPort: 80}}}
				if g%2 == 0 {
					o.Group = fmt.Sprint("g", g%4)
				}
				if _, err := m.Acquire(bg, uid, o); err != nil {
					fmt.Println("error", err)
					return
				}
				fmt.Println("made")
				if i%3 != 0 {
					continue // left for the next program
				}
				if err := m.Release(bg, uid); err != nil {
					fmt.Println("error", err)
				}
			}
		})
	}
	wg.Wait()
}

func TestForwardPolicyOfOthersIsNamed(t *testing.T) {
	// A pool of its own: the kernel may still be ending what other tests have had.
	m := openManager(t, func(c *Config) { c.Pool = netip.MustParsePrefix("10.118.0.0/24") })
	c := netfilter(t)
	closed := nftables.ChainPolicyDrop
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "filter"})
	ch := c.AddChain(&nftables.Chain{Table: table, Name: "FORWARD", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &closed})
	must(t, c.Flush())
	drop := func() { c.DelTable(table); c.Flush() }
	defer drop()
	open := microvm.Network{Egress: microvm.Egress{Default: microvm.EgressAllow}}
	_, err := m.Acquire(bg, "a", open)
	if !errors.Is(err, microvm.ErrHost) || !strings.Contains(err.Error(), "chain FORWARD of the host's table ip filter") || !strings.Contains(err.Error(), "iptables -I FORWARD -i 'mv+'") {
		t.Errorf("%v", err)
	}
	if l := left(t, m.cfg); len(l) > 0 {
		t.Errorf("left: %q", l)
	}
	acquire(t, m, "closed", microvm.Network{}) // needs nothing of the host
	c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: rule(meta(expr.MetaKeyIIFNAME, reg0), is([]byte(linkPrefix)...), accept())})
	must(t, c.Flush())
	acquire(t, m, "b", open)
	drop()

	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0))
	defer os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
	if _, err := m.Acquire(bg, "d", open); !errors.Is(err, microvm.ErrHost) || !strings.Contains(err.Error(), "sysctl -w net.ipv4.ip_forward=1") {
		t.Errorf("%v", err)
	}
}
