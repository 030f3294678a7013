package fidelity

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tangle-network/microvm/internal/leaktest"
)

// original is the variable that names a real firecracker.
const original = "MICROVM_TEST_FIRECRACKER"

// emulated is the release that the emulator is unless told otherwise.
const emulated = "1.16.1"

var rerecord = flag.Bool("record", false, "write the answers of the firecracker in "+original+" into testdata")

var emulator string

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "fidelity-")
	if err == nil {
		emulator, err = build(dir)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the emulator:", err)
	} else {
		code = leaktest.Run(m)
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// suitable skips a sequence that this machine can't do.
func suitable(t *testing.T, s sequence, kvm bool) {
	t.Helper()
	if s.net && os.Geteuid() != 0 {
		t.Skip("a network namespace of its own needs root")
	}
	if s.guest && runtime.GOARCH != "amd64" {
		t.Skip("the tiny guest is for x86-64")
	}
	if s.guest && kvm {
		f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err != nil {
			t.Skipf("a guest needs KVM: %v", err)
		}
		f.Close()
	}
}

func differences(want, got []string, steps []string) []string {
	if slices.Equal(want, got) {
		return nil
	}
	out := []string{fmt.Sprintf("steps %q", steps)}
	for i := range max(len(want), len(got)) {
		w, g := "nothing", "nothing"
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w != g {
			out = append(out, fmt.Sprintf("answer %d: recorded %s\n       got %s", i+1, w, g))
		}
	}
	return out
}

func TestTheEmulatorAnswersAsTheOriginalDid(t *testing.T) {
	rec, err := readRecord(emulated)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			suitable(t, s, false)
			got := run(t, emulator, s)
			want := expected(rec, s.name, got)
			diff := differences(want, got, s.steps)
			why, known := left[s.name]
			switch {
			case known && diff == nil:
				t.Errorf("the emulator no longer differs: drop %q from the list of what is left", why)
			case known && (len(got) != len(want) || got[len(got)-1] != want[len(want)-1]):
				t.Errorf("it differs by more than %q: %q", why, diff)
			case !known:
				for _, d := range diff {
					t.Error(d)
				}
			}
		})
	}
}

func TestEverySequenceHasANameAndARecordOfItsOwn(t *testing.T) {
	rec, err := readRecord(emulated)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, s := range all() {
		if seen[s.name] {
			t.Errorf("two sequences are named %q", s.name)
		}
		seen[s.name] = true
		if rec.Sequences[s.name] == nil {
			t.Errorf("no answers of %s to %q: make fidelity FIRECRACKER=… RECORD=1", rec.Release, s.name)
		}
	}
	for name := range left {
		if !seen[name] {
			t.Errorf("%q is left, but not asked", name)
		}
	}
	for name := range either {
		if !seen[name] {
			t.Errorf("%q has two answers, but is not asked", name)
		}
	}
	for name := range rec.Sequences {
		if !seen[name] {
			t.Errorf("answers to %q, which is not asked", name)
		}
	}
	if len(seen) < 400 {
		t.Errorf("only %d sequences", len(seen))
	}
}

var firstLine = regexp.MustCompile(`^Firecracker v(\S+)`)

func TestTheOriginalStillAnswersAsRecorded(t *testing.T) {
	bin := os.Getenv(original)
	if bin == "" {
		t.Skip(original + " names no firecracker")
	}
	out, err := exec.Command(bin, "--version").Output()
	m := firstLine.FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("%s --version: %q, %v", bin, out, err)
	}
	rec := record{Release: string(m[1]), Sequences: map[string][]string{}}
	if !*rerecord {
		if rec, err = readRecord(rec.Release); err != nil {
			t.Fatalf("%v (RECORD=1 makes it)", err)
		}
	}
	if bin, err = filepath.Abs(bin); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	t.Run("sequences", func(t *testing.T) {
		for _, s := range all() {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				suitable(t, s, true)
				got := run(t, bin, s)
				if *rerecord {
					mu.Lock()
					defer mu.Unlock()
					rec.Sequences[s.name] = got
					return
				}
				for _, d := range differences(expected(rec, s.name, got), got, s.steps) {
					t.Error(d)
				}
			})
		}
	})
	if !*rerecord {
		return
	}
	if n := len(all()); len(rec.Sequences) != n {
		t.Fatalf("only %d of %d sequences could be asked: nothing is recorded", len(rec.Sequences), n)
	}
	if err := rec.write(); err != nil {
		t.Fatal(err)
	}
}

func TestAnAnswerOfTheHostIsAcceptedAndNoOther(t *testing.T) {
	rec := record{Sequences: map[string][]string{"snapshot: load: the clock": {"204", "204", "200 {}"}}}
	for _, c := range []struct {
		got  []string
		good bool
	}{
		{[]string{"204", "204", "200 {}"}, true},
		{[]string{"204", "400 rule", "exit code 1"}, true},
		{[]string{"400 rule", "400 rule", "exit code 1"}, false},
		{[]string{"204", "400 rule", "200 {}"}, false},
		{[]string{"400 rule", "exit code 1"}, false},
	} {
		if got := differences(expected(rec, "snapshot: load: the clock", c.got), c.got, nil) == nil; got != c.good {
			t.Errorf("%q: accepted %v", c.got, got)
		}
	}
}

func TestAConfigurationThatLacksAKeyIsNotTheSame(t *testing.T) {
	if got := neutral(defaults); got != "{}" {
		t.Errorf("a fresh one: %s", got)
	}
	if got := neutral(strings.Replace(defaults, `,"memory-hotplug":null`, "", 1)); got != "{no memory-hotplug}" {
		t.Errorf("without memory-hotplug: %s", got)
	}
}
