package fcapi

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// deepSocket gives a server's socket a path of at least n bytes.
func deepSocket(t *testing.T, n int) string {
	t.Helper()
	f := newFake(t, always(noContent))
	dir := t.TempDir()
	for len(dir) < n {
		dir = filepath.Join(dir, strings.Repeat("d", 100))
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// A server binds deep paths by the same means; a renamed socket file
	// stays bound.
	socket := filepath.Join(dir, "api.sock")
	if err := os.Rename(f.socket, socket); err != nil {
		t.Fatal(err)
	}
	return socket
}

func TestSocketPathsOfAnyLengthAreDialed(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 200, 3000} {
		socket := deepSocket(t, n)
		c := New(socket)
		if err := c.Pause(t.Context()); err != nil {
			t.Errorf("path of %d bytes: %v", len(socket), err)
		}
		c.Close()
	}
}

func TestSocketPathLengthsAroundTheLimitAreDialed(t *testing.T) {
	t.Parallel()
	f := newFake(t, always(noContent))
	dir := filepath.Dir(f.socket)
	for n := maxSocketPath - 1; n <= maxSocketPath+1; n++ {
		socket := filepath.Join(dir, strings.Repeat("s", n-len(dir)-1))
		if err := os.Rename(f.socket, socket); err != nil {
			t.Fatal(err)
		}
		f.socket = socket
		c := New(socket)
		if err := c.Pause(t.Context()); err != nil {
			t.Errorf("path of %d bytes: %v", n, err)
		}
		c.Close()
	}
}

func TestDialErrorsNameThePathAndTheCause(t *testing.T) {
	t.Parallel()
	deep := filepath.Dir(deepSocket(t, 200))
	plain := filepath.Join(deep, "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		path string
		want error
	}{
		"missing":      {"/nonexistent/x", fs.ErrNotExist},
		"deep missing": {filepath.Join(deep, "missing"), fs.ErrNotExist},
		"no socket":    {plain, syscall.ECONNREFUSED},
		"too long":     {"/" + strings.Repeat("x/", 4000), syscall.ENAMETOOLONG},
	}
	for name, tt := range tests {
		c := New(tt.path)
		err := c.Pause(t.Context())
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.path) {
			t.Errorf("%s: %v, want %v naming the path", name, err, tt.want)
		}
		c.Close()
	}
	for _, path := range []string{"", "a\x00b"} {
		if err := New(path).Pause(context.Background()); err == nil || !strings.Contains(err.Error(), "no path of a socket") {
			t.Errorf("path %q: %v", path, err)
		}
	}
}

// A name that begins with @ would be looked for outside the file system.
func TestSocketNamedLikeAnAbstractOneIsDialedAsAFile(t *testing.T) {
	f := newFake(t, always(noContent))
	t.Chdir(filepath.Dir(f.socket))
	if err := os.Rename("api.sock", "@api"); err != nil {
		t.Fatal(err)
	}
	c := New("@api")
	defer c.Close()
	if err := c.Pause(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDeepDialLeaksNoDescriptor(t *testing.T) {
	socket := deepSocket(t, 200)
	count := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	before := count()
	var open []io.Closer
	for range 50 {
		c := New(socket)
		if err := c.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := New(socket + "x").Describe(t.Context()); err == nil {
			t.Fatal("no error")
		}
		open = append(open, c)
	}
	for _, c := range open {
		c.Close()
	}
	// The server's ends close as it sees ours close.
	eventually(t, "no descriptor is left", func() bool { return count() <= before })
}
