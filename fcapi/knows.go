package fcapi

import (
	"maps"
	"slices"
	"strings"
)

// Endpoints returns all endpoints of the version table, in the notation of Knows
// and sorted.
func Endpoints() []string { return slices.Sorted(maps.Keys(endpoints)) }

// Knows reports whether the release v has something of the version table: an
// endpoint, such as "PUT /pmem/*" with * for the id of a device, a field of its
// body, "PUT /pmem/* rate_limiter.ops", or a value that came later than its
// field, "PUT /machine-config huge_pages=Transparent". What the table does not
// list, nobody knows, older values of a field included.
func Knows(v Version, thing string) bool {
	words := strings.SplitN(thing, " ", 3)
	if len(words) < 2 {
		return false
	}
	f, ok := endpoints[words[0]+" "+words[1]]
	if !ok || !f.since.has(v) {
		return false
	}
	if len(words) == 2 {
		return true
	}
	path, value, valued := strings.Cut(words[2], "=")
	for name := range strings.SplitSeq(path, ".") {
		if f, ok = f.in[name]; !ok || !f.since.has(v) {
			return false
		}
	}
	if !valued {
		return true
	}
	since, ok := f.values[value]
	return ok && since.has(v)
}
