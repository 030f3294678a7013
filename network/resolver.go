package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/internal/netns"
)

// resolver answers one VM's name queries, on the gateway's address in the VM's
// namespace. Several programs may each have one there: the kernel shares the queries
// out among those that live.
type resolver struct {
	m     *Manager
	uid   string
	index int

	udp  *net.UDPConn
	tcp  *net.TCPListener
	busy chan struct{}  // bounds the queries in flight
	done sync.WaitGroup // of what run has begun

	ended chan struct{} // when run has returned

	ctx    context.Context
	cancel context.CancelFunc

	policy atomic.Pointer[namePolicy]
	warned atomic.Int64 // when, in nanoseconds of Unix time
}

// namePolicy is a policy as it was when its file was read.
type namePolicy struct {
	of      time.Time
	egress  microvm.Egress
	policy  compiled
	servers []netip.AddrPort
}

const (
	queriesAtOnce = 32
	askTimeout    = 3 * time.Second
)

// resolve starts the resolver of a slot, if there is none yet and the Manager is to
// have them. It is called with the slot's lock held.
func (m *Manager) resolve(index int, uid string) error {
	if m.cfg.NoServe {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.resolvers[uid]; r != nil {
		if r.index == index && r.ctx.Err() == nil {
			return nil
		}
		r.cancel()
	}
	r := &resolver{m: m, uid: uid, index: index, busy: make(chan struct{}, queriesAtOnce), ended: make(chan struct{})}
	if err := r.listen(); err != nil {
		return fmt.Errorf("name resolver: %w", err)
	}
	r.ctx, r.cancel = context.WithCancel(m.ctx)
	m.resolvers[uid] = r
	m.bg.Go(r.run)
	return nil
}

// stopResolver ends a VM's resolver and waits for it: its sockets would keep the
// namespace.
func (m *Manager) stopResolver(uid string) {
	m.mu.Lock()
	r := m.resolvers[uid]
	delete(m.resolvers, uid)
	m.mu.Unlock()
	if r != nil {
		r.cancel()
		<-r.ended
	}
}

// stopServing ends what would keep a VM's namespace.
func (m *Manager) stopServing(uid string) {
	m.stopResolver(uid)
	m.stopDropLog(uid)
}

// listen makes the sockets with system calls. net.Listen would look, once for the whole
// program, at what the network of its thread can do, and a namespace without IPv6 would
// end it for the program.
func (r *resolver) listen() error {
	at := &unix.SockaddrInet4{Port: 53, Addr: r.m.cfg.plan(r.index).v4.gateway.As4()}
	var udp, tcp *os.File
	err := netns.Inside(r.m.slotPath(r.index, "ns"), func() (err error) {
		if udp, err = bound(unix.SOCK_DGRAM, at); err != nil {
			return err
		}
		tcp, err = bound(unix.SOCK_STREAM, at)
		return err
	})
	defer udp.Close() // nil is no error here
	defer tcp.Close()
	if err != nil {
		return err
	}
	u, err := net.FilePacketConn(udp)
	if err != nil {
		return err
	}
	t, err := net.FileListener(tcp)
	if err != nil {
		u.Close()
		return err
	}
	r.udp, r.tcp = u.(*net.UDPConn), t.(*net.TCPListener)
	return nil
}

// bound is a socket of the thread's namespace, which listens if it can. Another
// program's may be there already.
func bound(kind int, at *unix.SockaddrInet4) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "resolver")
	err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	if err == nil {
		err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	}
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, at))
	}
	if err == nil && kind == unix.SOCK_STREAM {
		err = os.NewSyscallError("listen", unix.Listen(fd, 128))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (r *resolver) run() {
	defer close(r.ended)
	stop := context.AfterFunc(r.ctx, func() {
		r.udp.Close()
		r.tcp.Close()
	})
	defer stop()
	r.done.Go(r.serveTCP)
	buf := make([]byte, 4096)
	for {
		n, from, err := r.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		msg := slices.Clone(buf[:n])
		r.inFlight(func() {
			if out := r.answer(msg, maxDNSMessage); out != nil {
				// The guest may be gone, or never have asked.
				_, _ = r.udp.WriteToUDPAddrPort(out, from)
			}
		})
	}
	r.done.Wait()
}

// inFlight runs f, unless too many are running: whoever asked asks again.
func (r *resolver) inFlight(f func()) bool {
	select {
	case r.busy <- struct{}{}:
	default:
		return false
	}
	r.done.Go(func() {
		defer func() { <-r.busy }()
		f()
	})
	return true
}

func (r *resolver) serveTCP() {
	for {
		c, err := r.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-r.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond): // no descriptors: accept fails at once again
			}
			continue
		}
		if !r.inFlight(func() {
			defer c.Close()
			r.serveConn(c)
		}) {
			c.Close()
		}
	}
}

// serveConn answers the questions of one connection: two bytes of length before each
// message (RFC 1035, 4.2.2).
func (r *resolver) serveConn(c *net.TCPConn) {
	stop := context.AfterFunc(r.ctx, func() { c.Close() })
	defer stop()
	for {
		if err := c.SetDeadline(time.Now().Add(2 * askTimeout)); err != nil {
			return
		}
		msg, err := readFramed(c)
		if err != nil {
			return
		}
		out := r.answer(msg, 65535)
		if out == nil {
			return
		}
		if _, err := c.Write(append(be16(uint16(len(out))), out...)); err != nil {
			return
		}
	}
}

func readFramed(c io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	msg := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(c, msg)
	return msg, err
}

// answer is the message for a guest's message, of at most size bytes; nil for none.
func (r *resolver) answer(msg []byte, size int) []byte {
	q, code, err := parseQuery(msg)
	if err != nil {
		return nil
	}
	var rrs []dnsmessage.Resource
	if code == dnsmessage.RCodeSuccess {
		code, rrs = r.lookUp(q)
	}
	out, err := q.reply(code, rrs)
	if err == nil && len(out) > size {
		out, err = q.truncated()
	}
	if err != nil {
		r.warn("a name query can't be answered", "err", err)
		return nil
	}
	return out
}

func (r *resolver) lookUp(q query) (dnsmessage.RCode, []dnsmessage.Resource) {
	p, err := r.current()
	if err != nil {
		r.warn("the policy of a VM can't be read: its names do not resolve", "err", err)
		return dnsmessage.RCodeServerFailure, nil
	}
	name := q.name()
	if !p.mayResolve(name) {
		return dnsmessage.RCodeRefused, nil
	}
	switch q.question.Type {
	case dnsmessage.TypeA:
	case dnsmessage.TypeAAAA:
		if !r.m.cfg.IPv6 {
			return dnsmessage.RCodeSuccess, nil
		}
	default:
		return dnsmessage.RCodeSuccess, nil // there is nothing else that could be opened
	}
	ctx, cancel := context.WithTimeout(r.ctx, askTimeout)
	defer cancel()
	a, err := r.m.askServers(ctx, q, p.servers, func(a netip.Addr) bool { return r.m.mayOpen(p.policy, a) })
	if err != nil {
		r.warn("a name does not resolve", "name", name, "err", err)
		return dnsmessage.RCodeServerFailure, nil
	}
	if len(a.addrs) > 0 && len(p.policy.domains) > 0 {
		// Before the guest knows them.
		err := r.m.insideNFT(r.index, func(c *nftables.Conn) error {
			return openResolved(c, func() (compiled, error) { return r.stillOpens(name, a.addrs) }, name, a.addrs, max(a.ttl, minOpen))
		})
		if err != nil {
			r.warn("a resolved name can't be opened", "name", name, "err", err)
			return dnsmessage.RCodeServerFailure, nil
		}
	}
	return a.code, a.rrs
}

// stillOpens is the policy of now, which may be another than the one that the name was
// looked up with.
func (r *resolver) stillOpens(name string, addrs []netip.Addr) (compiled, error) {
	r.policy.Store(nil)
	p, err := r.current()
	if err != nil {
		return compiled{}, err
	}
	for _, a := range addrs {
		if !p.mayResolve(name) || !r.m.mayOpen(p.policy, a) {
			return compiled{}, errors.New("the policy was replaced meanwhile")
		}
	}
	return p.policy, nil
}

// warn tells of what a guest can bring about as often as it likes, once a second.
func (r *resolver) warn(msg string, args ...any) {
	now := time.Now().UnixNano()
	if last := r.warned.Load(); now-last > int64(time.Second) && r.warned.CompareAndSwap(last, now) {
		r.m.cfg.Log.Warn(msg, append([]any{"vm", r.uid}, args...)...)
	}
}

// mayResolve: names that a rule has; without such rules, all names for whom is not
// closed by default.
func (p *namePolicy) mayResolve(name string) bool {
	if len(p.policy.domains) == 0 {
		return p.egress.Default == microvm.EgressAllow
	}
	return slices.ContainsFunc(p.policy.domains, func(s shape) bool { return s.names(name) })
}

// current is the VM's policy, which another program may have replaced.
func (r *resolver) current() (*namePolicy, error) {
	st, err := os.Stat(r.m.slotPath(r.index, "owner"))
	if err != nil {
		return nil, err
	}
	if p := r.policy.Load(); p != nil && p.of.Equal(st.ModTime()) {
		return p, nil
	}
	o, err := r.m.readOwner(r.index)
	if err != nil {
		return nil, err
	}
	if o == nil || o.UID != r.uid {
		return nil, errors.New("the slot is another VM's")
	}
	p := &namePolicy{of: st.ModTime(), egress: o.Options.Egress}
	if p.policy, err = r.m.compile(o.Options); err != nil {
		return nil, err
	}
	for _, a := range p.egress.DNS {
		p.servers = append(p.servers, netip.AddrPortFrom(a, 53))
	}
	if len(p.servers) == 0 {
		if p.servers, err = hostServers(r.m.cfg.ResolvConf); err != nil {
			return nil, err
		}
	}
	r.policy.Store(p)
	return p, nil
}

// mayOpen keeps answers from leading where no rule could: to what is closed unless it
// is named exactly, and to the host.
func (m *Manager) mayOpen(p compiled, a netip.Addr) bool {
	at := box{addr: [2]netip.Addr{a, a}, proto: [2]uint8{0, 255}, port: [2]uint16{0, 65535}}
	for _, s := range p.steps {
		boxes := s.v4
		if a.Is6() {
			boxes = s.v6
		}
		if s.name == "closed" && slices.ContainsFunc(boxes, at.overlaps) {
			return false
		}
	}
	here, err := m.onHost([]netip.Addr{a})
	return err == nil && len(here) == 0
}
