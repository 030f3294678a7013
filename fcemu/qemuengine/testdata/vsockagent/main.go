//go:build linux

// Program vsockagent is the guest's part in the vsock tests: "echo PORT"
// answers everybody with what he sends, "dial PORT TEXT" sends to the host.
package main

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	port, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil {
		return err
	}
	s, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if args[0] == "dial" {
		if err := unix.Connect(s, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: uint32(port)}); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		_, err := unix.Write(s, []byte(args[2]))
		return err
	}
	if err := unix.Bind(s, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: uint32(port)}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	if err := unix.Listen(s, 8); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	fmt.Println("listening")
	for {
		c, _, err := unix.Accept(s)
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go echo(c)
	}
}

func echo(c int) {
	defer unix.Close(c)
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(c, buf)
		if n <= 0 || err != nil {
			return
		}
		if _, err := unix.Write(c, buf[:n]); err != nil {
			return
		}
	}
}
