// Package qemuengine is the engine of fcemu that runs real Linux guests, in
// QEMU.
package qemuengine
