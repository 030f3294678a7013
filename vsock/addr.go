package vsock

import "strconv"

// Addr is one end of a connection or a listener.
type Addr struct {
	// Socket is the path of the VMM's vsock socket.
	Socket string
	// Port is the vsock port; 0 when it is not known, as for the guest's end of
	// a connection that the guest has made.
	Port uint32
}

// Network returns "vsock".
func (Addr) Network() string { return "vsock" }

// String returns "path:port".
func (a Addr) String() string {
	if a.Port == 0 {
		return a.Socket
	}
	return a.Socket + ":" + strconv.FormatUint(uint64(a.Port), 10)
}
