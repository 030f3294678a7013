package vsock

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"syscall"
)

// ErrHandshake says that the answer to a CONNECT was not one: what serves the
// socket is not a VMM's vsock. Trying again does not help.
var ErrHandshake = errors.New("vsock: broken answer to CONNECT")

// maxReply is the longest answer, "OK 4294967295\n".
const maxReply = len("OK 4294967295\n")

// handshake asks for a port of the guest and returns the port that the VMM gave
// to the host's end. It reads the answer byte by byte: what follows it, perhaps
// in the same segment, belongs to the caller.
func handshake(rw io.ReadWriter, port uint32) (hostPort uint32, err error) {
	if _, err := fmt.Fprintf(rw, "CONNECT %d\n", port); err != nil {
		if hungUp(err) {
			err = ErrRefused
		}
		return 0, err
	}
	reply := make([]byte, 0, maxReply)
	for len(reply) < maxReply {
		n, err := rw.Read(reply[len(reply) : len(reply)+1])
		reply = reply[:len(reply)+n]
		if n > 0 && reply[len(reply)-1] == '\n' {
			return parseReply(reply)
		}
		switch {
		case err == nil:
		case len(reply) == 0 && hungUp(err):
			return 0, ErrRefused
		case hungUp(err):
			return 0, fmt.Errorf("%w: it ended after %q", ErrHandshake, reply)
		default:
			return 0, err
		}
	}
	return 0, fmt.Errorf("%w: %q is too long", ErrHandshake, reply)
}

func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// parseReply reads "OK <port>\n", the port being a decimal number of 32 bits
// without sign, blanks or leading zeros.
func parseReply(reply []byte) (uint32, error) {
	bad := func() (uint32, error) { return 0, fmt.Errorf("%w: %q is not \"OK <port>\"", ErrHandshake, reply) }
	const head = "OK "
	n := len(reply)
	if n > maxReply || n < len(head)+2 || string(reply[:len(head)]) != head || reply[n-1] != '\n' {
		return bad()
	}
	digits := string(reply[len(head) : n-1])
	v, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || strconv.FormatUint(v, 10) != digits {
		return bad()
	}
	return uint32(v), nil
}
