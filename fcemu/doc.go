// Package fcemu emulates the Firecracker VMM: its command line, its HTTP API
// over a unix socket, its files, sockets and exit codes, in front of an Engine
// that runs a guest (or pretends to).
//
// What is emulated, approximated and refused is listed in docs/emulator.md.
// Whatever an engine does not emulate is answered with a 400 and never
// ignored.
package fcemu
