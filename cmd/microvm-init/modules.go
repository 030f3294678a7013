//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

const moduleDir = "/modules"

var moduleWord = regexp.MustCompile(`^[A-Za-z0-9_]+$`)

// parseOrder reads the list of modules: a name a line, blank lines and lines that
// begin with # are skipped.
func parseOrder(text string) ([]string, error) {
	var names []string
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if !moduleWord.MatchString(line) {
			return nil, fmt.Errorf("line %d: %q is no module name", i+1, line)
		}
		names = append(names, line)
	}
	return names, nil
}

// loadModules loads what the initrd lists, in that order. A module without its
// hardware or processor feature is normal and only told; the root disk's absence
// is what counts.
func loadModules(dir string) error {
	order, err := os.ReadFile(filepath.Join(dir, "order"))
	if errors.Is(err, os.ErrNotExist) {
		return nil // everything is built in
	}
	if err != nil {
		return err
	}
	names, err := parseOrder(string(order))
	if err != nil {
		return err
	}
	for _, name := range names {
		err := loadModule(filepath.Join(dir, name+".ko"))
		switch {
		case err == nil, errors.Is(err, unix.EEXIST):
		case errors.Is(err, unix.ENODEV):
			say("module %s: no such hardware here", name)
		default:
			say("module %s: %v", name, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}
