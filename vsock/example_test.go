package vsock_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"

	"github.com/tangle-network/microvm/vsock"
)

// vmm stands for a VMM whose guest greets on each port.
func vmm(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		request, err := bufio.NewReader(c).ReadString('\n')
		if err == nil {
			fmt.Fprintf(c, "OK 1073741824\nhello from the guest after %q", request)
		}
		c.Close()
	}
}

func ExampleDialer() {
	dir, err := os.MkdirTemp("", "vsock")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "vsock.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	go vmm(l)

	d := vsock.Dialer{Retry: true} // the guest may be booting
	c, err := d.Dial(context.Background(), socket, 52)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	fmt.Println(string(b), err)
	// Output: hello from the guest after "CONNECT 52\n" <nil>
}

func ExampleListen() {
	dir, err := os.MkdirTemp("", "vsock")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "vsock.sock")
	l, err := vsock.Listen(socket, 1024)
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()

	// The VMM does this when its guest connects to port 1024 of CID 2.
	guest, err := net.Dial("unix", socket+"_1024")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(guest, "ready")
	guest.Close()

	c, err := l.Accept()
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	fmt.Println(string(b), err)
	// Output: ready <nil>
}
