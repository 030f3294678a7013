package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// checkNetwork makes a network namespace, and in it an nftables table and a
// TAP, all of which vanish with the thread that is in it.
func checkNetwork() []Check {
	netns := Check{Name: "netns", Status: Missing, For: "a network of each VM's own", Remedy: "run as root, or with CAP_SYS_ADMIN and CAP_NET_ADMIN"}
	nft := Check{Name: "nftables", Status: Missing, For: "NAT, published ports and egress policy", Remedy: "modprobe nf_tables, as root"}
	tap := Check{Name: "tap", Status: Missing, For: "network interfaces of VMs", Remedy: "modprobe tun, as root"}
	const untried = "not tried: it needs a network namespace"
	nft.Detail, tap.Detail = untried, untried
	var unshare, table, device error
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread, and the namespace with it, ends with this
		// goroutine.
		runtime.LockOSThread()
		if unshare = unix.Unshare(unix.CLONE_NEWNET); unshare != nil {
			return
		}
		table = makeTable()
		device = makeTAP()
	}()
	<-done
	if unshare != nil {
		netns.Detail = "unshare(CLONE_NEWNET): " + unshare.Error()
		return []Check{netns, nft, tap}
	}
	netns.Status, netns.Detail, netns.Remedy = OK, "a namespace could be made", ""
	settle := func(c *Check, err error, detail string) {
		if err != nil {
			c.Detail = err.Error()
			return
		}
		c.Status, c.Detail, c.Remedy = OK, detail, ""
	}
	settle(&nft, table, "a table could be made, in a namespace of its own")
	settle(&tap, device, "a TAP could be made, in a namespace of its own")
	return []Check{netns, nft, tap}
}

// From linux/netfilter/nfnetlink.h and nf_tables.h.
const (
	nfnlMsgBatchBegin = 0x10
	nfnlMsgBatchEnd   = 0x11
	nfnlSubsysNFT     = 10
	nftMsgNewTable    = 0
	nftaTableName     = 1
	nfprotoINet       = 1
)

// makeTable makes an nftables table in the thread's namespace.
func makeTable() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("netfilter socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		return fmt.Errorf("netfilter socket: %w", err)
	}
	const wanted = 2 // sequence number of the message whose answer counts
	name := append([]byte("microvm_doctor"), 0)
	batch := nfnl(nfnlMsgBatchBegin, unix.NLM_F_REQUEST, 1, unix.AF_UNSPEC, nfnlSubsysNFT, nil)
	batch = append(batch, nfnl(nfnlSubsysNFT<<8|nftMsgNewTable, unix.NLM_F_REQUEST|unix.NLM_F_CREATE|unix.NLM_F_ACK, wanted, nfprotoINet, 0, attr(nftaTableName, name))...)
	batch = append(batch, nfnl(nfnlMsgBatchEnd, unix.NLM_F_REQUEST, 3, unix.AF_UNSPEC, nfnlSubsysNFT, nil)...)
	if err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send to nftables: %w", err)
	}
	buf := make([]byte, 8<<10)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return fmt.Errorf("answer of nftables: %w", err)
	}
	return netlinkAnswer(buf[:n], wanted)
}

// netlinkAnswer finds the acknowledgement of one message.
func netlinkAnswer(b []byte, wanted uint32) error {
	for len(b) >= unix.NLMSG_HDRLEN+4 {
		length := int(binary.NativeEndian.Uint32(b))
		kind := binary.NativeEndian.Uint16(b[4:])
		seq := binary.NativeEndian.Uint32(b[8:])
		if length < unix.NLMSG_HDRLEN+4 || length > len(b) {
			break
		}
		if code := int32(binary.NativeEndian.Uint32(b[unix.NLMSG_HDRLEN:])); kind == unix.NLMSG_ERROR && code != 0 {
			return fmt.Errorf("make an nftables table: %w", unix.Errno(-code))
		} else if kind == unix.NLMSG_ERROR && seq == wanted {
			return nil
		}
		b = b[min(len(b), (length+3)&^3):]
	}
	return errors.New("nftables gave no answer that is understood")
}

// nfnl is a netlink message to netfilter.
func nfnl(kind uint16, flags uint16, seq uint32, family byte, resource uint16, attrs []byte) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN+4, unix.NLMSG_HDRLEN+4+len(attrs))
	binary.NativeEndian.PutUint32(b, uint32(cap(b)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags)
	binary.NativeEndian.PutUint32(b[8:], seq)
	b[unix.NLMSG_HDRLEN] = family
	binary.BigEndian.PutUint16(b[unix.NLMSG_HDRLEN+2:], resource)
	return append(b, attrs...)
}

// attr is a netlink attribute, padded.
func attr(kind uint16, value []byte) []byte {
	b := make([]byte, 4, 4+len(value)+3)
	binary.NativeEndian.PutUint16(b, uint16(4+len(value)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// makeTAP makes a TAP that goes when its descriptor is closed.
func makeTAP() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/dev/net/tun: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("microvm-doctor")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("TUNSETIFF: %w", err)
	}
	return nil
}
