package nullengine_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm/fcemu"
	"github.com/tangle-network/microvm/fcemu/nullengine"
	"golang.org/x/sys/unix"
)

// withVsock starts a guest with a vsock at v.sock.
func withVsock(t *testing.T, args string, h nullengine.Handler) *rig {
	t.Helper()
	r := newRig(t, args, nullengine.Options{Vsock: h})
	r.cfg.Vsock = &fcemu.Vsock{GuestCID: 3, UDSPath: r.path("v.sock")}
	r.attach("vsock", "")
	r.start()
	return r
}

type stream struct {
	net.Conn
	r *bufio.Reader
}

func (r *rig) connect(command string) stream {
	r.t.Helper()
	c, err := net.Dial("unix", r.path("v.sock"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	r.ok(c.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(c, command)
	r.ok(err)
	return stream{c, bufio.NewReader(c)}
}

func (s stream) expect(t *testing.T, want string) {
	t.Helper()
	if got, err := s.r.ReadString('\n'); err != nil || got != want {
		t.Fatalf("%q, %v, want %q", got, err, want)
	}
}

func (s stream) silent(t *testing.T) {
	t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(30 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if b, err := s.r.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("byte %q, %v, want silence", b, err)
	}
	if err := s.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
}

func TestAConnectIsAnsweredWithTheHostsPortAndEchoed(t *testing.T) {
	t.Parallel()
	r := withVsock(t, "", nil)
	for i, command := range []string{"CONNECT 52\n", "connect 4294967295\n", "CONNECT 52 extra\n"} {
		s := r.connect(command)
		s.expect(t, "OK "+[]string{"1073741824", "1073741825", "1073741826"}[i]+"\n")
		_, err := io.WriteString(s, "hello\n")
		r.ok(err)
		s.expect(t, "hello\n")
	}
	for _, command := range []string{"CONNECT 4294967296\n", "CONNECT x1234\n", "HELLO 12345\n", "CONNECT 1" + strings.Repeat("1", 40) + "\n"} {
		if b, err := io.ReadAll(r.connect(command)); len(b) > 0 || err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%q was answered with %q, %v", command, b, err)
		}
	}
}

func TestConnectionsOfAPausedGuestWaitAndTheirBytesAreKeptBack(t *testing.T) {
	t.Parallel()
	r := withVsock(t, "", nil)
	old := r.connect("CONNECT 52\n")
	old.expect(t, "OK 1073741824\n")
	r.ok(r.Pause(t.Context()))
	_, err := io.WriteString(old, "during the pause\n")
	r.ok(err)
	fresh := r.connect("CONNECT 52\n")
	old.silent(t)
	fresh.silent(t)
	r.ok(r.Resume(t.Context()))
	old.expect(t, "during the pause\n")
	fresh.expect(t, "OK 1073741825\n")
}

func TestASnapshotEndsTheGuestsSideAndLeavesTheHostsMute(t *testing.T) {
	t.Parallel()
	ends := make(chan error, 1)
	r := withVsock(t, "", func(c net.Conn, port uint32) {
		_, err := io.Copy(c, c)
		ends <- err
	})
	s := r.connect("CONNECT 52\n")
	s.expect(t, "OK 1073741824\n")
	r.ok(r.Pause(t.Context()))
	r.snapshot("Full", "s")
	select {
	case err := <-ends:
		if !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the guest's side ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the guest's side does not end")
	}
	r.ok(r.Resume(t.Context()))
	_, err := io.WriteString(s, "anyone there?\n")
	r.ok(err)
	s.silent(t)
	r.connect("CONNECT 52\n").expect(t, "OK 1073741825\n")
}

func TestAHandlerKnowsItsPortAndItsPeer(t *testing.T) {
	t.Parallel()
	r := withVsock(t, "", func(c net.Conn, port uint32) {
		// The test sees what is written.
		_, _ = io.WriteString(c, c.RemoteAddr().String()+" "+c.LocalAddr().Network()+"\n")
	})
	s := r.connect("CONNECT 77\n")
	s.expect(t, "OK 1073741824\n")
	s.expect(t, "2:1073741824 vsock\n")
	if _, err := s.r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the handler: %v", err)
	}
}

func TestVsockCommandsDelayRefuseAndSilenceConnections(t *testing.T) {
	t.Parallel()
	late := withVsock(t, "fcemu.vsock_after=50ms", nil)
	s := late.connect("CONNECT 52\n")
	s.expect(t, "OK 1073741824\n")

	deaf := withVsock(t, "fcemu.listen_after=1h", nil)
	if b, err := io.ReadAll(deaf.connect("CONNECT 52\n")); len(b) > 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}

	mute := withVsock(t, "fcemu.vsock_mute=1", nil)
	mute.connect("CONNECT 52\n").silent(t)
	mute.connect("CONNECT 52\n").expect(t, "OK 1073741825\n")
}

func TestTheGuestCallsTheHost(t *testing.T) {
	t.Parallel()
	r := newRig(t, "fcemu.vsock_dial=99", nullengine.Options{})
	l, err := net.Listen("unix", r.path("v.sock_99"))
	r.ok(err)
	defer l.Close()
	r.cfg.Vsock = &fcemu.Vsock{GuestCID: 3, UDSPath: r.path("v.sock")}
	r.attach("vsock", "")
	r.start()
	c, err := l.Accept()
	r.ok(err)
	defer c.Close()
	stream{c, bufio.NewReader(c)}.expect(t, "null guest calls port 99\n")
	_, err = io.WriteString(c, "hi")
	r.ok(err)
	wait(t, func() bool { b, _ := os.ReadFile(r.out); return strings.Contains(string(b), `of the host: "hi"`) })
}

func TestAPathInUseIsRefusedAndTheSocketsNameStays(t *testing.T) {
	t.Parallel()
	r := withVsock(t, "", nil)
	other := newRig(t, "", nullengine.Options{})
	other.cfg.Vsock = r.cfg.Vsock
	if err := other.Attach(t.Context(), other.cfg, "vsock", ""); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("error %v", err)
	}
	r.ok(r.Engine.Close())
	r.open(nullengine.Options{})
	if _, err := os.Lstat(r.path("v.sock")); err != nil {
		t.Errorf("the socket's name: %v", err)
	}
}
