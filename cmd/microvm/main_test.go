package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tangle-network/microvm/cmd/microvm/internal/doctor"
	"github.com/tangle-network/microvm/internal/leaktest"
	"github.com/tangle-network/microvm/internal/testhost"
)

// emulator is the fcemu that all scripts use.
var emulator string

func TestMain(m *testing.M) {
	// testscript runs this program again for each command of a script.
	testscript.Main(builder{m}, map[string]func(){
		"microvm": func() { os.Exit(run()) },
	})
}

// builder makes fcemu before the tests, and removes it after.
type builder struct{ m *testing.M }

func (b builder) Run() int { return testhost.Run(b.run) }

func (b builder) run() int {
	testhost.Up()
	dir, err := os.MkdirTemp("", "microvm-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	emulator = filepath.Join(dir, "fcemu")
	build := exec.Command("go", "build", "-o", emulator, "../fcemu")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build fcemu: %v\n%s", err, out)
		return 1
	}
	return leaktest.Run(b.m)
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setUp,
		Condition: func(name string) (bool, error) {
			switch name {
			case "kvm":
				return doctor.ProbeKVM().BootsLinux(), nil
			case "networks":
				return testhost.Have(), nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"json":    jsonField,
			"lines":   lines,
			"killvmm": killVMM,
		},
	})
}

// setUp gives a script a state directory of its own, and takes care that none of
// its VMMs outlives it.
func setUp(env *testscript.Env) error {
	state := filepath.Join(env.WorkDir, "state")
	env.Setenv("MICROVM_STATE_DIR", state)
	env.Setenv("MICROVM_EMULATOR", "null")
	env.Setenv("KERNEL", emulator)
	env.Setenv("EMULATOR", emulator)
	env.Setenv("PATH", env.Getenv("PATH")+string(os.PathListSeparator)+filepath.Dir(emulator))
	// Scripts run at once, on machines that may be busy.
	env.Setenv("MICROVM_SOCKET_READY_TIMEOUT_MS", "30000")
	env.Setenv("MICROVM_API_TIMEOUT_MS", "30000")
	env.Defer(func() {
		for _, pid := range vmms(state) {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill() // it may end by itself meanwhile
			}
		}
	})
	return nil
}

// vmms are the processes whose working directory is below the state directory.
func vmms(state string) []int {
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	var pids []int
	for _, link := range links {
		dir, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(dir, state+"/") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// exits CODE PROGRAM ARG... runs a program that must end with that code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if want := args[0]; strconv.Itoa(code) != want {
		ts.Fatalf("exit code %d, want %s", code, want)
	}
}

// json FILE PATH [WANT] looks at one field of a JSON value, such as
// "0.snapshots"; without WANT the field must be there, negated it must not.
func jsonField(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: json FILE PATH [WANT]")
	}
	var v any
	text := ts.ReadFile(args[0])
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		ts.Fatalf("%s is no JSON: %v", args[0], err)
	}
	there := true
	for _, key := range strings.Split(strings.Trim(args[1], "."), ".") {
		if key == "" {
			continue
		}
		switch in := v.(type) {
		case map[string]any:
			v, there = in[key]
		case []any:
			i, err := strconv.Atoi(key)
			there = err == nil && i < len(in)
			if there {
				v = in[i]
			}
		default:
			there = false
		}
		if !there {
			break
		}
	}
	got := fmt.Sprint(v)
	switch {
	case neg && there && (len(args) == 2 || got == args[2]):
		ts.Fatalf("%s has %s: %s", args[0], args[1], got)
	case !neg && !there:
		ts.Fatalf("%s has no %s: %s", args[0], args[1], text)
	case !neg && len(args) == 3 && got != args[2]:
		ts.Fatalf("%s: %s is %s, want %s", args[0], args[1], got, args[2])
	}
}

// lines FILE N compares the number of lines: one error, one line.
func lines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: lines FILE N")
	}
	text := ts.ReadFile(args[0])
	if n := strings.Count(text, "\n"); strconv.Itoa(n) != args[1] {
		ts.Fatalf("%s has %d lines, want %s:\n%s", args[0], n, args[1], text)
	}
}

// killvmm kills the one VMM whose pid the last command has printed.
func killVMM(ts *testscript.TestScript, neg bool, args []string) {
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile("stdout")))
	if neg || len(args) != 0 || err != nil {
		ts.Fatalf("usage: killvmm, after a command that prints a pid: %v", err)
	}
	for _, own := range vmms(ts.Getenv("MICROVM_STATE_DIR")) {
		if own == pid {
			p, err := os.FindProcess(pid)
			ts.Check(err)
			ts.Check(p.Kill())
			return
		}
	}
	ts.Fatalf("%d is no VMM of this script", pid)
}
