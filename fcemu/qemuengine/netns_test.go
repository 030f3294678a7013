//go:build linux

package qemuengine

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace of a test's own.
type namespace struct{ fd int }

// newNamespace returns nil and why when this user may not make one.
func newNamespace(t *testing.T) (*namespace, error) {
	n := &namespace{}
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		n.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { unix.Close(n.fd) })
	return n, nil
}

// do runs f inside; a nil namespace is the one that we are in.
func (n *namespace) do(f func() error) error {
	if n == nil {
		return f()
	}
	return onThread(func() error {
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("setns", err)
		}
		return f()
	})
}

// onThread runs f on a thread that ends with it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// address gives an interface an IPv4 address in a /30 and sets it up.
func (n *namespace) address(name string, ip [4]byte) error {
	return n.do(func() error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		if err := setAddress(s, unix.SIOCSIFADDR, name, ip[:]); err != nil {
			return fmt.Errorf("set the address of %s: %w", name, err)
		}
		if err := setAddress(s, unix.SIOCSIFNETMASK, name, []byte{255, 255, 255, 252}); err != nil {
			return fmt.Errorf("set the netmask of %s: %w", name, err)
		}
		r, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
	})
}

func setAddress(socket int, request uint, name string, ip []byte) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := r.SetInet4Addr(ip); err != nil {
		return err
	}
	return unix.IoctlIfreq(socket, request, r)
}
