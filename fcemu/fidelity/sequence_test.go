package fidelity

import (
	"fmt"
	"strings"
)

// sequence is what is done to one fresh VMM.
//
// A step is a request, "METHOD PATH BODY" with no body where there is none, or
// one of
//
//	!raw N BYTES     sends the bytes and reads N answers; "!raw - BYTES" reads
//	                 none and leaves the rest of the request to the next step
//	!connect         goes on over a new connection
//	!exit            waits for the end of the process; its code is the answer
//	!restart         kills the VMM and starts another in the same directory
//	!remove FILE     removes a file, !touch FILE makes an empty one
//	!short FILE      cuts a file to a page
type sequence struct {
	name  string
	args  []string // behind --api-sock and --log-path; nil is none
	alone bool     // args are the whole command line
	net   bool     // in a network namespace of its own
	guest bool     // starts a guest: the original needs /dev/kvm
	steps []string
}

// all is the list, area by area.
func all() []sequence {
	var list []sequence
	for _, area := range []struct {
		name string
		of   []sequence
	}{
		{"machine", machineSequences()}, {"boot", bootSequences()}, {"drives", driveSequences()},
		{"network", networkSequences()}, {"devices", deviceSequences()}, {"mmds", mmdsSequences()},
		{"paths", pathSequences()}, {"order", orderSequences()}, {"http", httpSequences()},
		{"cli", commandLineSequences()}, {"guest", guestSequences()}, {"hotplug", hotplugSequences()},
		{"snapshot", snapshotSequences()},
	} {
		for _, s := range area.of {
			s.name = area.name + ": " + s.name
			list = append(list, s)
		}
	}
	return list
}

// each makes a sequence of each request, and of one behind it that must work
// as before.
func each(requests ...string) []sequence {
	var list []sequence
	for _, r := range requests {
		list = append(list, sequence{name: brief(r), steps: []string{r, "GET /vm/config"}})
	}
	return list
}

// with makes a sequence of each value, in the place of @ in a request.
func with(request string, values ...string) []sequence {
	var requests []string
	for _, v := range values {
		requests = append(requests, strings.Replace(request, "@", v, 1))
	}
	return each(requests...)
}

// brief is a name for something long.
func brief(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= 160 {
		return s
	}
	return fmt.Sprintf("%s…%s (%d bytes)", strings.ToValidUTF8(s[:100], ""), strings.ToValidUTF8(s[len(s)-20:], ""), len(s))
}

func join(lists ...[]sequence) []sequence {
	var out []sequence
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

// steps is a list of steps out of single ones and lists.
func steps(parts ...any) []string {
	var out []string
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			out = append(out, p)
		case []string:
			out = append(out, p...)
		default:
			panic(fmt.Sprintf("a step is a string, not a %T", p))
		}
	}
	return out
}
