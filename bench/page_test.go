package main

import (
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/performance.md anew")

const pagePath = "../docs/performance.md"

// The samples of the emulator are there always, those of a real VMM and of networks
// when somebody has measured them.
func committed(t *testing.T) (on []*samples, networks *samples) {
	t.Helper()
	for _, name := range []string{"firecracker", "null", "network"} {
		f, err := os.Open("samples/" + name + ".txt")
		if errors.Is(err, os.ErrNotExist) && name != "null" {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s, err := readSamples(f)
		if err != nil {
			t.Fatalf("samples/%s.txt: %v", name, err)
		}
		if name == "network" {
			networks = s
		} else {
			on = append(on, s)
		}
	}
	return on, networks
}

func TestThePageIsMadeOfTheSamples(t *testing.T) {
	want := page(committed(t))
	if *update {
		if err := os.WriteFile(pagePath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(pagePath)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("docs/performance.md is not what the samples in bench/samples make: cd bench && go test -run Page . -update")
	}
	if strings.Contains(want, "NaN") || strings.Contains(want, "Inf") {
		t.Error("a number of the page has no samples")
	}
}

func TestSamplesAreReadAsTheyAreWritten(t *testing.T) {
	var b strings.Builder
	s := &samples{to: &b}
	s.says("vmm", "Firecracker v1.16.1")
	s.time(50, 100, "CreateStart", "at", 50, "by", "floor")
	s.add(sample{title("Footprint", "made", 10), 1, []value{{1.5, "B/vm"}, {2, "descriptors/vm"}}})
	got, err := readSamples(strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if got.about("vmm") != "Firecracker v1.16.1" || len(got.lines) != 2 {
		t.Fatalf("read %+v", got)
	}
	for name, want := range map[string]float64{"ns/op": 2, "B/vm": 0} {
		if xs := got.all("BenchmarkCreateStart/at=50/by=floor", name); (len(xs) == 1) != (want > 0) || len(xs) == 1 && xs[0] != want {
			t.Errorf("%s: %v", name, xs)
		}
	}
	if xs := got.all("BenchmarkFootprint/made=10", "descriptors/vm"); len(xs) != 1 || xs[0] != 2 {
		t.Errorf("descriptors: %v", xs)
	}
	for _, bad := range []string{"BenchmarkX 1", "BenchmarkX one 2 ns/op", "BenchmarkX 1 two ns/op", "nonsense"} {
		if _, err := readSamples(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken for a sample", bad)
		}
	}
}

func TestQuantilesLieBetweenTheirNeighbours(t *testing.T) {
	xs := []float64{1, 2, 3, 4}
	for q, want := range map[float64]float64{0: 1, 0.5: 2.5, 1: 4} {
		if got := quantile(xs, q); got != want {
			t.Errorf("quantile %v of %v is %v, not %v", q, xs, got, want)
		}
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("quantile of nothing is %v", got)
	}
}
