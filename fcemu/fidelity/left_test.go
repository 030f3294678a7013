package fidelity

import "slices"

const (
	driverless = "the emulated guest has this device's driver, the tiny guest has none"
	refused    = "no engine emulates it: refused by name"
)

// left is what the emulator is meant to answer differently, and why;
// docs/emulator.md tells users. One that no longer differs fails the test, and
// so does one that leaves the VMM in another state.
var left = map[string]string{
	"machine: a list 200 deep":   "a body nested more than 127 deep is bad JSON before its type is looked at",
	"drives: vhost-user":         refused,
	"devices: free page hinting": refused,
	`guest: a guest with a balloon and PATCH /balloon {"amount_mib":0}`:                            driverless,
	`guest: a guest with a balloon and PATCH /balloon {"amount_mib":1}`:                            driverless,
	`guest: a guest with a balloon and PATCH /balloon {"amount_mib":15}`:                           driverless,
	`guest: a guest with a balloon and PATCH /balloon {"amount_mib":16}`:                           driverless,
	`guest: a guest with hotpluggable memory and PATCH /hotplug/memory {"requested_size_mib":0}`:   driverless,
	`guest: a guest with hotpluggable memory and PATCH /hotplug/memory {"requested_size_mib":128}`: driverless,
}

// either are answers that the original gives as well, by the host that it runs
// on: the end of a sequence, in place of the recorded one.
var either = map[string][]string{
	// KVM tells the time of day with the guest's clock only while all CPUs' TSCs
	// agree; a state without it can't be loaded so.
	"snapshot: load: the clock": {"400 rule", "exit code 1"},
}

// expected is what may be answered to a sequence; of two, that which is nearer.
func expected(rec record, name string, got []string) []string {
	want := rec.Sequences[name]
	other, ok := either[name]
	if n := len(want) - len(other); ok && n >= 0 && len(got) == len(want) && slices.Equal(got[n:], other) {
		return slices.Concat(want[:n], other)
	}
	return want
}
