package firecracker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
)

// shortTimeout bounds API calls where the VMM is meant to be late or mute.
const shortTimeout = 400 * time.Millisecond

// apiFaults is what can befall a request.
var apiFaults = []string{
	"hang", "delay", "drop=before", "drop=after", "half-reply", "status=500", "swallow", "die=before", "die=mid", "die=after",
}

// apiScenarios are the verbs that ask the VMM for something.
func apiScenarios() map[string]scenario {
	all := scenarios()
	for name, s := range all {
		if s.verb.Verb == "rename" || s.verb.Verb == "delete" {
			delete(all, name)
		}
	}
	yes := true
	size := microvm.PerSecond(1 << 20)
	run := func(s microvm.Spec, more ...step) []step {
		return append([]step{{Verb: "create", ID: "a", Spec: s}, {Verb: "start", ID: "a"}}, more...)
	}
	snap := step{Verb: "snapshot", ID: "a", Other: "s"}
	all["create"] = scenario{nil, step{Verb: "create", ID: "a", Spec: microvm.Spec{
		Vsock: &microvm.Vsock{CID: 3}, Entropy: &microvm.Entropy{RateLimit: &microvm.RateLimit{Bandwidth: size}}, Balloon: &microvm.Balloon{},
	}}}
	all["snapshot paused"] = scenario{run(microvm.Spec{}, step{Verb: "stop", ID: "a"}), snap}
	all["snapshot tracked"] = scenario{run(microvm.Spec{TrackDirtyPages: &yes}, snap), step{Verb: "snapshot", ID: "a", Other: "s2"}}
	all["restore cold"] = scenario{[]step{{Verb: "create", ID: "a"}, snap},
		step{Verb: "create", ID: "b", Spec: microvm.Spec{RestoreFrom: &microvm.RestoreFrom{VMID: "a", SnapshotID: "s"}}}}
	all["fork"] = scenario{run(microvm.Spec{}), step{Verb: "fork", ID: "a", Other: "b"}}
	all["metrics"] = scenario{run(microvm.Spec{}), step{Verb: "metrics", ID: "a"}}
	all["destroy what is asked first"] = scenario{run(microvm.Spec{StopMode: microvm.StopModeShutdown}), step{Verb: "destroy", ID: "a"}}
	return all
}

// witness takes the VMM's place: its log stays in $LOGS, under the number of its
// start, and the one with the number $NTH has the fault $FAULT.
const witness = `#!/bin/sh
n=0
while [ -e "$LOGS/$n" ]; do n=$((n+1)); done
ln vmm.log "$LOGS/$n" 2>/dev/null || exec "$VMM" "$@" # is asked for its version
echo $$ >>"$LOGS/pids"
[ $n = $NTH ] && export FCEMU_FAULT="$FAULT"
exec "$VMM" "$@"
`

var requestLine = regexp.MustCompile(`received a (\w+) request on "([^"]+)"`)

// asked are the requests that each VMM has received.
func asked(t *testing.T, logs string) [][]string {
	t.Helper()
	var all [][]string
	for n := 0; ; n++ {
		b, err := os.ReadFile(filepath.Join(logs, strconv.Itoa(n)))
		if errors.Is(err, os.ErrNotExist) {
			return all
		}
		must(t, err)
		var one []string
		for _, m := range requestLine.FindAllStringSubmatch(string(b), -1) {
			one = append(one, strings.ToUpper(m[1])+" "+m[2])
		}
		all = append(all, one)
	}
}

// apiTarget is one request of a verb: the nth of its kind to the VMM that was
// started as number vmm.
type apiTarget struct {
	vmm, nth int
	request  string
}

// pids are those of the VMMs, in the order in which they were started.
func pids(t *testing.T, logs string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(logs, "pids"))
	must(t, err)
	return strings.Fields(string(b))
}

// living are the VMMs that have not ended.
func living(t *testing.T, logs string) (left []string) {
	t.Helper()
	for _, pid := range pids(t, logs) {
		if exe, err := os.Readlink("/proc/" + pid + "/exe"); err == nil && exe == under.binary {
			left = append(left, pid)
		}
	}
	return left
}

func faultConfig(t *testing.T, vmm int, fault string) (c Config, logs string) {
	t.Helper()
	c, logs = testConfig(t), t.TempDir()
	c.MemoryMiB, c.TermGrace = 2, 300*time.Millisecond
	c.Binary = under.witness
	c.Env = append(c.Env, "VMM="+under.binary, "LOGS="+logs, fmt.Sprint("NTH=", vmm), "FAULT="+fault)
	return c, logs
}

// targets runs a scenario undisturbed and returns what its verb asks for.
func targets(t *testing.T, s scenario) (before, after string, list []apiTarget) {
	t.Helper()
	c, logs := faultConfig(t, -1, "")
	r := open(t, c)
	for _, st := range s.setup {
		must(t, st.run(bg, r))
	}
	before = situation(t, r)
	old := asked(t, logs)
	must(t, s.verb.run(bg, r))
	for vmm, requests := range asked(t, logs) {
		seen := map[string]int{}
		for i, q := range requests {
			seen[q]++
			if vmm >= len(old) || i >= len(old[vmm]) {
				list = append(list, apiTarget{vmm, seen[q], q})
			}
		}
	}
	return before, situation(t, r), list
}

// faultsAt are the faults for the ith request of a verb: all of them, or two
// where the same code is tried with all of them elsewhere.
func faultsAt(name string, i int, request string) []string {
	elsewhere := slices.Contains([]string{"fork", "restore cold", "snapshot tracked", "start shut down"}, name)
	_, configures := slices.BinarySearch([]string{"GET /", "PUT /boot-source", "PUT /drives/rootfs", "PUT /machine-config", "PUT /metrics", "PUT /serial"}, request)
	if elsewhere || configures && name != "create" {
		n := len(apiFaults)
		return []string{apiFaults[(len(name)+3*i)%n], apiFaults[(len(name)+3*i+n/2)%n]}
	}
	return apiFaults
}

// Each fault at each request of each verb. The requests are those of an
// undisturbed run: a new one can't be forgotten.
func TestWhateverBefallsARequestTheVerbEndsAndSaysSo(t *testing.T) {
	if under.real {
		t.Skip("a real VMM has no faults on demand")
	}
	files := len(descriptors(t))
	names := make(chan string)
	var workers sync.WaitGroup
	for range 6 { // most of them wait for a VMM
		workers.Go(func() {
			for name := range names {
				s := apiScenarios()[name]
				t.Run(name, func(t *testing.T) {
					before, after, list := targets(t, s)
					if len(list) == 0 && s.verb.Verb != "snapshot" && s.verb.Verb != "destroy" && s.verb.Verb != verbEgress {
						t.Error("the verb asks for nothing")
					}
					for i, target := range list {
						for _, kind := range faultsAt(name, i, target.request) {
							t.Run(fmt.Sprintf("%s at %s %d of VMM %d", kind, target.request, target.nth, target.vmm),
								func(t *testing.T) { befall(t, s, kind, target, before, after) })
						}
					}
				})
			}
		})
	}
	for name := range apiScenarios() {
		names <- name
	}
	close(names)
	workers.Wait()
	eventually(t, "all descriptors are closed", func() bool { return len(descriptors(t)) <= files })
}

func befall(t *testing.T, s scenario, kind string, target apiTarget, before, after string) {
	transfer := strings.HasPrefix(target.request, "PUT /snapshot/")
	late := kind == "hang" || kind == "delay" && !transfer
	fault := kind
	if kind == "delay" {
		fault = "delay=" + (shortTimeout * 3 / 2).String()
	}
	c, logs := faultConfig(t, target.vmm, fmt.Sprintf("%s:%s:%d", fault, target.request, target.nth))
	r, err := Open(bg, c)
	must(t, err)
	for _, st := range s.setup {
		must(t, st.run(bg, r))
	}
	if late {
		must(t, r.Close())
		c.APITimeout, c.transferBase = shortTimeout, shortTimeout
		r, err = Open(bg, c)
		must(t, err)
	}
	defer func() {
		closeAll(t, r)
		if left := append(filesLeft(c.StateDir), living(t, logs)...); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}()
	began := time.Now()
	err = s.verb.run(bg, r)
	took := time.Since(began)
	if took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	if seen := asked(t, logs); kind != "hang" && len(seen) <= target.vmm {
		t.Errorf("VMM %d was not started", target.vmm)
	}
	got := situation(t, r)
	died := strings.HasPrefix(kind, "die")
	// On a busy machine the answer may be there before anybody notices that it
	// is late.
	worked := died && dead(got) == dead(after) || kind == "delay" && got == after && took > shortTimeout
	if err != nil || !worked {
		checkFaultError(t, s, kind, target, transfer, err)
	}
	if got != before && got != after && !(died && (dead(got) == dead(before) || dead(got) == dead(after))) {
		t.Errorf("before: %s\nafter:  %s\nis:     %s", before, after, got)
	}
	if kind == "hang" || kind == "swallow" {
		return // it is of no use any more
	}
	if died {
		eventually(t, "the death is noted", func() bool { return noted(t, r, pids(t, logs)[target.vmm]) })
	}
	views, err := r.ListVMs(bg)
	must(t, err)
	for _, v := range views {
		switch v.Status {
		case microvm.StatusCreated, microvm.StatusStopped:
			must(t, r.StartVM(bg, v.ID))
		case microvm.StatusRunning:
			must(t, r.StopVMMode(bg, v.ID, microvm.StopModePause))
		}
	}
}

// noted says that no VM is shown with this VMM.
func noted(t *testing.T, r *Runtime, pid string) bool {
	t.Helper()
	views, err := r.ListVMs(bg)
	must(t, err)
	return !slices.ContainsFunc(views, func(v microvm.View) bool { return strconv.Itoa(v.PID) == pid })
}

// dead is a situation once the VMMs of those that run have died.
func dead(situation string) string { return strings.ReplaceAll(situation, " running ", " stopped ") }

// checkFaultError wants an error that says what happened, where something did.
func checkFaultError(t *testing.T, s scenario, kind string, target apiTarget, transfer bool, err error) {
	t.Helper()
	asks := target.request == "PUT /actions" && (s.verb.Verb == "stop" || s.verb.Verb == "destroy") // Ctrl-Alt-Del: without it the guest is ended
	mayWork := kind == "swallow" || kind == "die=after" || kind == "delay" && transfer || asks ||
		strings.HasPrefix(kind, "drop") && strings.HasPrefix(target.request, "GET") // is asked again
	if err == nil {
		if !mayWork {
			t.Error("the verb has succeeded")
		}
		return
	}
	if kind == "delay" && transfer || asks {
		t.Errorf("the verb has failed: %v", err)
	}
	var e *microvm.Error
	if !errors.As(err, &e) {
		t.Fatalf("no *microvm.Error: %v", err)
	}
	if s.verb.Verb == "metrics" {
		// What it has it tells, or that there is no VMM.
		if !errors.Is(err, microvm.ErrInvalidTransition) && !strings.Contains(err.Error(), "the VMM did not write its counters: PUT /actions") {
			t.Errorf("the metrics: %v", err)
		}
		return
	}
	did := map[string]string{
		"hang": "no answer within", "delay": "no answer within", "drop=before": "closed the connection", "drop=after": "closed the connection",
		"half-reply": "closed the connection", "status=500": "500: Ordered by the fault", "die=before": "died: SIGABRT", "die=mid": "died: SIGABRT",
	}[kind]
	said := []string{strconv.Quote(e.VMID)}
	if did != "" { // else a later request tells
		said = append(said, target.request, did)
	}
	for _, says := range said {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("the error does not say %q: %v", says, err)
		}
	}
	if e.Remedy == "" && did != "" && kind != "status=500" {
		t.Errorf("no remedy: %v", err)
	}
	if strings.HasPrefix(kind, "die") && kind != "die=after" && !strings.Contains(e.Log, "ordered by the fault") {
		t.Errorf("the end of the log: %q", e.Log)
	}
}

// A VMM that is late for longer than anybody waits leaves its guest paused. When
// it answers again, the guest of a snapshot goes on without anybody asking, and a
// stop that failed is what it became.
func TestAGuestThatALateVMMHasPausedIsNotForgotten(t *testing.T) {
	if under.real {
		t.Skip("a real VMM has no faults on demand")
	}
	t.Parallel()
	for _, verb := range []string{"snapshot", "stop"} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			c, _ := faultConfig(t, 0, "delay=2500ms:PATCH /vm:1")
			r := open(t, c)
			start(t, r, "a", microvm.Spec{})
			must(t, r.Close())
			c.APITimeout = shortTimeout
			r = open(t, c)
			if err := (step{Verb: verb, ID: "a", Other: "s"}).run(bg, r); !errors.As(err, new(muteError)) {
				t.Errorf("the verb: %v", err)
			}
			api := fcapi.New(filepath.Join(r.store.Dir("a"), runName, apiSocket))
			defer api.Close()
			eventually(t, "nothing is left to be done", func() bool {
				return idle(t, r, "a")
			})
			info, err := api.Describe(bg)
			must(t, err)
			v := mustGet(t, r, "a")
			if (v.Status == microvm.StatusRunning) != (info.State == fcapi.StateRunning) || verb == "snapshot" && v.Status != microvm.StatusRunning || len(v.Snapshots) > 0 {
				t.Errorf("the guest is %s, and the VM %s with snapshots %v", info.State, v.Status, v.Snapshots)
			}
			if v.Status == microvm.StatusStopped {
				must(t, r.StartVM(bg, "a"))
			}
		})
	}
}
