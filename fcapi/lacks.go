package fcapi

import "slices"

// Lack is an endpoint, a field or a value that a release does not know.
type Lack struct {
	// What is like "DELETE /drives/*", "PUT /serial rate_limiter" or "PUT
	// /machine-config huge_pages=Transparent"; * stands for the id of a device.
	What string
	// Since are the releases that brought it, as in UnsupportedError.Need.
	Since []Version
}

// Lacks lists what releases up to 1.17 know and v does not, in order of What.
// What is missing as a whole is named without its parts.
func Lacks(v Version) []Lack {
	var all []Lack
	var look func(at, sep string, f field)
	look = func(at, sep string, f field) {
		if !f.since.has(v) {
			all = append(all, Lack{at, slices.Clone(f.since.or())})
			return
		}
		for value, since := range f.values {
			if !since.has(v) {
				all = append(all, Lack{at + "=" + value, slices.Clone(since.or())})
			}
		}
		for name, in := range f.in {
			look(at+sep+name, ".", in)
		}
	}
	for endpoint, f := range endpoints {
		look(endpoint, " ", f)
	}
	slices.SortFunc(all, func(a, b Lack) int {
		if a.What < b.What {
			return -1
		}
		return 1
	})
	return all
}
