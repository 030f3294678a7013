package firecracker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/testhost"
	"github.com/tangle-network/microvm/network"
)

func TestVMsOutliveTheProgramThatMadeThem(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	cmd := child{Config: c, Stay: true, Steps: []step{
		{Verb: "create", ID: "a", Spec: microvm.Spec{Vsock: &microvm.Vsock{}}}, {Verb: "start", ID: "a"},
		{Verb: "create", ID: "b"},
		{Verb: "create", ID: "c", Spec: microvm.Spec{StopMode: microvm.StopModePause}}, {Verb: "start", ID: "c"}, {Verb: "stop", ID: "c"},
	}}.command(t)
	stdin, err := cmd.StdinPipe() // keeps it waiting
	must(t, err)
	defer stdin.Close()
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "done\n" {
		t.Fatalf("the program said %q, %v", line, err)
	}
	// Another program sees the VMs at once, and can work with them.
	r := open(t, c)
	pid := mustGet(t, r, "a").PID
	must(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	must(t, r.Close())

	r = open(t, c)
	for id, want := range map[string]microvm.Status{"a": microvm.StatusRunning, "b": microvm.StatusCreated, "c": microvm.StatusStopped} {
		if v := mustGet(t, r, id); v.Status != want || v.PID == 0 {
			t.Errorf("%s is %s, pid %d", id, v.Status, v.PID)
		}
	}
	if got := mustGet(t, r, "a").PID; got != pid {
		t.Errorf("a's VMM was %d, is %d", pid, got)
	}
	n := len(counts(t, r, "a"))
	eventually(t, "a's console goes on", func() bool { return len(counts(t, r, "a")) > n+1 })
	must(t, r.StartVM(bg, "b"))
	must(t, r.StartVM(bg, "c"))
	must(t, r.StopVM(bg, "a"))
	must(t, syscall.Kill(pid, syscall.SIGKILL)) // nobody's child here
	eventually(t, "its death is noted", func() bool {
		v := mustGet(t, r, "a")
		return v.StopReason != nil && v.StopReason.Cause == microvm.StopVMMDied
	})
}

// scenario is a verb in a state of affairs.
type scenario struct {
	setup []step
	verb  step
}

func scenarios() map[string]scenario {
	hibernate := microvm.Spec{StopMode: microvm.StopModeHibernate}
	shutdown := microvm.Spec{StopMode: microvm.StopModeShutdown}
	from := microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s", ResumeImmediately: true}}
	run := func(s microvm.Spec, more ...step) []step {
		return append([]step{{Verb: "create", ID: "a", Spec: s}, {Verb: "start", ID: "a"}}, more...)
	}
	snap, stop := step{Verb: "snapshot", ID: "a", Other: "s"}, step{Verb: "stop", ID: "a"}
	start := step{Verb: "start", ID: "a"}
	all := map[string]scenario{
		"create":             {nil, step{Verb: "create", ID: "a"}},
		"restore":            {run(microvm.Spec{}, snap), step{Verb: "create", ID: "b", Spec: from}},
		"start created":      {[]step{{Verb: "create", ID: "a"}}, start},
		"start paused":       {run(microvm.Spec{}, stop), start},
		"start hibernated":   {run(hibernate, stop), start},
		"start shut down":    {run(shutdown, stop), start},
		"pause":              {run(microvm.Spec{}), stop},
		"hibernate":          {run(hibernate), stop},
		"shutdown":           {run(shutdown), stop},
		"snapshot running":   {run(microvm.Spec{}), snap},
		"snapshot created":   {[]step{{Verb: "create", ID: "a"}}, snap},
		"delete snapshot":    {run(microvm.Spec{}, snap), step{Verb: "delete", ID: "a", Other: "s"}},
		"destroy running":    {run(microvm.Spec{}, snap), step{Verb: "destroy", ID: "a"}},
		"destroy hibernated": {run(hibernate, stop), step{Verb: "destroy", ID: "a"}},
		"fork running":       {run(microvm.Spec{}), step{Verb: "fork", ID: "a", Other: "b"}},
		"rename running":     {run(microvm.Spec{}), step{Verb: "rename", ID: "a", Other: "b"}},
	}
	if testhost.Have() {
		net := microvm.Spec{Network: &microvm.Network{Group: "g", Publish: []microvm.PublishedPort{{HostPort: 21000, GuestPort: 80}}}}
		netShutdown := net
		netShutdown.StopMode = microvm.StopModeShutdown
		all["create with network"] = scenario{nil, step{Verb: "create", ID: "a", Spec: net}}
		all["restore with network"] = scenario{run(net, snap), step{Verb: "create", ID: "b", Spec: from}}
		all["start with network"] = scenario{run(netShutdown, stop), start}
		all["destroy with network"] = scenario{run(net), step{Verb: "destroy", ID: "a"}}
		all["egress"] = scenario{run(net), step{Verb: "egress", ID: "a"}}
	}
	return all
}

// situation is what queries say.
func situation(t *testing.T, r *Runtime) string {
	t.Helper()
	views, err := r.ListVMs(bg)
	must(t, err)
	var b strings.Builder
	for _, v := range views {
		fmt.Fprintf(&b, "%s %s %v", v.ID, v.Status, v.Snapshots)
		if len(v.Addresses) > 0 {
			rec, err := r.store.Load(v.ID)
			must(t, err)
			s, _, err := r.Network(bg, v.ID)
			if errors.Is(err, network.ErrNoSlot) {
				b.WriteString(" without its network; ")
				continue
			}
			must(t, err)
			fmt.Fprintf(&b, " open %q, in fact %q", rec.Spec.Network.Egress.Default, s.Options.Egress.Default)
		}
		b.WriteString("; ")
	}
	return b.String()
}

// course runs a scenario undisturbed: the situations before and after its verb,
// and the failpoints that the verb passes.
func course(t *testing.T, s scenario) (before, after string, points []string) {
	t.Helper()
	c := testConfig(t)
	var mu sync.Mutex
	record := false
	c.failpoint = func(_ context.Context, name string) error {
		mu.Lock()
		defer mu.Unlock()
		if record {
			points = append(points, name)
		}
		return nil
	}
	r := open(t, c)
	for _, st := range s.setup {
		must(t, st.run(bg, r))
	}
	before = situation(t, r)
	mu.Lock()
	record = true
	mu.Unlock()
	must(t, s.verb.run(bg, r))
	mu.Lock()
	record = false
	mu.Unlock()
	return before, situation(t, r), points
}

// declared are the failpoints that failpoint.go names.
func declared(t *testing.T) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "failpoint.go", nil, 0)
	must(t, err)
	var names []string
	ast.Inspect(f, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == 1 && strings.HasPrefix(spec.Names[0].Name, "fp") {
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
				name, err := strconv.Unquote(lit.Value)
				must(t, err)
				names = append(names, name)
			}
		}
		return true
	})
	return names
}

// At every stage boundary of every verb: an error, a cancelled context, and the
// death of the program. Afterwards each VM is as before the verb or as after it,
// can be used, and leaves nothing when it is destroyed.
func TestWhateverHappensAtAStageAVMIsAsBeforeOrAsAfter(t *testing.T) {
	var mu sync.Mutex
	passed := map[string]bool{}
	t.Run("scenarios", func(t *testing.T) {
		for name, s := range scenarios() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				before, after, points := course(t, s)
				mu.Lock()
				for _, p := range points {
					passed[p] = true
				}
				mu.Unlock()
				for _, p := range points {
					for _, how := range []string{"error", "cancel", "kill"} {
						t.Run(p+" "+how, func(t *testing.T) { disturb(t, s, p, how, before, after) })
					}
				}
			})
		}
	})
	for _, name := range declared(t) {
		if !testhost.Have() && (strings.HasPrefix(name, "egress.") || strings.HasPrefix(name, "network.")) {
			t.Logf("failpoint %s: not passed without root", name)
			continue
		}
		if !passed[name] {
			t.Errorf("no scenario passes the failpoint %s", name)
		}
	}
}

func disturb(t *testing.T, s scenario, point, how, before, after string) {
	c := testConfig(t)
	var r *Runtime
	if how == "kill" {
		first, err := Open(bg, c)
		must(t, err)
		for _, st := range s.setup {
			must(t, st.run(bg, first))
		}
		must(t, first.Close())
		out, err := (child{Config: c, Steps: []step{s.verb}, KillAt: point}).command(t).CombinedOutput()
		if err == nil {
			t.Fatalf("the program was not killed: %s", out)
		}
		r = open(t, c)
	} else {
		ctx, cancel := context.WithCancel(bg)
		defer cancel()
		armed := false
		cause := errors.New("ordered")
		c.failpoint = func(_ context.Context, name string) error {
			if !armed || name != point {
				return nil
			}
			armed = false
			if how == "cancel" {
				cancel()
				return nil
			}
			return cause
		}
		r = open(t, c)
		for _, st := range s.setup {
			must(t, st.run(bg, r))
		}
		armed = true
		err := s.verb.run(ctx, r)
		switch {
		case how == "error" && !errors.Is(err, cause):
			t.Errorf("the verb returned %v", err)
		case how == "cancel" && err != nil && !errors.Is(err, context.Canceled):
			t.Errorf("the verb returned %v", err)
		case how == "cancel" && err == nil && situation(t, r) != after:
			t.Errorf("the verb has succeeded, and there is\n%s", situation(t, r))
		}
	}
	got := situation(t, r)
	unfinished := s.verb.Verb == "destroy" && strings.HasPrefix(got, "a stopped") && mustGet(t, r, "a").Trouble != ""
	if !unfinished && s.verb.Verb == "destroy" && strings.HasPrefix(got, "a stopped") {
		got = situation(t, r) // it may have been finished between the two looks
	}
	if got != before && got != after && !unfinished {
		t.Errorf("before: %s\nafter:  %s\nis:     %s", before, after, got)
	}
	views, err := r.ListVMs(bg)
	must(t, err)
	for _, v := range views {
		if in, err := r.store.Intent(v.ID); (err != nil || in != nil) && how == "error" && got == after && !unfinished && s.verb.Verb != "stop" {
			t.Errorf("%s still has an intent", v.ID)
		}
		switch v.Status {
		case microvm.StatusCreated, microvm.StatusStopped:
			if !unfinished {
				must(t, r.StartVM(bg, v.ID))
			}
		case microvm.StatusRunning:
			must(t, r.SnapshotVM(bg, v.ID, "later"))
		}
		if v.Status != microvm.StatusDestroyed {
			must(t, r.DestroyVM(bg, v.ID))
		}
	}
	if left := leftovers(c.StateDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
