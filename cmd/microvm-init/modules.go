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
func loadModules(dir string, params []param) error {
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
		err := loadModule(filepath.Join(dir, name+".ko"), moduleParams(name, params))
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

// moduleParams returns the parameters that the command line has for a module, as
// modprobe(8) passes them on: MODULE.KEY=VALUE. Firecracker announces its disks to
// kernels without ACPI in this way (virtio_mmio.device=).
func moduleParams(module string, params []param) string {
	var list []string
	for _, p := range params {
		name, key, ok := strings.Cut(p.key, ".")
		if !ok || strings.ReplaceAll(name, "-", "_") != module {
			continue
		}
		if p.hasValue {
			if strings.ContainsFunc(p.value, func(r rune) bool { return r < 128 && isSpace(byte(r)) }) {
				key += `="` + p.value + `"`
			} else {
				key += "=" + p.value
			}
		}
		list = append(list, key)
	}
	return strings.Join(list, " ")
}

func loadModule(path, params string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), params, 0)
}
