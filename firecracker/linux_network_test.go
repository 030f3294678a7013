package firecracker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/testhost"
)

// shell is a shell in a guest, on its serial console.
type shell struct {
	t  *testing.T
	r  *Runtime
	id string
	n  int
}

// startShell waits for the guest and brings its shell up.
func startShell(t *testing.T, r *Runtime, id string) *shell {
	t.Helper()
	waitTicks(t, r, id, 1)
	must(t, typeIn(r, id, "\n"))
	s := &shell{t: t, r: r, id: id}
	s.run("true", "0")
	return s
}

// run types a command and waits for its exit code, and for out before that.
func (s *shell) run(command string, want string) string {
	s.t.Helper()
	s.n++
	// The echo of what is typed must not be taken for its output.
	mark := fmt.Sprintf("end-%s-%d-", s.id, s.n)
	must(s.t, typeIn(s.r, s.id, fmt.Sprintf("%s; echo %s\"\"$?\n", command, strings.Replace(mark, "end-", "e\"\"nd-", 1))))
	var got string
	eventually(s.t, command, func() bool {
		b, err := s.r.ConsoleTail(bg, s.id, -1)
		must(s.t, err)
		_, rest, ok := strings.Cut(string(b), mark)
		code, _, whole := strings.Cut(rest, "\n")
		got = strings.TrimSpace(code)
		return ok && whole
	})
	if want != "" && got != want {
		b, _ := s.r.ConsoleTail(bg, s.id, 30)
		s.t.Errorf("%s: %q ends with %s, not %s:\n%s", s.id, command, got, want, b)
	}
	return got
}

// reaches connects from the guest, and sees that something answers or that nothing does.
func (s *shell) reaches(addr string, yes bool) {
	s.t.Helper()
	host, port, _ := strings.Cut(addr, ":")
	want, wait := "0", 10
	if !yes {
		want, wait = "1", 1
	}
	s.run(fmt.Sprintf("echo hello | nc -w %d %s %s | grep -q .", wait, host, port), want)
}

// linuxNetworks are guests with networks, and servers around them.
func linuxNetworks(t *testing.T) (r *Runtime, w *testhost.World, spec microvm.Spec, six string) {
	testhost.Need(t)
	w = testhost.NewWorld(t)
	c := linuxConfig(t)
	c.Network.ResolvConf = filepath.Join(t.TempDir(), "resolv.conf")
	must(t, os.WriteFile(c.Network.ResolvConf, []byte("nameserver "+w.Addr(11)+"\n"), 0o600))
	c.Network.IPv6 = true
	six = w.Six(t)
	testhost.SetSysctl(t, "ipv6/conf/all/forwarding", "1")
	testhost.ServeNames(t, w.NS, w.Addr(11)+":53", "api.example.test", w.Addr(11))
	for _, a := range []string{w.Addr(10) + ":443", w.Addr(10) + ":80", w.Addr(11) + ":443", "169.254.169.254:80", "[" + six + "]:443", "[" + six + "]:80"} {
		testhost.Serve(t, w.NS, a)
	}
	testhost.Serve(t, "", w.Addr(1)+":22")
	spec = managed(w.Addr(10)+"/32:tcp:443", w.Addr(10)+"/32:icmp", "api.example.test:tcp:443", "["+six+"]:tcp:443")
	spec.Console = &microvm.Console{Input: true}
	return open(t, c), w, spec, six
}

func addressOf(t *testing.T, r *Runtime, id string) string {
	t.Helper()
	return mustGet(t, r, id).Addresses[0].String()
}

const thisHost = "/proc/self/ns/net"

// answers waits for a server to come.
func answers(t *testing.T, ns, addr string) {
	t.Helper()
	eventually(t, addr+" answers", func() bool {
		c := testhost.Dial(t, ns, "tcp", addr, 10*time.Second)
		if c != nil {
			c.Close()
		}
		return c != nil
	})
}

func TestALinuxGuestHasTheNetworkThatItsPolicyGivesIt(t *testing.T) {
	r, w, spec, six := linuxNetworks(t)
	spec.Network.Publish = []microvm.PublishedPort{{HostPort: 8091, GuestPort: 7777}}
	start(t, r, "a", spec)
	a := startShell(t, r, "a")

	a.reaches(w.Addr(10)+":443", true)
	for _, closed := range []string{w.Addr(10) + ":80", w.Addr(11) + ":443", "169.254.169.254:80", w.Addr(1) + ":22"} {
		a.reaches(closed, false)
	}
	a.run("echo hello | nc -w 10 "+six+" 443 | grep -q .", "0")
	a.run("echo hello | nc -w 1 "+six+" 80 | grep -q .", "1")
	a.run("ping -c 1 -W 10 "+w.Addr(10), "0")
	a.run("ping -c 1 -W 1 "+w.Addr(11), "1")
	if !testhost.Ping(t, thisHost, addressOf(t, r, "a"), 10*time.Second) {
		t.Error("the host can't ping the VM")
	}
	// The name opens what it resolves to, where there was no way before.
	a.run("nslookup other.example.test", "1")
	a.run("nslookup api.example.test | grep -q "+w.Addr(11), "0")
	a.reaches("api.example.test:443", true)
	a.run("(nc -ll -p 7777 -e cat &)", "0")
	answers(t, thisHost, addressOf(t, r, "a")+":7777")
	answers(t, w.NS, w.Addr(1)+":8091")

	must(t, r.UpdateEgress(bg, "a", microvm.Egress{Allow: spec.Network.Egress.Allow, Deny: spec.Network.Egress.Allow[:1]}))
	a.reaches(w.Addr(10)+":443", false)
	must(t, r.UpdateEgress(bg, "a", spec.Network.Egress))
	a.reaches(w.Addr(10)+":443", true)
}

func TestLinuxGuestsAndTheirClonesHaveNetworksOfTheirOwn(t *testing.T) {
	r, w, spec, _ := linuxNetworks(t)
	start(t, r, "a", spec)
	neighbour := managed()
	neighbour.Console = spec.Console
	start(t, r, "b", neighbour)
	a, b := startShell(t, r, "a"), startShell(t, r, "b")
	b.run("nslookup api.example.test", "1")
	b.run("(nc -ll -p 7777 -e cat &)", "0")
	answers(t, thisHost, addressOf(t, r, "b")+":7777")
	a.reaches(addressOf(t, r, "b")+":7777", false)

	must(t, r.SnapshotVM(bg, "a", "s"))
	clones := []string{"c1", "c2", "c3"}
	for _, id := range clones {
		clone(t, r, id, "a", "s")
	}
	seen := map[string]bool{}
	for _, id := range clones {
		s := &shell{t: t, r: r, id: id, n: 100}
		s.run("true", "0")
		s.reaches(w.Addr(10)+":443", true)
		s.reaches(w.Addr(11)+":443", false)
		seen[addressOf(t, r, id)] = true
	}
	if len(seen) != 3 {
		t.Errorf("the clones' addresses: %v", seen)
	}
}
