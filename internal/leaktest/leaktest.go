// Package leaktest ends the tests of a package with a look for what they have
// left: goroutines and descriptors.
//
//	func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }
package leaktest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/goleak"
)

// Run runs the tests. When they have passed, and goroutines run on or descriptors
// are open that were not before, it says which, and the code is 1.
func Run(m interface{ Run() int }) (code int) {
	before, err := Descriptors()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if code = m.Run(); code != 0 {
		return code // what a test that fails leaves is no news
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := NoneOpened(before); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// Descriptors are the open descriptors of this process, as "number target".
func Descriptors() ([]string, error) {
	// The runtime opens a few for itself when it first needs its poller.
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("descriptors: %w", err)
	}
	r.Close()
	w.Close()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return nil, fmt.Errorf("descriptors: %w", err)
	}
	if len(links) == 0 {
		return nil, fmt.Errorf("descriptors: /proc/self/fd shows none")
	}
	var open []string
	for _, l := range links {
		target, err := os.Readlink(l)
		if err != nil {
			continue // the one that was open for the listing
		}
		open = append(open, filepath.Base(l)+" "+target)
	}
	return open, nil
}

// NoneOpened waits for a second until no descriptor is open that was not before,
// and then says which are.
func NoneOpened(before []string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Second); ; <-tick.C {
		now, err := Descriptors()
		if err != nil {
			return err
		}
		left := slices.DeleteFunc(now, func(d string) bool { return slices.Contains(before, d) })
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the tests have left %d descriptors open:\n\t%s", len(left), strings.Join(left, "\n\t"))
		}
	}
}
