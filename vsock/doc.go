// Package vsock is the host side of Firecracker's hybrid vsock: byte streams
// between programs on the host and in a guest, over unix sockets that the VMM
// serves (docs/vsock.md in Firecracker's repository).
//
// The host reaches a port of the guest by connecting to the VMM's socket and
// asking for the port in one line of text (Dial). The guest reaches the host
// through a socket whose path is that of the VMM's with "_PORT" behind it
// (Listen). Both give ordinary net.Conns, from which the handshake has taken
// exactly its own bytes.
//
// Paths may be longer than the 107 bytes that a unix address holds.
package vsock
