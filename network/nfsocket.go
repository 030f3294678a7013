package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/internal/netns"
)

// nfSocket speaks with the netfilter of the namespace that it was opened in. The kernel
// answers before sendmsg returns, so that nothing is ever waited for. The library's own
// sockets ask for an answer to each message of a transaction, and read them one by one:
// that takes several times as long as the transaction itself. Not for several goroutines
// at once.
type nfSocket struct {
	fd  int
	buf []byte
}

// openNF opens a socket in the namespace of the thread.
func openNF() (*nfSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket(NETLINK_NETFILTER)", err)
	}
	// Errors come without the message that they are about.
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt(NETLINK_CAP_ACK)", err)
	}
	return &nfSocket{fd, make([]byte, 1<<16)}, nil // a dump comes in pieces of 32 KiB at most
}

// openNFIn opens one in the namespace at path.
func openNFIn(path string) (s *nfSocket, err error) {
	err = netns.Inside(path, func() (err error) {
		s, err = openNF()
		return err
	})
	return s, err
}

// close may wait until the kernel has disposed of what transactions in the namespace
// have removed.
func (s *nfSocket) close() { unix.Close(s.fd) }

// conn is the library's connection over the socket. TestDial is its only way to another
// transport than its own.
func (s *nfSocket) conn() (*nftables.Conn, error) {
	c, err := nftables.New(nftables.AsLasting(), nftables.WithTestDial(s.answer))
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return c, nil
}

// answer sends requests and returns the answers to them. For a transaction these are
// one for each message, and are handed out, with reqs empty, after its outcome.
func (s *nfSocket) answer(reqs []netlink.Message) ([]netlink.Message, error) {
	switch {
	case len(reqs) == 0:
		return []netlink.Message{{Header: netlink.Header{Type: netlink.Error}, Data: make([]byte, 4)}}, nil
	case reqs[0].Header.Type == unix.NFNL_MSG_BATCH_BEGIN:
		return nil, s.transact(reqs)
	case len(reqs) > 1:
		return nil, fmt.Errorf("%d requests at once: %w", len(reqs), unix.EINVAL)
	}
	const tries = 10
	for range tries {
		msgs, err := s.ask(reqs[0])
		// Somebody has changed what was listed: some of it may be missing.
		if err != nil || !slices.ContainsFunc(msgs, func(m netlink.Message) bool { return m.Header.Flags&netlink.DumpInterrupted != 0 }) {
			return msgs, err
		}
	}
	return nil, unix.EBUSY
}

// transact sends a transaction, of which only the last message asks for an answer: those
// that fail are answered in any case.
func (s *nfSocket) transact(reqs []netlink.Message) error {
	var b []byte
	last := len(reqs) - 2 // before the end of the batch
	for i, r := range reqs {
		r.Header.Flags &^= netlink.Echo | netlink.Acknowledge
		if i == last {
			r.Header.Flags |= netlink.Acknowledge
		}
		one, err := r.MarshalBinary()
		if err != nil {
			return err
		}
		b = append(b, one...)
	}
	if err := s.send(b); err != nil {
		return err
	}
	msgs, err := s.receive()
	if err != nil {
		return err
	}
	acks, err := outcome(msgs)
	if err == nil && !slices.Contains(acks, reqs[last].Header.Sequence) {
		return fmt.Errorf("no answer: %w", unix.EPROTO)
	}
	return err
}

// outcome is which messages were acknowledged, and which errors there were.
func outcome(msgs []netlink.Message) (acks []uint32, err error) {
	var errs []error
	for _, m := range msgs {
		if m.Header.Type != netlink.Error || len(m.Data) < 4 {
			continue
		}
		errno := unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
		if errno == 0 {
			acks = append(acks, m.Header.Sequence)
		} else if !slices.ContainsFunc(errs, func(e error) bool { return e == errno }) {
			errs = append(errs, errno)
		}
	}
	return acks, errors.Join(errs...)
}

func (s *nfSocket) ask(req netlink.Message) ([]netlink.Message, error) {
	b, err := req.MarshalBinary()
	if err != nil {
		return nil, err
	}
	if err := s.send(b); err != nil {
		return nil, err
	}
	msgs, err := s.receive()
	for i := range msgs {
		msgs[i].Header.PID = req.Header.PID // what the library believes its own to be
	}
	// An answer, and that all is well: the library asks for that by itself.
	if n := len(msgs); n > 1 && msgs[n-1].Header.Type == netlink.Error && req.Header.Flags&netlink.Dump != netlink.Dump {
		msgs = msgs[:n-1]
	}
	return msgs, err
}

func (s *nfSocket) send(b []byte) error {
	kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	err := unix.Sendto(s.fd, b, 0, kernel)
	if errors.Is(err, unix.EMSGSIZE) {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*len(b)); err != nil {
			return os.NewSyscallError("setsockopt(SO_SNDBUFFORCE)", err)
		}
		err = unix.Sendto(s.fd, b, 0, kernel)
	}
	return os.NewSyscallError("sendto", err)
}

// receive reads all that the kernel has answered.
func (s *nfSocket) receive() ([]netlink.Message, error) {
	var out []netlink.Message
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return out, nil
		}
		if err == nil && n > len(s.buf) {
			err = unix.EMSGSIZE
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		for b := s.buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.NLMSG_HDRLEN || size > len(b) {
				return nil, fmt.Errorf("a message of %d bytes in %d: %w", size, len(b), unix.EPROTO)
			}
			var m netlink.Message
			m.Header = netlink.Header{Length: uint32(size), Type: netlink.HeaderType(binary.NativeEndian.Uint16(b[4:])), Flags: netlink.HeaderFlags(binary.NativeEndian.Uint16(b[6:])),
				Sequence: binary.NativeEndian.Uint32(b[8:]), PID: binary.NativeEndian.Uint32(b[12:])}
			m.Data = slices.Clone(b[unix.NLMSG_HDRLEN:size])
			out = append(out, m)
			b = b[min(len(b), (size+3)&^3):]
		}
	}
}

// forgetFlows empties the connection tracking of the namespace.
func (s *nfSocket) forgetFlows() error {
	const ctDelete = 2 // IPCTNL_MSG_CT_DELETE of linux/netfilter/nfnetlink_conntrack.h
	msgs, err := s.ask(netlink.Message{
		Header: netlink.Header{Length: unix.NLMSG_HDRLEN + 4, Type: unix.NFNL_SUBSYS_CTNETLINK<<8 | ctDelete, Flags: netlink.Request | netlink.Acknowledge},
		Data:   []byte{unix.AF_UNSPEC, 0, 0, 0},
	})
	if err != nil {
		return err
	}
	_, err = outcome(msgs)
	return err
}
