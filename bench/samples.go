package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// samples are what was measured, one line a sample, in the format of Go's
// benchmarks (golang.org/design/14313-benchmark-format): benchstat reads it.
type samples struct {
	config []setup
	lines  []sample
	to     io.Writer // each is also written here at once; may be nil
}

type setup struct{ key, value string }

// sample is one measurement: name, number of operations, values with units.
type sample struct {
	name   string
	n      int
	values []value
}

type value struct {
	number float64
	unit   string
}

// says adds a line about the circumstances; they stand before the samples.
func (s *samples) says(key, value string) {
	s.config = append(s.config, setup{key, value})
	if s.to != nil {
		fmt.Fprintf(s.to, "%s: %s\n", key, value)
	}
}

// value of a line about the circumstances, empty when there is none.
func (s *samples) about(key string) string {
	for _, c := range s.config {
		if c.key == key {
			return c.value
		}
	}
	return ""
}

func (s *samples) add(v sample) {
	s.lines = append(s.lines, v)
	if s.to != nil {
		fmt.Fprintln(s.to, v)
	}
}

// time adds the time of n operations.
func (s *samples) time(n int, took time.Duration, name string, pairs ...any) {
	s.add(sample{title(name, pairs...), n, []value{{float64(took.Nanoseconds()) / float64(n), "ns/op"}}})
}

// title is "Benchmark<name>/key=value…".
func title(name string, pairs ...any) string {
	b := "Benchmark" + name
	for i := 0; i+1 < len(pairs); i += 2 {
		b += fmt.Sprintf("/%v=%v", pairs[i], pairs[i+1])
	}
	return b
}

func (v sample) String() string {
	b := fmt.Sprintf("%s %d", v.name, v.n)
	for _, x := range v.values {
		b += " " + strconv.FormatFloat(x.number, 'f', -1, 64) + " " + x.unit
	}
	return b
}

// readSamples parses what was written.
func readSamples(r io.Reader) (*samples, error) {
	s := &samples{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if key, val, ok := strings.Cut(line, ": "); ok && !strings.HasPrefix(line, "Benchmark") {
			s.says(key, val)
			continue
		}
		f := strings.Fields(line)
		if len(f) < 4 || len(f)%2 != 0 || !strings.HasPrefix(f[0], "Benchmark") {
			return nil, fmt.Errorf("not a sample: %q", line)
		}
		n, err := strconv.Atoi(f[1])
		if err != nil {
			return nil, fmt.Errorf("%q: %w", line, err)
		}
		one := sample{name: f[0], n: n}
		for i := 2; i < len(f); i += 2 {
			x, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
			one.values = append(one.values, value{x, f[i+1]})
		}
		s.lines = append(s.lines, one)
	}
	return s, lines.Err()
}

// all are the values of one name and unit, sorted.
func (s *samples) all(name, unit string) []float64 {
	var xs []float64
	for _, l := range s.lines {
		if l.name != name {
			continue
		}
		for _, v := range l.values {
			if v.unit == unit {
				xs = append(xs, v.number)
			}
		}
	}
	slices.Sort(xs)
	return xs
}

// quantile of sorted numbers, 0 to 1; of none it is 0.
func quantile(xs []float64, q float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	at := q * float64(len(xs)-1)
	i := int(at)
	if i+1 == len(xs) {
		return xs[i]
	}
	return xs[i] + (at-float64(i))*(xs[i+1]-xs[i])
}
