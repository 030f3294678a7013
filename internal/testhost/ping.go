//go:build linux

package testhost

import (
	"net"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"github.com/tangle-network/microvm/internal/netns"
)

// Ping says whether an IPv4 address answers an ICMP echo from a namespace in time.
func Ping(t testing.TB, ns, addr string, wait time.Duration) bool {
	t.Helper()
	var c *icmp.PacketConn
	must(t, netns.Inside(ns, func() (err error) {
		c, err = icmp.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	}))
	defer c.Close()
	to := &net.IPAddr{IP: net.ParseIP(addr)}
	must(t, c.SetDeadline(time.Now().Add(wait)))
	msg, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 4711, Seq: 1, Data: []byte("hello")}}).Marshal(nil)
	must(t, err)
	if _, err := c.WriteTo(msg, to); err != nil {
		t.Logf("ping %s: %v", addr, err)
		return false
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			t.Logf("ping %s: %v", addr, err)
			return false
		}
		m, err := icmp.ParseMessage(1, buf[:n])
		if err == nil && m.Type == ipv4.ICMPTypeEchoReply && from.String() == addr {
			return true
		}
	}
}

// ServeNames answers queries for one name with one IPv4 address, and refuses others.
func ServeNames(t testing.TB, ns, addr, name, is string) {
	t.Helper()
	var u net.PacketConn
	must(t, netns.Inside(ns, func() (err error) {
		u, err = net.ListenPacket("udp", addr)
		return err
	}))
	done := make(chan struct{})
	t.Cleanup(func() { u.Close(); <-done })
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals, m.RCode = true, nil, dnsmessage.RCodeRefused
			if q := m.Questions[0]; q.Name.String() == name+"." {
				m.RCode = dnsmessage.RCodeSuccess
				if q.Type == dnsmessage.TypeA {
					m.Answers = []dnsmessage.Resource{{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60},
						Body:   &dnsmessage.AResource{A: [4]byte(net.ParseIP(is).To4())},
					}}
				}
			}
			if b, err := m.Pack(); err == nil {
				u.WriteTo(b, from)
			}
		}
	}()
}
