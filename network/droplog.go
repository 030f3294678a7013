package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/internal/netns"
)

// Drop is a packet that a VM's policy did not let pass.
type Drop struct {
	Protocol string // "tcp", "udp", "icmp" or the protocol's number
	To       netip.AddrPort
}

// dropLog tells of the packets that a namespace's rules have logged: to the Manager's
// log, one line each; the rules bound how many there are. Of several programs one has
// them.
type dropLog struct {
	conn  *netlink.Conn
	ended chan struct{}
}

// From linux/netfilter/nfnetlink_log.h.
const (
	nfulnlMsgPacket = 0
	nfulnlMsgConfig = 1
	nfulaCfgCmd     = 1
	nfulaCfgMode    = 2
	nfulaPayload    = 9
	cfgCmdBind      = 1
	copyPacket      = 2
)

// logDrops starts or ends the log of a slot. It is called with the slot's lock held.
func (m *Manager) logDrops(index int, uid string, on bool) error {
	m.mu.Lock()
	have := m.drops[uid]
	m.mu.Unlock()
	if m.cfg.NoServe || on == (have != nil) {
		return nil
	}
	if !on {
		m.stopDropLog(uid)
		return nil
	}
	var c *netlink.Conn
	err := netns.Inside(m.slotPath(index, "ns"), func() (err error) {
		c, err = bindLog(nflogGroup)
		return err
	})
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EPERM) {
		return nil // another program has it
	}
	if err != nil {
		return fmt.Errorf("log of dropped packets: %w", err)
	}
	d := &dropLog{c, make(chan struct{})}
	m.mu.Lock()
	m.drops[uid] = d
	m.mu.Unlock()
	m.bg.Go(func() {
		defer close(d.ended)
		stop := context.AfterFunc(m.ctx, func() { c.Close() })
		defer stop()
		for {
			msgs, err := c.Receive()
			if err != nil {
				if errors.Is(err, unix.ENOBUFS) {
					continue // some are lost
				}
				return
			}
			for _, msg := range msgs {
				if d, ok := parseDrop(msg.Data); ok {
					m.cfg.Log.Info("a packet was dropped", "vm", uid, "protocol", d.Protocol, "to", d.To)
				}
			}
		}
	})
	return nil
}

func (m *Manager) stopDropLog(uid string) {
	m.mu.Lock()
	d := m.drops[uid]
	delete(m.drops, uid)
	m.mu.Unlock()
	if d != nil {
		d.conn.Close()
		<-d.ended
	}
}

// bindLog asks for the packets of a group, in the thread's namespace.
func bindLog(group uint16) (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	for _, attr := range []netlink.Attribute{
		{Type: nfulaCfgCmd, Data: []byte{cfgCmdBind}},
		{Type: nfulaCfgMode, Data: []byte{0, 0, 0, 96, copyPacket, 0}},
	} {
		body, err := netlink.MarshalAttributes([]netlink.Attribute{attr})
		if err == nil {
			_, err = c.Execute(netlink.Message{
				Header: netlink.Header{Type: unix.NFNL_SUBSYS_ULOG<<8 | nfulnlMsgConfig, Flags: netlink.Request | netlink.Acknowledge},
				Data:   append([]byte{unix.AF_UNSPEC, 0, byte(group >> 8), byte(group)}, body...),
			})
		}
		if err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, c.SetReadDeadline(time.Time{})
}

// parseDrop reads a message of the log: the packet in it is the guest's.
func parseDrop(b []byte) (Drop, bool) {
	if len(b) < 4 {
		return Drop{}, false
	}
	ad, err := netlink.NewAttributeDecoder(b[4:])
	if err != nil {
		return Drop{}, false
	}
	for ad.Next() {
		if ad.Type() == nfulaPayload {
			return parsePacket(ad.Bytes())
		}
	}
	return Drop{}, false
}

// parsePacket reads where a packet wanted to go.
func parsePacket(b []byte) (Drop, bool) {
	var to netip.Addr
	var proto byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		size := int(b[0]&0xf) * 4
		if size < 20 || len(b) < size {
			return Drop{}, false
		}
		to, proto, b = netip.AddrFrom4([4]byte(b[16:20])), b[9], b[size:]
	case len(b) >= 40 && b[0]>>4 == 6:
		to, proto, b = netip.AddrFrom16([16]byte(b[24:40])), b[6], b[40:]
	default:
		return Drop{}, false
	}
	d := Drop{Protocol: fmt.Sprint(proto), To: netip.AddrPortFrom(to, 0)}
	for name, n := range protocols {
		if n[0] == proto && n[1] == proto {
			d.Protocol = name
		}
	}
	if (proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_UDP) && len(b) >= 4 {
		d.To = netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:4]))
	}
	return d, true
}
