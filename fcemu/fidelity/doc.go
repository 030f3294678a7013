// Package fidelity holds the emulator against the original: its tests send one
// list of request sequences to fcemu, and to a real Firecracker where
// MICROVM_TEST_FIRECRACKER names one, and compare what comes back with
// testdata/RELEASE.json, the answers that were recorded from the original.
package fidelity
