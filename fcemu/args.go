package fcemu

import (
	"fmt"
	"slices"
	"strings"
)

// flag is one flag of the command line.
type flag struct {
	name     string
	value    bool // takes one
	needs    string
	forbids  string
	fallback string
	help     string
	since    int // the line 1.since brought it
}

// flags are those of a release, and those of our own at the end.
func flags(rel release) []flag {
	return slices.DeleteFunc([]flag{
		{name: "api-sock", value: true, fallback: "/run/firecracker.socket", help: "Path of the API's unix socket."},
		{name: "boot-timer", help: "Log how long the guest took to boot (accepted; no guest here reports it)."},
		{name: "config-file", value: true, help: "Path of a JSON file with the configuration of a microVM, which is started at once."},
		{name: "describe-snapshot", value: true, help: "Print the format version of a snapshot's state file."},
		{name: "enable-pci", since: 13, help: "PCI transport, and with it hotplug of devices."},
		{name: "http-api-max-payload-size", value: true, fallback: "51200", help: "Largest body of a request, in bytes."},
		{name: "id", value: true, fallback: "anonymous-instance", help: "Name of the microVM: 1 to 64 letters, digits and '-'."},
		{name: "level", value: true, help: "Log level: Off, Error, Warn, Info, Debug, Trace."},
		{name: "log-path", value: true, help: "Path of a file or FIFO for the log; standard output without it."},
		{name: "metadata", value: true, help: "Path of a JSON file with the first contents of the metadata service."},
		{name: "metrics-path", value: true, help: "Path of a file or FIFO for the metrics."},
		{name: "mmds-size-limit", value: true, help: "Largest contents of the metadata service, in bytes."},
		{name: "module", value: true, help: "Log only modules whose path begins so."},
		{name: "no-api", needs: "config-file", help: "No API socket."},
		{name: "no-seccomp", forbids: "seccomp-filter", help: "No seccomp filters (there are none here)."},
		{name: "parent-cpu-time-us", value: true, help: "CPU time of the parent, in µs, for the metrics."},
		{name: "seccomp-filter", value: true, forbids: "no-seccomp", help: "Path of a compiled seccomp filter (must be readable; not applied)."},
		{name: "show-level", help: "Put the level into each line of the log."},
		{name: "show-log-origin", help: "Put file and line into each line of the log."},
		{name: "snapshot-version", help: "Print the format version of snapshots."},
		{name: "start-time-cpu-us", value: true, help: "CPU time at the start, in µs, for the metrics."},
		{name: "start-time-us", value: true, help: "Time of the start, in µs, for the metrics."},
		{name: "version", help: "Print the version."},
		{name: "engine", value: true, help: "fcemu: what runs the guest: null, qemu or auto (FCEMU_ENGINE; auto)."},
		{name: emulateFlag, value: true, fallback: EmulatedVersion, help: "fcemu: the release to emulate, from " + oldestRelease + " to " + newestRelease + " (FCEMU_EMULATE_VERSION)."},
		{name: faultFlag, value: true, help: "fcemu: faults to have, such as delay=2s:PUT /actions:1 (FCEMU_FAULT)."},
	}, func(f flag) bool { return !rel.has(f.since) })
}

// arguments are the flags that were given, and the defaults of the others.
type arguments struct {
	values map[string]string
	given  map[string]bool
}

func (a arguments) present(name string) bool { return a.given[name] }

func (a arguments) lookup(name string) (string, bool) {
	v, ok := a.values[name]
	return v, ok
}

// argumentError is a mistake in the command line.
type argumentError string

func (e argumentError) Error() string { return string(e) }

// parseArguments follows the original's rules: two dashes, the value as a
// separate word that has no dashes in front, no flag twice, "--" ends it all,
// and --help or --version anywhere before that hides every mistake.
func parseArguments(args []string, rel release) (arguments, error) {
	a := arguments{values: map[string]string{}, given: map[string]bool{}}
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	known := flags(rel)
	for _, f := range known {
		if f.fallback != "" {
			a.values[f.name] = f.fallback
		}
	}
	if slices.Contains(args, "--help") || slices.Contains(args, "-h") {
		a.given["help"] = true
		return a, nil
	}
	if slices.Contains(args, "--version") {
		a.given["version"] = true
		// Ours: the answer names the engine.
		if i := slices.Index(args, "--engine"); i >= 0 && i+1 < len(args) {
			a.values["engine"] = args[i+1]
		}
		return a, nil
	}
	for i := 0; i < len(args); i++ {
		name, ok := strings.CutPrefix(args[i], "--")
		at := slices.IndexFunc(known, func(f flag) bool { return f.name == name })
		switch {
		case !ok || at < 0:
			return a, argumentError(fmt.Sprintf("Found argument '%s' which wasn't expected, or isn't valid in this context.", name))
		case a.given[name]:
			return a, argumentError(fmt.Sprintf("The argument '%s' was provided more than once.", name))
		}
		a.given[name] = true
		if !known[at].value {
			continue
		}
		i++
		if i == len(args) || strings.HasPrefix(args[i], "--") {
			return a, argumentError(fmt.Sprintf("The argument '%s' requires a value, but none was supplied.", name))
		}
		a.values[name] = args[i]
	}
	for _, f := range known {
		switch {
		case !a.given[f.name]:
		case f.needs != "" && !a.given[f.needs]:
			return a, argumentError(fmt.Sprintf("Argument '%s' required, but not found.", f.needs))
		case f.forbids != "" && a.given[f.forbids]:
			return a, argumentError(fmt.Sprintf("'%s' is forbidden with '%s'.", f.name, f.forbids))
		}
	}
	return a, nil
}

const (
	emulateFlag = "emulate-version"
	faultFlag   = "fault"
)

// emulated finds the release in the command line, whose other flags depend on
// it.
func emulated(args []string, fallback string) (release, error) {
	for i, a := range args {
		if a == "--" {
			break
		}
		if a == "--"+emulateFlag && i+1 < len(args) {
			fallback = args[i+1]
			break
		}
	}
	return parseRelease(fallback)
}

func helpText(rel release) string {
	var b strings.Builder
	b.WriteString("optional arguments:\n")
	for _, f := range flags(rel) {
		name := "  --" + f.name
		if f.value {
			name += " <" + f.name + ">"
		}
		fmt.Fprintf(&b, "%-55s   %s", name, f.help)
		if f.fallback != "" {
			fmt.Fprintf(&b, " [default: %q]", f.fallback)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
