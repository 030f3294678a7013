// Package firecracker is the provider for Firecracker microVMs: one VMM process
// a VM, driven over its API socket, with everything that must not be forgotten
// in a directory that several programs may share.
//
//	<state>/vms/<id>/vm.json        the record
//	                 run/           working directory of the VMM
//	                 console.log    the guest's serial output, bounded
//	                 hibernate/     memory of a hibernated VM
//	<state>/snapshots/<uid>/<name>/ snapshots
//
// The same code drives Firecracker itself and whatever speaks its API, such as
// the emulator fcemu.
package firecracker
