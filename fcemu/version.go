package fcemu

// EmulatedVersion is the Firecracker release whose behaviour is emulated. All
// that depends on the release hangs on the values in this file.
const EmulatedVersion = "1.16.1"

// ReportedVersion is what the API and the command line say, so that nobody
// takes the emulator for the original.
const ReportedVersion = EmulatedVersion + "-fcemu"

// appName is Firecracker's own: clients look at it to know what API they are
// talking to. The version beside it says what really answers.
const appName = "Firecracker"

// snapshotFormat has the major version of the emulated release (10), so that
// tools that compare only that see what they would see there. The files
// themselves are not exchangeable with Firecracker's.
var snapshotFormat = FormatVersion{Major: 10}
