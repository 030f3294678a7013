package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/internal/netns"
	"github.com/tangle-network/microvm/network"
)

// The world around the host: a namespace behind a link.
const (
	worldLink = "world0"
	gateway   = "203.0.113.1"
	server    = "203.0.113.10"
	sinkPort  = "5001" // takes all that it is sent
	shutPort  = "5002" // ends connections
)

// path is the way of the first VM's packets: from a guest's kernel by the TAP through its slot
// and the host to a server beyond. In place of a guest there is a namespace, and in place
// of the VMM a program that takes frames from one TAP to the other as they are, with the
// offloads that Firecracker has.
type path struct {
	guest    string // the namespace
	files    []io.Closer
	wg       sync.WaitGroup
	received atomic.Int64
}

func newPath(ctx context.Context, dir string, m *managed) (_ *path, err error) {
	p := &path{guest: filepath.Join(dir, "guest")}
	world := filepath.Join(dir, "world")
	if err := makeWorld(world); err != nil {
		return nil, fmt.Errorf("the world around the host: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := p.serve(world); err != nil {
		return nil, err
	}
	if err := m.have(ctx, 1); err != nil {
		return nil, err
	}
	slot, err := m.cold.Find(vmUID(0))
	if err != nil {
		return nil, err
	}
	var inner, outer *os.File
	if err := netns.New(func(ns string) error {
		if inner, err = openTAP("eth0"); err != nil {
			return err
		}
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: slot.Guest.Addr().AsSlice(), Mask: net.CIDRMask(slot.Guest.Bits(), 32)}}
		if err := errors.Join(netlink.LinkSetHardwareAddr(l, slot.MAC), netlink.AddrAdd(l, addr), netlink.LinkSetUp(l)); err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: slot.Gateway.AsSlice()}); err != nil {
			return err
		}
		return netns.Pin(ns, p.guest)
	}); err != nil {
		return nil, fmt.Errorf("a namespace for the guest: %w", err)
	}
	p.files = append(p.files, inner)
	if err := netns.Inside(slot.Namespace, func() (err error) {
		outer, err = openTAP(network.TAP)
		return err
	}); err != nil {
		return nil, fmt.Errorf("the slot's TAP: %w", err)
	}
	p.files = append(p.files, outer)
	p.wg.Go(func() { pump(outer, inner) })
	p.wg.Go(func() { pump(inner, outer) })
	return p, nil
}

func makeWorld(path string) error {
	host, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer host.Close()
	give := func(link, addr string) error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr + "/24")
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l))
	}
	err = netns.New(func(ns string) error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: worldLink, PeerNamespace: netlink.NsFd(int(host.Fd()))}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		if err := give("eth0", server); err != nil {
			return err
		}
		return netns.Pin(ns, path)
	})
	if err != nil {
		return err
	}
	return give(worldLink, gateway)
}

// serve takes bytes on one port of the server, and connections on another.
func (p *path) serve(world string) error {
	var sink, shut net.Listener
	err := netns.Inside(world, func() (err error) {
		if sink, err = net.Listen("tcp4", server+":"+sinkPort); err != nil {
			return err
		}
		shut, err = net.Listen("tcp4", server+":"+shutPort)
		return err
	})
	for _, l := range []net.Listener{sink, shut} {
		if l != nil {
			p.files = append(p.files, l)
		}
	}
	if err != nil {
		return fmt.Errorf("the server: %w", err)
	}
	accept := func(l net.Listener, f func(net.Conn)) {
		p.wg.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				p.wg.Go(func() { f(c) })
			}
		})
	}
	accept(sink, func(c net.Conn) {
		defer c.Close()
		buf := make([]byte, 1<<20)
		for {
			n, err := c.Read(buf)
			p.received.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	accept(shut, func(c net.Conn) { c.Close() })
	return nil
}

// openTAP attaches to a TAP of the thread's namespace as Firecracker does
// (src/vmm/src/devices/virtio/net/tap.rs).
func openTAP(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func pump(from, to *os.File) {
	buf := make([]byte, 1<<17)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

const (
	pathRuns  = 10
	pathTime  = 300 * time.Millisecond
	pathConns = 300
)

// measure sends as fast as it can, and makes as many connections as it can.
func (p *path) measure(ctx context.Context, vms int, s *samples) error {
	for range pathRuns {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.send(vms, s); err != nil {
			return err
		}
		if err := p.connect(vms, s); err != nil {
			return err
		}
	}
	return nil
}

func (p *path) dial(port string) (c net.Conn, err error) {
	err = netns.Inside(p.guest, func() error {
		c, err = net.DialTimeout("tcp4", server+":"+port, 5*time.Second)
		return err
	})
	return c, err
}

func (p *path) send(vms int, s *samples) error {
	c, err := p.dial(sinkPort)
	if err != nil {
		return fmt.Errorf("the guest does not reach the server: %w", err)
	}
	defer c.Close()
	began := time.Now()
	end := began.Add(pathTime)
	var from int64
	buf := make([]byte, 1<<18)
	for warm := true; ; {
		now := time.Now()
		if warm && now.After(began.Add(pathTime/3)) {
			warm, began, end, from = false, now, now.Add(pathTime), p.received.Load()
		}
		if !warm && now.After(end) {
			break
		}
		if _, err := c.Write(buf); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	took := time.Since(began)
	s.add(sample{title("Path", "vms", vms, "what", "throughput"), 1, []value{{float64(p.received.Load()-from) / took.Seconds() / 1e6, "MB/s"}}})
	return nil
}

// connect begins flows, which all rules look at.
func (p *path) connect(vms int, s *samples) error {
	var took time.Duration
	err := netns.Inside(p.guest, func() error {
		began := time.Now()
		for range pathConns {
			c, err := net.DialTimeout("tcp4", server+":"+shutPort, 5*time.Second)
			if err != nil {
				return fmt.Errorf("connect: %w", err)
			}
			_, err = c.Read(make([]byte, 1)) // until the server ends it
			if err := errors.Join(c.Close()); err != nil {
				return err
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("a connection that the server ends: %w", err)
			}
		}
		took = time.Since(began)
		return nil
	})
	if err != nil {
		return err
	}
	s.time(pathConns, took, "Path", "vms", vms, "what", "connection")
	return nil
}

func (p *path) close() error {
	var errs []error
	for _, f := range p.files {
		errs = append(errs, f.Close())
	}
	errs = append(errs, netns.Unpin(p.guest))
	return errors.Join(errs...)
}
