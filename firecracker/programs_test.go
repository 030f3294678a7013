package firecracker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
)

// The tests of several programs can be run for longer:
//
//	go test -race -run SeveralPrograms ./firecracker -programs.ops=500 -programs.rounds=1000 -programs.seed=7
var (
	programOps    = flag.Int("programs.ops", 10, "verbs of each of the 32 goroutines")
	programRounds = flag.Int("programs.rounds", 12, "names that 32 goroutines fight for")
	programSeed   = flag.Uint64("programs.seed", 0, "of the random verbs; 0: another one each time")
)

const (
	programCount = 4
	goroutines   = 8
)

// crowdVariable orders the test's program to be one of several that work on one
// state directory: see crowd.
const crowdVariable = "MICROVM_TEST_CROWD"

// crowd is what each of the programs does: for each line on its standard input,
// a round, after which it prints its events.
type crowd struct {
	Config  Config
	Program int
	Seed    uint64
	Ops     int
	IDs     []string // random verbs on these; else a fight for the name that a line has
}

// monotonic is CLOCK_MONOTONIC, which all programs share.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // the clock is always there
	}
	return ts.Nano()
}

func kindOf(err error) string {
	for _, k := range []struct {
		err  error
		name string
	}{
		{context.Canceled, errCancelled}, {context.DeadlineExceeded, errCancelled},
		{microvm.ErrVMExists, errExists}, {microvm.ErrSnapshotNotFound, errNoSnap}, {microvm.ErrSnapshotExists, errSnap},
		{microvm.ErrVMNotFound, errNotFound}, {microvm.ErrInvalidTransition, errState},
	} {
		if errors.Is(err, k.err) {
			return k.name
		}
	}
	if err == nil {
		return errNone
	}
	return err.Error()
}

// badSpec can't work: the VMM finds no directory for the socket.
var badSpec = microvm.Spec{Vsock: &microvm.Vsock{Path: "/nonexistent/v.sock"}}

// actor is one goroutine of a program.
type actor struct {
	r      *Runtime
	name   string
	rnd    *rand.Rand
	events []event
	// number of events so far, for names.
	n int
}

// do runs a verb, now and then with a context that soon ends.
func (a *actor) do(e event, f func(ctx context.Context) error) error {
	ctx := context.Background()
	if !e.Bad && e.Verb != "see" && a.rnd.IntN(4) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(a.rnd.IntN(60_000))*time.Microsecond)
		defer cancel()
		e.Cancelled = true
	}
	a.n++
	e.Who = fmt.Sprintf("%s.%d", a.name, a.n)
	e.Call = monotonic()
	err := f(ctx)
	e.Ret = monotonic()
	e.Err = kindOf(err)
	if e.Bad && e.Err != errNone && e.Err != errExists {
		e.Err = errBad
	}
	a.events = append(a.events, e)
	return err
}

// saw notes what queries say of a VM; a nil view is one that is not there.
func (a *actor) saw(id string, v *microvm.View, call, ret int64) {
	a.n++
	status, names := "", ""
	if v != nil {
		status, names = string(v.Status), sortedNames(strings.Join(v.Snapshots, " "))
	}
	who := fmt.Sprintf("%s.%d", a.name, a.n)
	a.events = append(a.events,
		event{Who: who, Verb: "see", ID: id, Seen: status, Call: call, Ret: ret},
		event{Who: who, Verb: "list", ID: id, Seen: names, Call: call, Ret: ret})
}

// look asks for one VM.
func (a *actor) look(id string) error {
	call := monotonic()
	v, err := a.r.GetVM(context.Background(), id)
	switch {
	case err == nil:
		a.saw(id, &v, call, monotonic())
	case errors.Is(err, microvm.ErrVMNotFound):
		a.saw(id, nil, call, monotonic())
	default:
		return err
	}
	return nil
}

// lookAtAll asks for the list; it is no picture of one moment.
func (a *actor) lookAtAll(ids []string) error {
	call := monotonic()
	views, err := a.r.ListVMs(context.Background())
	ret := monotonic()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if i := slices.IndexFunc(views, func(v microvm.View) bool { return v.ID == id }); i >= 0 {
			a.saw(id, &views[i], call, ret)
		} else {
			a.saw(id, nil, call, ret)
		}
	}
	return nil
}

// anyVerb is one random verb.
func (a *actor) anyVerb(ids []string) error {
	pick := func(of []string) string { return of[a.rnd.IntN(len(of))] }
	id := pick(ids)
	name := pick([]string{"s", "t"})
	e := event{ID: id}
	r := a.r
	switch a.rnd.IntN(15) {
	case 0, 1, 2:
		e.Verb, e.Bad = "create", a.rnd.IntN(6) == 0
		spec := microvm.Spec{}
		if e.Bad {
			spec = badSpec
		}
		_ = a.do(e, func(ctx context.Context) error { return r.CreateVMWithSpec(ctx, id, spec) })
	case 3, 4, 5:
		e.Verb = "start"
		_ = a.do(e, func(ctx context.Context) error { return r.StartVM(ctx, id) })
	case 6, 7:
		e.Verb, e.Mode = "stop", []microvm.StopMode{microvm.StopModePause, microvm.StopModeHibernate, microvm.StopModeShutdown}[a.rnd.IntN(3)]
		_ = a.do(e, func(ctx context.Context) error { return r.StopVMMode(ctx, id, e.Mode) })
	case 8:
		e.Verb, e.Other = "snapshot", name
		_ = a.do(e, func(ctx context.Context) error { return r.SnapshotVM(ctx, id, name) })
	case 9:
		e.Verb, e.Other = "delete", name
		_ = a.do(e, func(ctx context.Context) error { return r.DeleteSnapshot(ctx, id, name) })
	case 10:
		from := pick(ids)
		e.Verb, e.Other, e.Resume = "restore", from+"/"+name, a.rnd.IntN(2) == 0
		_ = a.do(e, func(ctx context.Context) error {
			return r.CreateVMWithSpec(ctx, id, microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: from, SnapshotID: name, ResumeImmediately: e.Resume}})
		})
	case 11:
		e.Verb, e.Other = "rename", pick(ids)
		if e.Other == id {
			return nil
		}
		_ = a.do(e, func(ctx context.Context) error { return r.RenameVM(ctx, id, e.Other) })
	case 12:
		e.Verb = "destroy"
		_ = a.do(e, func(ctx context.Context) error { return r.DestroyVM(ctx, id) })
	case 13:
		call := monotonic()
		pruned, err := r.Prune(context.Background(), time.Now().Add(time.Hour))
		for _, id := range pruned {
			a.n++
			a.events = append(a.events, event{Who: fmt.Sprintf("%s.%d", a.name, a.n), Verb: "prune", ID: id, Call: call, Ret: monotonic()})
		}
		return err
	case 14:
		return a.lookAtAll(ids)
	}
	return a.look(id)
}

// fight is one attempt to get a name; the winner's label says who it is.
func (a *actor) fight(id string, i int) {
	spec := microvm.Spec{Labels: map[string]string{"by": a.name}}
	switch {
	case i == 0: // rename onto it
		spare := "spare-" + a.name
		_ = a.do(event{Verb: "rename", ID: spare, Other: id}, func(ctx context.Context) error { return a.r.RenameVM(ctx, spare, id) })
		return
	case i == 1:
		spec.RestoreFrom = &microvm.RestoreFrom{VMID: "source", SnapshotID: "s"}
		_ = a.do(event{Verb: "restore", ID: id, Other: "source/s"}, func(ctx context.Context) error { return a.r.CreateVMWithSpec(ctx, id, spec) })
		return
	}
	bad := a.rnd.IntN(4) == 0
	if bad {
		spec.Vsock = badSpec.Vsock
	}
	_ = a.do(event{Verb: "create", ID: id, Bad: bad}, func(ctx context.Context) error { return a.r.CreateVMWithSpec(ctx, id, spec) })
}

// runCrowd is the program.
func runCrowd(order string) error {
	var c crowd
	if err := json.Unmarshal([]byte(order), &c); err != nil {
		return err
	}
	r, err := Open(context.Background(), c.Config)
	if err != nil {
		return err
	}
	actors := make([]*actor, goroutines)
	for i := range actors {
		actors[i] = &actor{r: r, name: fmt.Sprintf("%d-%d", c.Program, i), rnd: rand.New(rand.NewPCG(c.Seed, uint64(c.Program*100+i)))}
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode([]event{}); err != nil { // it is ready
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var wg sync.WaitGroup
		errs := make([]error, len(actors))
		for i, a := range actors {
			wg.Go(func() {
				if len(c.IDs) == 0 {
					a.fight(in.Text(), i)
				}
				for range c.Ops {
					errs[i] = errors.Join(errs[i], a.anyVerb(c.IDs))
				}
			})
		}
		wg.Wait()
		var events []event
		for _, a := range actors {
			events = append(events, a.events...)
			a.events = nil
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		if err := out.Encode(events); err != nil {
			return err
		}
	}
	return errors.Join(in.Err(), r.Close(), goleak.Find())
}

// operator is one that runs.
type operator struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func (p operator) events(t *testing.T) []event {
	t.Helper()
	var events []event
	must(t, p.out.Decode(&events))
	return events
}

// startPrograms starts them all and waits until they are ready; at the end of the
// test they must end well.
func startPrograms(t *testing.T, c Config, seed uint64, ids []string) []operator {
	t.Helper()
	var all []operator
	for i := range programCount {
		own := c
		own.Log = nil
		order := crowd{Config: own, Program: i, Seed: seed, IDs: ids}
		if len(ids) > 0 {
			order.Ops = *programOps
		}
		b, err := json.Marshal(order)
		must(t, err)
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), crowdVariable+"="+string(b))
		cmd.Stderr = os.Stderr
		p := operator{cmd: cmd}
		p.in, err = cmd.StdinPipe()
		must(t, err)
		out, err := cmd.StdoutPipe()
		must(t, err)
		p.out = json.NewDecoder(out)
		must(t, cmd.Start())
		t.Cleanup(func() {
			p.in.Close()
			_, _ = io.Copy(io.Discard, out) // what nobody reads any more must not block it
			if err := cmd.Wait(); err != nil {
				t.Errorf("program %d: %v", i, err)
			}
		})
		all = append(all, p)
	}
	for _, p := range all {
		p.events(t)
	}
	return all
}

// round lets all programs do one round, and returns all events.
func round(t *testing.T, all []operator, line string) []event {
	t.Helper()
	for _, p := range all {
		_, err := io.WriteString(p.in, line+"\n")
		must(t, err)
	}
	var events []event
	for _, p := range all {
		events = append(events, p.events(t)...)
	}
	return events
}

// programsConfig is patient: the programs and the race detector share few cores.
func programsConfig(t *testing.T) (Config, uint64) {
	c := testConfig(t)
	c.APITimeout, c.SocketReadyTimeout = time.Minute, time.Minute
	if !under.real {
		c.BootArgs = DefaultBootArgs
	}
	seed := *programSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", seed)
	return c, seed
}

// Four programs of eight goroutines do random verbs on a few names. What they
// were told must be what the law allows in some order.
func TestSeveralProgramsKeepTheLaw(t *testing.T) {
	c, seed := programsConfig(t)
	r := open(t, c)
	ids := []string{"a", "b", "c", "d"}
	events := round(t, startPrograms(t, c, seed, ids), "")
	end := actor{r: r, name: "end"}
	must(t, end.lookAtAll(ids))
	events = append(events, end.events...)
	counts := map[string]int{}
	for _, e := range events {
		if e.Verb != "see" && e.Verb != "list" {
			kind := "well"
			if e.Err != "" {
				kind = e.Err
			}
			counts[e.Verb+": "+kind]++
		}
	}
	t.Logf("%d events: %v", len(events), counts)
	if err := checkHistory(events); err != nil {
		t.Error(err)
	}
	views, err := r.ListVMs(bg)
	must(t, err)
	for _, v := range views {
		if v.Trouble != "" {
			t.Errorf("%s: %s", v.ID, v.Trouble)
		}
		if v.Status != microvm.StatusDestroyed {
			must(t, r.DestroyVM(bg, v.ID))
		}
	}
	if left := leftovers(c.StateDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Field case 44: many fight for one name, some give up, some can't succeed; a
// rename and a restore aim at it as well.
func TestSeveralProgramsFightForAName(t *testing.T) {
	c, seed := programsConfig(t)
	r := open(t, c)
	must(t, r.CreateVM(bg, "source"))
	must(t, r.SnapshotVM(bg, "source", "s"))
	all := startPrograms(t, c, seed, nil)
	wins := map[string]int{}
	for n := range *programRounds {
		id := fmt.Sprintf("name-%d", n)
		for p := range programCount {
			spare := fmt.Sprintf("spare-%d-0", p)
			if _, err := r.GetVM(bg, spare); errors.Is(err, microvm.ErrVMNotFound) {
				must(t, r.CreateVMWithSpec(bg, spare, microvm.Spec{Labels: map[string]string{"by": fmt.Sprintf("%d-0", p)}}))
			} else {
				must(t, err)
			}
		}
		var won []event
		for _, e := range round(t, all, id) {
			switch e.Err {
			case errNone:
				won = append(won, e)
				wins[e.Verb]++
			case errExists, errBad:
			case errCancelled:
				if !e.Cancelled {
					t.Errorf("%s", e)
				}
			default:
				t.Errorf("%s", e)
			}
		}
		v, err := r.GetVM(bg, id)
		switch {
		case len(won) > 1:
			t.Errorf("round %d: %d winners: %v", n, len(won), won)
		case len(won) == 0 && err == nil && strings.HasSuffix(v.Labels["by"], "-0"):
			// A rename whose caller gave up may have come through.
		case len(won) == 0:
			if !errors.Is(err, microvm.ErrVMNotFound) {
				t.Errorf("round %d: nobody has won, and there is %+v, %v", n, v, err)
			}
			continue
		case err != nil:
			t.Errorf("round %d: %v has won, and then %v", n, won[0], err)
			continue
		case won[0].Who[:3] != v.Labels["by"]:
			t.Errorf("round %d: %v has won, and it is the VM of %s", n, won[0], v.Labels["by"])
		}
		must(t, r.StartVM(bg, id)) // it is whole
		must(t, r.DestroyVM(bg, id))
		gone, err := r.Prune(bg, time.Now().Add(time.Hour))
		if err != nil || !slices.Equal(gone, []string{id}) {
			t.Errorf("pruned %v, %v", gone, err)
		}
	}
	t.Logf("won by %v", wins)
	views, err := r.ListVMs(bg)
	must(t, err)
	for _, v := range views {
		must(t, r.DestroyVM(bg, v.ID))
	}
	if left := leftovers(c.StateDir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
