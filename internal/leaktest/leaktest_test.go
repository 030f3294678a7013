package leaktest

import (
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Run(m)) }

// tests are such that leave something.
type tests func() int

func (f tests) Run() int { return f() }

func TestWhatIsLeftOpenIsFound(t *testing.T) {
	before, err := Descriptors()
	if err != nil {
		t.Fatal(err)
	}
	if err := NoneOpened(before); err != nil {
		t.Error(err)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if err := NoneOpened(before); err == nil || !strings.Contains(err.Error(), os.DevNull) {
		t.Errorf("an open file: %v", err)
	}
	f.Close()
	if err := NoneOpened(before); err != nil {
		t.Error(err)
	}
}

func TestRunFailsForDescriptorsAndGoroutines(t *testing.T) {
	var f *os.File
	stop := make(chan struct{})
	ended := make(chan struct{})
	for name, c := range map[string]struct {
		run  tests
		want int
		end  func()
	}{
		"nothing":      {func() int { return 0 }, 0, func() {}},
		"a failure":    {func() int { return 3 }, 3, func() {}},
		"a descriptor": {func() int { f, _ = os.Open(os.DevNull); return 0 }, 1, func() { f.Close() }},
		"a goroutine":  {func() int { go func() { <-stop; close(ended) }(); return 0 }, 1, func() { close(stop); <-ended }},
	} {
		if got := Run(c.run); got != c.want {
			t.Errorf("%s: %d", name, got)
		}
		c.end()
	}
}
