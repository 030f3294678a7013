//go:build linux

package qemuengine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/fcemu"
)

// agentDisk is a disk whose content is the guest's program.
func agentDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent")
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", path, "./testdata/vsockagent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the guest's program: %v\n%s", err, out)
	}
	return path
}

// talk dials the guest as Firecracker's protocol has it and wants an echo.
func talk(path string, port int, text string) error {
	c, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "CONNECT %d\n", port); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if !strings.HasPrefix(line, "OK ") {
		return fmt.Errorf("answer %q", line)
	}
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(r, got); err != nil {
		return fmt.Errorf("read the echo: %w", err)
	}
	if string(got) != text {
		return fmt.Errorf("echo %q", got)
	}
	return nil
}

func TestVsockWorksBeforeAndAfterASnapshotAndInAClone(t *testing.T) {
	t.Parallel()
	files := guestFiles(t)
	program, err := vsockProgram(files)
	if err != nil {
		t.Skipf("no vhost-device-vsock for this test (Debian package of that name, or scripts/fetch-guest.sh): %v", err)
	}
	g := newGuest(t)
	g.opt.VhostDeviceVsock = program
	cfg := bootConfig(t, files, g.dir)
	agent := agentDisk(t)
	cfg.Drives = append(cfg.Drives, fcemu.Drive{DriveID: "agent", PathOnHost: &agent, IsReadOnly: ptr(true)})
	path := filepath.Join(g.dir, "v.sock")
	cfg.Vsock = &fcemu.Vsock{GuestCID: 3, UDSPath: path}
	g.cfg = cfg
	g.attach("vsock", "")
	if st, err := os.Lstat(path); err != nil || st.Mode().Type() != os.ModeSocket {
		t.Errorf("uds_path is not bound by the PUT: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(g.dir, ".fcemu-*")); err != nil || left != nil {
		t.Errorf("left by the PUT: %q, %v", left, err)
	}
	besiege(t, path)
	g.boot(cfg)
	g.shell("cat /dev/vdb > /tmp/agent; chmod +x /tmp/agent; /tmp/agent echo 52 &", "listening")
	if err := talk(path, 52, "before"); err != nil {
		t.Fatalf("before the snapshot: %v", err)
	}
	if err := talk(path, 53, "nobody"); !errors.Is(err, io.EOF) {
		t.Errorf("to a port without a listener: %v, want %v", err, io.EOF)
	}

	began := time.Now()
	g.mustPause()
	t.Logf("paused in %v", time.Since(began))
	snap := g.snapshot("Full", t.TempDir())
	began = time.Now()
	g.mustResume()
	t.Logf("resumed in %v", time.Since(began))
	if err := talk(path, 52, "after"); err != nil {
		t.Errorf("after the snapshot: %v", err)
	}
	guestCalls(g, path)

	// A clone may not take a socket that is there.
	clone := newGuest(t)
	clone.opt.VhostDeviceVsock = program
	if err := loadClone(clone, snap, path); !errors.Is(err, unix.EADDRINUSE) {
		t.Fatalf("load onto a used uds_path: %v, want %v", err, unix.EADDRINUSE)
	}
	clone.close()
	// With its own socket it finds the guest's listener still there.
	clone = newGuest(t)
	clone.opt.VhostDeviceVsock = program
	own := filepath.Join(clone.dir, "v.sock")
	if err := loadClone(clone, snap, own); err != nil {
		t.Fatal(err)
	}
	besiege(t, own)
	clone.mustResume()
	if err := talk(own, 52, "clone"); err != nil {
		t.Errorf("in the clone: %v", err)
	}
	guestCalls(clone, own)
	if err := talk(path, 52, "original"); err != nil {
		t.Errorf("in the original beside its clone: %v", err)
	}
	clone.mustPause()
	clone.snapshot("Diff", t.TempDir())
	clone.mustResume()
	if err := talk(own, 52, "again"); err != nil {
		t.Errorf("in the clone after its own snapshot: %v", err)
	}
	clone.close()
	if _, err := os.Lstat(own); err != nil {
		t.Errorf("the socket's file is gone at the end, Firecracker leaves it: %v", err)
	}
}

// besiege has somebody connect all the time, until the test ends, whether the
// guest's device is there, comes, or goes: none of it may make the device mute.
func besiege(t *testing.T, path string) {
	over := make(chan struct{})
	var wg sync.WaitGroup
	t.Cleanup(func() { close(over); wg.Wait() })
	wg.Go(func() {
		for {
			if c, err := net.Dial("unix", path); err == nil {
				// Whether it is reset or refused does not matter to him.
				_ = c.SetDeadline(time.Now().Add(5 * time.Millisecond))
				_, _ = fmt.Fprintf(c, "CONNECT %d\n", 53)
				_, _ = c.Read(make([]byte, 1))
				c.Close()
			}
			select {
			case <-over:
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
}

// loadClone loads a snapshot whose vsock is to be at path.
func loadClone(g *guest, snap fcemu.SnapshotLoad, path string) error {
	st, err := fcemu.OpenState(snap.SnapshotPath)
	if err != nil {
		return err
	}
	defer st.Close()
	g.cfg = &st.Config
	g.cfg.Vsock.UDSPath = path
	return g.LoadSnapshot(testContext(g.t), g.cfg, snap, st.Blob)
}

// guestCalls has the guest dial a port of the host, which is a socket beside
// the vsock's.
func guestCalls(g *guest, path string) {
	g.t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + "_1234", Net: "unix"})
	if err != nil {
		g.t.Fatal(err)
	}
	defer l.Close()
	if err := l.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		g.t.Fatal(err)
	}
	g.typeLine("/tmp/agent dial 1234 hello-host")
	c, err := l.Accept()
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello-host" {
		g.t.Errorf("the guest sent %q, %v", b, err)
	}
}
