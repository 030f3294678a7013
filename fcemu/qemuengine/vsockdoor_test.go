//go:build linux

package qemuengine

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A door through which nobody may go yet resets who comes, lives on when its
// name goes, and leaves the name behind when it closes.
func TestDoorOfAVsockThatIsNotThere(t *testing.T) {
	t.Parallel()
	// Longer than a socket's address may be.
	deep := t.TempDir()
	for range 4 {
		deep = filepath.Join(deep, "a-directory-with-a-long-name-of-its-own")
	}
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(deep, "v.sock")
	l, err := listenBeside(path)
	if err != nil {
		t.Fatal(err)
	}
	d := newVsockDoor(l)
	if _, err := listenBeside(path); err != unix.EADDRINUSE { // bare: users see it
		t.Errorf("a second door: %v, want %v", err, unix.EADDRINUSE)
	}
	home, err := os.Open(deep)
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	c, err := net.Dial("unix", handPath(home)+"/v.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("who came got %v, want the end", err)
	}

	for _, there := range []bool{true, false} {
		putBack, err := putAside(path, filepath.Join(deep, "aside"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil { // another's in its place
			t.Fatal(err)
		}
		if err := putBack(); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Lstat(path); there != (err == nil && st.Mode().Type() == os.ModeSocket) {
			t.Errorf("a door that was there: %v; after it was put back: %v, %v", there, st, err)
		}
		if there {
			d.close()
			if err := os.Remove(path); err != nil {
				t.Errorf("the name went with the door: %v", err)
			}
		}
	}
}

// What passes the door passes whole, and so does the end of either direction.
func TestRelayPassesDataAndItsEnd(t *testing.T) {
	t.Parallel()
	pair := func() (near, far *net.UnixConn) {
		a, b, err := socketPair()
		if err != nil {
			t.Fatal(err)
		}
		defer closeAll([]*os.File{a, b})
		var conns [2]*net.UnixConn
		for i, f := range []*os.File{a, b} {
			c, err := net.FileConn(f)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			conns[i] = c.(*net.UnixConn)
		}
		return conns[0], conns[1]
	}
	client, in := pair()
	out, server := pair()
	there, back := make(chan struct{}), make(chan struct{})
	go func() { defer close(there); relay(out, in) }()
	go func() { defer close(back); relay(in, out) }()
	if _, err := io.WriteString(client, "question"); err != nil {
		t.Fatal(err)
	}
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(server); err != nil || string(b) != "question" {
		t.Errorf("the server got %q, %v", b, err)
	}
	<-there
	if _, err := io.WriteString(server, "answer"); err != nil {
		t.Errorf("the answer after the question's end: %v", err)
	}
	server.Close()
	if b, err := io.ReadAll(client); err != nil || string(b) != "answer" {
		t.Errorf("the client got %q, %v", b, err)
	}
	<-back
}
