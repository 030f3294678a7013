package firecracker

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	nl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/network"
)

// netsVariable orders the test's program to make VMs with networks, until it is killed.
const netsVariable = "MICROVM_TEST_NETS"

// hostState is what the host's network has: links, addresses, routes, and every byte that
// the kernel tells of its nftables.
func hostState(t testing.TB) (out []string) {
	t.Helper()
	links, err := netlink.LinkList()
	for errors.Is(err, netlink.ErrDumpInterrupted) {
		links, err = netlink.LinkList()
	}
	must(t, err)
	for _, l := range links {
		out = append(out, "link "+l.Attrs().Name)
	}
	addrs, err := netlink.AddrList(nil, unix.AF_UNSPEC)
	for errors.Is(err, netlink.ErrDumpInterrupted) {
		addrs, err = netlink.AddrList(nil, unix.AF_UNSPEC)
	}
	must(t, err)
	for _, a := range addrs {
		out = append(out, "address "+a.String())
	}
	for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
		all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
		routes, err := netlink.RouteListFiltered(fam, all, netlink.RT_FILTER_TABLE)
		for errors.Is(err, netlink.ErrDumpInterrupted) {
			routes, err = netlink.RouteListFiltered(fam, all, netlink.RT_FILTER_TABLE)
		}
		must(t, err)
		for _, r := range routes {
			out = append(out, "route "+r.String())
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, " nsfs ") {
			out = append(out, "mount "+strings.TrimSpace(line))
		}
	}
	return append(out, rulesOnHost(t)...)
}

// rulesOnHost are the kernel's own words about its nftables.
func rulesOnHost(t testing.TB) (out []string) {
	t.Helper()
	c, err := nl.Dial(unix.NETLINK_NETFILTER, nil)
	must(t, err)
	defer c.Close()
	dump := func(what string, kind int, attrs ...nl.Attribute) {
		b, err := nl.MarshalAttributes(attrs)
		must(t, err)
		msgs, err := c.Execute(nl.Message{
			Header: nl.Header{Type: nl.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: nl.Request | nl.Dump},
			Data:   append([]byte{unix.AF_UNSPEC, 0, 0, 0}, b...),
		})
		must(t, err)
		for _, m := range msgs {
			// Behind the number of the last transaction.
			out = append(out, what+" "+hex.EncodeToString(m.Data[:1])+hex.EncodeToString(m.Data[4:]))
		}
	}
	dump("table", unix.NFT_MSG_GETTABLE)
	dump("chain", unix.NFT_MSG_GETCHAIN)
	dump("rule", unix.NFT_MSG_GETRULE)
	dump("set", unix.NFT_MSG_GETSET)
	dump("object", unix.NFT_MSG_GETOBJ)
	tables, err := (&nftables.Conn{}).ListTables()
	must(t, err)
	for _, table := range tables {
		sets, err := (&nftables.Conn{}).GetSets(table)
		must(t, err)
		for _, s := range sets {
			elems, err := (&nftables.Conn{}).GetSetElements(s)
			must(t, err)
			for _, e := range elems {
				out = append(out, fmt.Sprintf("element of %s %s: %x %x", table.Name, s.Name, e.Key, e.Val))
			}
		}
	}
	return out
}

// foreignRules are those of somebody else on the host.
func foreignRules(t testing.TB) {
	t.Helper()
	c := &nftables.Conn{}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "foreign"})
	pass := nftables.ChainPolicyAccept
	ch := c.AddChain(&nftables.Chain{Table: table, Name: "forward", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &pass})
	set := &nftables.Set{Table: table, Name: "ports", KeyType: nftables.TypeInetService}
	must(t, c.AddSet(set, []nftables.SetElement{{Key: []byte{0, 22}}, {Key: []byte{1, 187}}}))
	c.AddRule(&nftables.Rule{Table: table, Chain: ch, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}})
	must(t, c.Flush())
	t.Cleanup(func() {
		c.DelTable(table)
		must(t, c.Flush())
	})
}

// Twenty goroutines of a program make and destroy VMs with networks. It is killed again
// and again, and started anew, and recovers. When all VMs are destroyed nothing is left of
// them, and what is the host's own is as it was.
func TestNothingIsLeftOfTheNetworksOfKilledPrograms(t *testing.T) {
	if under.real {
		t.Skip("200 VMs are for the emulator's null engine, and MICROVM_TEST_FIRECRACKER is set")
	}
	c := networked(t)
	c.Network = network.Config{Pool: netip.MustParsePrefix("10.116.0.0/16"), Slots: network.SlotPool{Min: 2, Max: 4}}
	c.APITimeout, c.SocketReadyTimeout = time.Minute, time.Minute
	c.BootArgs = DefaultBootArgs
	foreignRules(t)
	wanted := 200
	if testing.Short() {
		wanted = 60
		t.Log("60 VMs instead of 200: -short")
	}
	// What earlier tests have given back, the kernel may still be ending.
	before := hostState(t)
	for quiet, end := time.Now(), time.Now().Add(5*time.Second); time.Since(quiet) < 300*time.Millisecond; time.Sleep(20 * time.Millisecond) {
		now := hostState(t)
		if !slices.Equal(now, before) {
			if time.Now().After(end) {
				t.Fatalf("the host does not come to rest: %q, then %q", before, now)
			}
			before, quiet = now, time.Now()
		}
	}
	began := time.Now()
	made, programs := 0, 0
	for ; made < wanted; programs++ {
		if made >= 60 && time.Since(began) > 25*time.Second {
			t.Logf("%d VMs instead of %d: the machine is slow, and 25 s are over", made, wanted)
			break
		}
		if programs > wanted {
			t.Fatalf("%d VMs by %d programs", made, programs)
		}
		made += netsProgram(t, c, time.Duration(300+rand.IntN(900))*time.Millisecond)
	}
	t.Logf("%d VMs by %d programs in %v", made, programs, time.Since(began))

	c.Network.Slots = network.SlotPool{}
	// What is younger than a minute might be in the making, and recovery would leave it.
	young, err := filepath.Glob(filepath.Join(c.StateDir, "vms", ".*"))
	must(t, err)
	for _, path := range young {
		must(t, os.Chtimes(path, began.Add(-time.Hour), began.Add(-time.Hour)))
	}
	r := open(t, c)
	// Open's own recovery makes a bounded number of repairs.
	got, err := r.Recover(bg, RecoverOptions{Repairs: -1})
	must(t, err)
	if len(got.Busy)+len(got.Deferred)+len(got.SetAside) > 0 {
		t.Errorf("recovery: %+v", got)
	}
	views, err := r.ListVMs(bg)
	must(t, err)
	for _, v := range views {
		if v.Status != microvm.StatusDestroyed {
			must(t, r.DestroyVM(bg, v.ID))
		}
	}
	rep, err := r.CleanNetworks(bg)
	if err != nil || len(rep.Failed)+len(rep.Busy)+len(rep.Mended) > 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	views, err = r.ListVMs(bg)
	must(t, err)
	for _, v := range views {
		if v.Status != microvm.StatusDestroyed || v.Trouble != "" {
			t.Errorf("%s is %s, %s", v.ID, v.Status, v.Trouble)
		}
	}
	must(t, r.Close())
	if left := leftovers(c.StateDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	// The kernel ends a namespace, and the links that lead into it, in its own time.
	var after []string
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if after = hostState(t); slices.Equal(after, before) {
			t.Logf("all is gone after %v", time.Since(began))
			return
		}
	}
	for _, s := range after {
		if !slices.Contains(before, s) {
			t.Errorf("is left: %.200s", s)
		}
	}
	for _, s := range before {
		if !slices.Contains(after, s) {
			t.Errorf("is missing: %.200s", s)
		}
	}
}

// netsProgram runs a program until d after its first VM, kills it, and returns how many
// VMs it has made.
func netsProgram(t *testing.T, c Config, d time.Duration) (made int) {
	t.Helper()
	c.Log = nil
	b, err := json.Marshal(c)
	must(t, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), netsVariable+"="+string(b))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	for lines := bufio.NewScanner(out); lines.Scan(); {
		switch {
		case lines.Text() != "made":
			t.Error(lines.Text())
		default:
			if made++; made == 1 {
				time.AfterFunc(d, func() { cmd.Process.Kill() })
			}
		}
	}
	if err := cmd.Wait(); cmd.ProcessState.Exited() {
		t.Errorf("the program has ended by itself: %v", err)
	}
	return made
}

// anyNetwork is a random one. The ports are few: some are another VM's.
func anyNetwork() (*microvm.Network, error) {
	n := &microvm.Network{MaxConnections: rand.IntN(2) * 100, LogDropped: rand.IntN(4) == 0}
	rules := []string{"1.1.1.1/32:tcp:443", "8.8.8.0/24:udp:53", "192.0.2.0/24", "example.org:tcp:443", "*.example.net:tcp:80", "10.116.0.1/32:tcp:1-1000"}
	for _, i := range rand.Perm(len(rules))[:rand.IntN(len(rules))] {
		r, err := microvm.ParseEgressRule(rules[i])
		if err != nil {
			return nil, err
		}
		n.Egress.Allow = append(n.Egress.Allow, r)
	}
	if rand.IntN(4) == 0 {
		n.Egress.Default = microvm.EgressAllow
	}
	if rand.IntN(2) == 0 {
		n.Group = fmt.Sprint("g", rand.IntN(3))
	}
	for range rand.IntN(3) {
		n.Publish = append(n.Publish, microvm.PublishedPort{HostPort: uint16(20000 + rand.IntN(200)), GuestPort: 80, HostIP: []netip.Addr{{}, netip.MustParseAddr("127.0.0.1")}[rand.IntN(2)]})
	}
	if n.Validate() != nil { // one port twice
		n.Publish = nil
	}
	return n, nil
}

// runNets is the program.
func runNets(order string) error {
	var c Config
	if err := json.Unmarshal([]byte(order), &c); err != nil {
		return err
	}
	ctx := context.Background()
	r, err := Open(ctx, c)
	if err != nil {
		return err
	}
	views, err := r.ListVMs(ctx)
	if err != nil {
		return err
	}
	// Half of what the former program has left.
	left := make(chan string, len(views))
	for i, v := range views {
		if v.Status != microvm.StatusDestroyed && i%2 == 0 {
			left <- v.ID
		}
	}
	close(left)
	say := func(err error) {
		if err != nil {
			fmt.Println("error:", strings.ReplaceAll(err.Error(), "\n", " "))
		}
	}
	var next atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for id := range left {
				say(r.DestroyVM(ctx, id))
			}
			for {
				n, err := anyNetwork()
				if err != nil {
					say(err)
					return
				}
				id := fmt.Sprintf("%d-%d", os.Getpid(), next.Add(1))
				err = r.CreateVMWithSpec(ctx, id, microvm.Spec{Network: n})
				if errors.As(err, new(*network.PortTakenError)) {
					continue
				}
				if err != nil {
					say(err)
					return
				}
				fmt.Println("made")
				if rand.IntN(3) == 0 {
					say(r.StartVM(ctx, id))
				}
				if rand.IntN(3) == 0 {
					say(r.UpdateEgress(ctx, id, microvm.Egress{Default: microvm.EgressAllow}))
				}
				if rand.IntN(2) == 0 {
					say(r.DestroyVM(ctx, id))
				}
			}
		})
	}
	wg.Wait()
	return r.Close()
}
