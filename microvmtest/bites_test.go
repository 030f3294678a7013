package microvmtest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/inmem"
	"github.com/tangle-network/microvm/microvmtest"
)

// childEnv makes TestWrongProviders run: it is to be called by its parent only.
const childEnv = "MICROVMTEST_WRONG_PROVIDERS"

// right is a provider like the wrong ones but without a fault.
var right = wrong{name: "right", make: func(rt *inmem.Runtime) *faulty { return &faulty{Runtime: rt} }}

// TestSuiteFailsEveryWrongProvider runs, in a process of its own, the section that
// has to find each fault, and the whole suite on the provider that has none.
func TestSuiteFailsEveryWrongProvider(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestWrongProviders$", "-test.v",
		"-test.parallel=8", "-test.timeout=2m", "-rapid.nofailfile", "-rapid.shrinktime=10ms", "-rapid.checks=1000")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.CombinedOutput()
	text := string(out)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || strings.Contains(text, "DATA RACE") || strings.Contains(text, "panic: ") {
		t.Fatalf("the suite should fail without a panic and without a race; got %v:\n%s", err, text)
	}
	seen := map[string]bool{}
	for _, w := range append(wrongs, right) {
		if seen[w.name] {
			t.Fatalf("two providers are called %q", w.name)
		}
		seen[w.name] = true
		t.Run(w.name, func(t *testing.T) {
			result := func(path string) string {
				line := regexp.MustCompile(`--- (PASS|FAIL|SKIP): TestWrongProviders/` + regexp.QuoteMeta(strings.ReplaceAll(path, " ", "_")) + ` \(`)
				if m := line.FindStringSubmatch(text); m != nil {
					return m[1]
				}
				return "not run"
			}
			switch got := result(w.name); {
			case w.section == "" && got != "PASS":
				t.Errorf("the suite fails a provider without a fault: %s\n%s", got, text)
			case w.section != "" && got != "FAIL":
				t.Errorf("the suite does not fail it: %s", got)
			case w.section != "" && result(w.name+"/"+w.section) != "FAIL":
				t.Errorf("the section %q does not find it: %s", w.section, result(w.name+"/"+w.section))
			}
		})
	}
}

// TestWrongProviders is the child.
func TestWrongProviders(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		t.Skip("runs as a child of TestSuiteFailsEveryWrongProvider")
	}
	for _, w := range append(wrongs, right) {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			factory := func(*testing.T) microvm.Runtime { return w.make(inmem.New()) }
			o := options()
			if w.section == "" {
				microvmtest.TestRuntime(t, factory, o)
				return
			}
			o.Timeout = 2 * time.Second // some faults are calls that never return
			o.Checks = 1000             // until the fault is found, which takes about ten
			microvmtest.RunSection(t, w.section, factory, o)
		})
	}
}

func options() microvmtest.Options {
	return microvmtest.Options{
		Checks: 50,
		Budget: time.Minute,
		Hold: func(rt microvm.Runtime, verb string) (<-chan struct{}, func()) {
			return rt.(*faulty).HoldNext(inmem.Verb(verb))
		},
		Fail: func(rt microvm.Runtime, verb string, err error) {
			rt.(*faulty).FailNext(inmem.Verb(verb), err)
		},
		EndGuest: func(_ context.Context, rt microvm.Runtime, id string) error {
			return rt.(*faulty).GuestExits(id, microvm.StopReason{})
		},
		Kill: func(_ context.Context, rt microvm.Runtime, id string) error {
			if f := rt.(*faulty); f.kill != nil {
				return f.kill(id)
			}
			return rt.(*faulty).KillVMM(id)
		},
		// One process is all that a runtime in memory has: it is its own second.
		Another: func(_ *testing.T, rt microvm.Runtime) microvm.Runtime {
			if f := rt.(*faulty); f.another != nil {
				return f.another()
			}
			return rt
		},
		Reopen: func(_ *testing.T, rt microvm.Runtime) microvm.Runtime {
			if f := rt.(*faulty); f.reopen != nil {
				return f.reopen()
			}
			return rt
		},
		Leftovers: func(rt microvm.Runtime) []string { return rt.(*faulty).leftovers },
	}
}

func TestEverySectionHasAFaultToFind(t *testing.T) {
	t.Parallel()
	for _, name := range microvmtest.Sections() {
		if !slices.ContainsFunc(wrongs, func(w wrong) bool { return w.section == name }) {
			t.Errorf("no wrong provider is meant for the section %q", name)
		}
	}
}
