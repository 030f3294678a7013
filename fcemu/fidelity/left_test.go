package fidelity

const (
	driverless = "the emulated guest has this device's driver, the tiny guest has none"
	refused    = "no engine emulates it: refused by name"
)

// left is what the emulator is meant to answer differently, and why;
// docs/emulator.md tells users. One that no longer differs fails the test.
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
