package fcemu

import (
	"fmt"

	"github.com/tangle-network/microvm/fcapi"
)

// EmulatedVersion is the Firecracker release whose behaviour is emulated unless
// another is asked for.
const EmulatedVersion = "1.16.1"

// The releases that can be emulated reach from oldestRelease to newestRelease,
// which is not released yet: it is what Firecracker's main branch says of it.
const (
	oldestRelease = "1.7.0"
	newestRelease = "1.17.0"
)

// appName is Firecracker's own: clients look at it to know what API they are
// talking to. The version beside it says what really answers.
const appName = "Firecracker"

// release is the emulated release of Firecracker. All that depends on it hangs
// on fcapi's version table, or on the few facts that are no matter of a client:
// flags, metrics, shapes of answers.
type release struct {
	version fcapi.Version
	format  FormatVersion
}

// parseRelease takes a release of the version table; empty is EmulatedVersion.
func parseRelease(name string) (release, error) {
	if name == "" {
		name = EmulatedVersion
	}
	v, err := fcapi.ParseVersion(name)
	if err != nil {
		return release{}, fmt.Errorf("emulated version %.40q: want a release from %s to %s, such as %s",
			name, oldestRelease, newestRelease, EmulatedVersion)
	}
	f, ok := fcapi.SnapshotFormat(v)
	if !ok {
		return release{}, fmt.Errorf("emulated version %q: want a release from %s to %s", name, oldestRelease, newestRelease)
	}
	return release{v, FormatVersion{uint16(f.Major), uint16(f.Minor), uint16(f.Patch)}}, nil
}

// reported is what the API and the command line say, so that nobody takes the
// emulator for the original.
func (r release) reported() string { return r.version.String() + "-fcemu" }

// has tells whether the release is of the line 1.minor or newer.
func (r release) has(minor int) bool { return r.version.AtLeast(fcapi.Version{Major: 1, Minor: minor}) }

// knows asks the version table for an endpoint, a field or a value, in the
// notation of fcapi.Knows.
func (r release) knows(thing string) bool { return fcapi.Knows(r.version, thing) }
