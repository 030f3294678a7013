package network

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
)

// hostServers are the host's name servers: those of loopback too, for it is the host
// that asks them.
func hostServers(path string) ([]netip.AddrPort, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []netip.AddrPort
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil && len(out) < microvm.MaxNameServers {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s names no name server", path)
	}
	return out, nil
}

// askServers asks one after the other until one answers.
func (m *Manager) askServers(ctx context.Context, q query, servers []netip.AddrPort, keep func(netip.Addr) bool) (answer, error) {
	var errs []error
	for i, s := range servers {
		one, cancel := context.WithTimeout(ctx, askTimeout/time.Duration(len(servers)-i+1))
		a, err := m.ask(one, "udp", q, s, keep)
		if err == nil && a.cut {
			a, err = m.ask(one, "tcp", q, s, keep)
		}
		cancel()
		if err == nil {
			return a, nil
		}
		errs = append(errs, fmt.Errorf("%v: %w", s, err))
	}
	return answer{}, errors.Join(errs...)
}

func (m *Manager) ask(ctx context.Context, proto string, q query, server netip.AddrPort, keep func(netip.Addr) bool) (answer, error) {
	id := uint16(rand.Uint32())
	msg, err := q.upstream(id)
	if err != nil {
		return answer{}, err
	}
	var c net.Conn
	err = netns.Inside(m.hostPath(), func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, proto, server.String())
		return err
	})
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return answer{}, err
		}
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if proto == "tcp" {
		if _, err := c.Write(append(be16(uint16(len(msg))), msg...)); err != nil {
			return answer{}, err
		}
		b, err := readFramed(c)
		if err != nil {
			return answer{}, err
		}
		return q.parseAnswer(b, id, keep)
	}
	if _, err := c.Write(msg); err != nil {
		return answer{}, err
	}
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return answer{}, err
		}
		// What is no answer to this question may be anybody's.
		if a, err := q.parseAnswer(buf[:n], id, keep); err == nil {
			return a, nil
		}
	}
}
