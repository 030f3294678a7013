// Package inmem is a microvm.Runtime that keeps its machines in memory: no
// process, no file, no privileges. It keeps the whole law of the contract
// (package microvmtest proves it), so that a program written against
// microvm.Runtime can be tested anywhere, its error paths included:
//
//   - FailNext orders failures: the next call of a verb fails as told.
//   - HoldNext stops the next call of a verb half-way until the test lets it go.
//   - GuestExits ends a guest, as a reboot or a panic would; KillVMM ends what
//     would be its process.
//   - SpecOf shows the spec that a VM was made with.
//
// A Runtime holds its VMs as long as it is reachable and starts no goroutine but
// one for each Watch, which ends with that Watch's context.
package inmem
