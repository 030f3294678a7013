package vsock

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// openDir opens the directory of a socket: through it the socket is reached,
// however long the path is (a unix address holds 107 bytes).
func openDir(path string) (dir *os.File, name string, err error) {
	if name, err = fileName(path); err != nil {
		return nil, "", err
	}
	dir, err = os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	return dir, name, err
}

func fileName(path string) (string, error) {
	name := filepath.Base(path)
	if path == "" || name == "." || name == ".." || name == "/" {
		return "", fmt.Errorf("%q is not the path of a socket", path)
	}
	if len(name) > 64 {
		return "", fmt.Errorf("socket %q: the file's name is longer than 64 bytes", path)
	}
	return name, nil
}

func procPath(dir *os.File, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
}

func connect(path string) (*net.UnixConn, error) {
	dir, name, err := openDir(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return connectIn(dir, name)
}

// connectIn never waits: a unix socket accepts at once, or its queue is full,
// which is EAGAIN.
func connectIn(dir *os.File, name string) (*net.UnixConn, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: procPath(dir, name), Net: "unix"})
	if err != nil {
		return nil, plain(err)
	}
	return c, nil
}

// plain takes off what package net puts around an error: the path below /proc.
func plain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
