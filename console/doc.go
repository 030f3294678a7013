// Package console keeps what a guest writes to its serial port: in a file that
// the VMM writes itself, so that output is kept while no program of the operator
// runs, and that is bounded on disk all the same.
//
// The bound is kept by punching holes at the head of the file (fallocate(2),
// FALLOC_FL_PUNCH_HOLE). The file grows in length for ever, but its disk blocks
// at the head are given back. No offset ever moves, nothing is renamed and
// nothing truncated: the VMM writes on, and whoever follows the file neither
// loses nor doubles a byte, and knows exactly how many it missed when it was
// overtaken.
//
// A Keeper enforces the bound for any number of files. While no Keeper runs,
// because the operator's program is down, a file grows; it is cut as soon as it
// is added to a Keeper again. Firecracker 1.16 and newer can limit the rate of
// the serial port, which bounds that growth too.
//
// What the bytes of a guest may do to a terminal is the reader's concern:
// Sanitize makes them safe to print.
package console
