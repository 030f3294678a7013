package kernel

import (
	"bytes"
	"errors"
	"strconv"
	"testing"
)

// readCpio is a reader of newc that is strict about padding.
func readCpio(t *testing.T, b []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for {
		if len(b) < 110 || string(b[:6]) != "070701" {
			t.Fatalf("no header with %d bytes left", len(b))
		}
		num := func(i int) int {
			n, err := strconv.ParseUint(string(b[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
		size, nameSize := num(6), num(11)
		name := string(b[110 : 110+nameSize-1])
		b = b[(110+nameSize+3)/4*4:]
		if name == "TRAILER!!!" {
			if len(b) != 0 {
				t.Errorf("%d bytes after the end", len(b))
			}
			return files
		}
		files[name] = bytes.Clone(b[:size])
		b = b[(size+3)/4*4:]
	}
}

func TestCpioPadsEveryLengthToFour(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := &cpioWriter{w: &out}
	want := map[string][]byte{}
	for i := range 9 {
		name, data := "names"[:i%5+1]+strconv.Itoa(i), bytes.Repeat([]byte{'x'}, i)
		want[name] = data
		c.entry(name, typeFile|0o644, 0, 0, data)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	got := readCpio(t, out.Bytes())
	for name, data := range want {
		if !bytes.Equal(got[name], data) {
			t.Errorf("%s: %q, want %q", name, got[name], data)
		}
	}
}

type fullDisk struct{ left int }

var errFull = errors.New("disk full")

func (f *fullDisk) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestCpioKeepsTheFirstWriteError(t *testing.T) {
	t.Parallel()
	c := &cpioWriter{w: &fullDisk{left: 150}}
	c.entry("a", typeFile, 0, 0, make([]byte, 100))
	c.entry("b", typeFile, 0, 0, nil)
	if err := c.close(); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
}
