//go:build linux

package main

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const events = `{"Action":"start","Package":"p"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:7: half\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":1}
{"Action":"output","Package":"p","Test":"TestS/one","Output":"    s_test.go:12: no such thing here\n"}
{"Action":"skip","Package":"p","Test":"TestS/one"}
{"Action":"output","Package":"p","Test":"TestS/two","Output":"    s_test.go:12: no such thing here\n"}
{"Action":"skip","Package":"p","Test":"TestS/two"}
{"Action":"skip","Package":"p","Test":"TestT"}
{"Action":"output","Package":"p","Test":"TestF/part","Output":"    f_test.go:3: broken\n"}
{"Action":"fail","Package":"p","Test":"TestF/part"}
{"Action":"output","Package":"p","Test":"TestF","Output":"--- FAIL: TestF\n"}
{"Action":"fail","Package":"p","Test":"TestF"}
{"Action":"output","Package":"p","Output":"FAIL\n"}
{"Action":"fail","Package":"p","Elapsed":2}
{"Action":"output","Package":"github.com/tangle-network/microvm/q","Output":"q does not build\n"}
{"Action":"fail","Package":"github.com/tangle-network/microvm/q","Elapsed":0}
{"Action":"pass","Package":"r","Elapsed":0.5}
a line of the go command
`

func TestTestsAreCountedWithTheirReasons(t *testing.T) {
	t.Parallel()
	var got tally
	var shown strings.Builder
	if err := got.read(strings.NewReader(events), &shown, false); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff("1 passed, 3 skipped, 2 failed", got.counts()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{
		"    failed   p TestF/part",
		"    failed   q",
		"    skipped  TestS (parts): no such thing here",
		"    skipped  TestT: it does not say why",
	}, got.details()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff("    f_test.go:3: broken\nFAIL  p  2s\nq does not build\nok    r  500ms\na line of the go command\n", shown.String()); d != "" {
		t.Error(d)
	}
}

func TestAllOutputIsShownWhenAllIsWanted(t *testing.T) {
	t.Parallel()
	var got tally
	var shown strings.Builder
	if err := got.read(strings.NewReader(events), &shown, true); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(shown.String(), "\n"); n != 9 || !strings.HasPrefix(shown.String(), "    a_test.go:7: half\n") {
		t.Errorf("%d lines were shown:\n%s", n, shown.String())
	}
}

func TestACallWithoutFirecrackerIsOneLine(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"-firecracker", "/does/not/exist"}, {"-firecracker", "/bin/true"}, {"-steps", "tiny big"}} {
		var out strings.Builder
		if code := run(t.Context(), args, &out); code != 2 || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%q: exit code %d and\n%s", args, code, out.String())
		}
	}
	if code := run(t.Context(), []string{"-nonsense"}, io.Discard); code != 2 {
		t.Errorf("-nonsense: exit code %d", code)
	}
}
