//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

// tally is what became of tests and their subtests.
type tally struct {
	passed          int
	skipped, failed []outcome
	output          map[string]*strings.Builder // of those that still run
}

type outcome struct{ name, text string }

// event is a line of "go test -json" (cmd/test2json).
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// read collects events until there are no more, and writes what a user wants to
// see while they come: a line for each package or, if all is wanted, each test,
// and everything about a failure.
func (t *tally) read(r io.Reader, show io.Writer, all bool) error {
	t.output = map[string]*strings.Builder{}
	in := bufio.NewScanner(r)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e event
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			// The go command itself speaks plainly.
			if _, err := fmt.Fprintf(show, "%s\n", in.Bytes()); err != nil {
				return err
			}
			continue
		}
		if text := t.add(e, all); text != "" {
			if _, err := io.WriteString(show, text); err != nil {
				return err
			}
		}
	}
	return in.Err()
}

// add counts one event and returns what is to be shown.
func (t *tally) add(e event, all bool) (show string) {
	name := e.Package
	if e.Test != "" {
		name = e.Package + " " + e.Test
	}
	name = strings.TrimPrefix(name, "github.com/tangle-network/microvm/")
	switch e.Action {
	case "build-output":
		return e.Output
	case "output":
		b := t.output[name]
		if b == nil {
			b = &strings.Builder{}
			t.output[name] = b
		}
		b.WriteString(e.Output)
		if all {
			show = e.Output
		}
	case "pass":
		if e.Test != "" {
			t.passed++
		} else if !all {
			show = fmt.Sprintf("ok    %s  %v\n", name, seconds(e.Elapsed))
		}
		delete(t.output, name)
	case "skip":
		if e.Test != "" {
			t.skipped = append(t.skipped, outcome{name, reason(t.take(name))})
		}
	case "fail":
		text := t.take(name)
		switch {
		case e.Test == "" && t.failedIn(name):
			show = fmt.Sprintf("FAIL  %s  %v\n", name, seconds(e.Elapsed))
		case e.Test != "" && t.failedBelow(name):
			// Its parts have said it already.
		default:
			t.failed = append(t.failed, outcome{name, text})
			if !all {
				show = text
			}
		}
	}
	return show
}

// take returns what a test has written, and forgets it.
func (t *tally) take(name string) string {
	b := t.output[name]
	if b == nil {
		return ""
	}
	delete(t.output, name)
	return b.String()
}

func (t *tally) failedIn(pkg string) bool {
	return slices.ContainsFunc(t.failed, func(o outcome) bool { return strings.HasPrefix(o.name, pkg+" ") })
}

func (t *tally) failedBelow(test string) bool {
	return slices.ContainsFunc(t.failed, func(o outcome) bool { return strings.HasPrefix(o.name, test+"/") })
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(10 * time.Millisecond)
}

var place = regexp.MustCompile(`^\s*[A-Za-z0-9_]+\.go:[0-9]+: `)

// reason is what a test has said as it was skipped.
func reason(output string) string {
	why := "it does not say why"
	for line := range strings.Lines(output) {
		if at := place.FindString(line); at != "" {
			why = strings.TrimSpace(line[len(at):])
		}
	}
	return why
}

func (t *tally) counts() string {
	return fmt.Sprintf("%d passed, %d skipped, %d failed", t.passed, len(t.skipped), len(t.failed))
}

// details are lines about what did not pass: each failure, and what was skipped
// for each reason.
func (t *tally) details() []string {
	var lines []string
	for _, o := range t.failed {
		lines = append(lines, "    failed   "+o.name)
	}
	var reasons []string
	tests := map[string][]string{} // by reason, without their parts
	for _, o := range t.skipped {
		if tests[o.text] == nil {
			reasons = append(reasons, o.text)
		}
		test, _, _ := strings.Cut(o.name[strings.LastIndex(o.name, " ")+1:], "/")
		if _, part, _ := strings.Cut(o.name, " "); part != test {
			test += " (parts)"
		}
		if !slices.Contains(tests[o.text], test) {
			tests[o.text] = append(tests[o.text], test)
		}
	}
	for _, r := range reasons {
		lines = append(lines, fmt.Sprintf("    skipped  %s: %s", strings.Join(tests[r], ", "), r))
	}
	return lines
}
