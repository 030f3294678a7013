//go:build linux

package console

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		content string
		lines   int
		max     int64
		want    string
	}{
		{"", 5, 100, ""},
		{"a\nb\nc\n", 0, 100, ""},
		{"a\nb\nc\n", 1, 100, "c\n"},
		{"a\nb\nc\n", 2, 100, "b\nc\n"},
		{"a\nb\nc\n", 3, 100, "a\nb\nc\n"},
		{"a\nb\nc\n", 9, 100, "a\nb\nc\n"},
		{"a\nb\nc\n", -1, 100, "a\nb\nc\n"},
		{"a\nb\nlogin: ", 1, 100, "login: "},
		{"a\nb\nlogin: ", 2, 100, "b\nlogin: "},
		{"no end", 3, 100, "no end"},
		{"\n\n\n", 2, 100, "\n\n"},
		{"\n", 1, 100, "\n"},
		{"a\r\nb\r\n", 1, 100, "b\r\n"},
		{"abc\ndef\nghi\n", -1, 8, "def\nghi\n"},     // the bound falls on the beginning of a line
		{"abc\ndef\nghi\n", -1, 7, "ghi\n"},          // and within one
		{"abc\ndef\nghi\n", -1, 4, "ghi\n"},          //
		{"abc\ndef\nghi\n", -1, 3, "hi\n"},           // nothing else would remain
		{"abcdefghij", -1, 3, "hij"},                 //
		{"abc\ndef\nghi\n", 2, 5, "ghi\n"},           // both limits
		{"abc\ndef\nghi\n", -1, 0, ""},               //
		{"x\x00y\n\x00\n", 2, 100, "x\x00y\n\x00\n"}, // a guest may print NUL
	} {
		path, vmm := newConsole(t)
		write(t, vmm, []byte(tc.content))
		got, err := Tail(path, tc.lines, tc.max)
		if err != nil || string(got) != tc.want {
			t.Errorf("%q, %d lines, %d bytes: %q, not %q, %v", tc.content, tc.lines, tc.max, got, tc.want, err)
		}
	}
	path, _ := newConsole(t)
	if _, err := Tail(path, 1, -1); err == nil || !strings.Contains(err.Error(), "-1") {
		t.Errorf("negative bound: %v", err)
	}
}

func TestTailAfterTheHeadWasCutBeginsWithAWholeLine(t *testing.T) {
	t.Parallel()
	path, vmm := newConsole(t)
	// Lines that no block ends with.
	var all bytes.Buffer
	for i := 0; all.Len() < 1<<20; i++ {
		fmt.Fprintf(&all, "line %d\n", i)
	}
	write(t, vmm, all.Bytes())
	if _, err := Trim(path, 100_000); err != nil {
		t.Fatal(err)
	}
	got, err := Tail(path, -1, 1<<30)
	if err != nil || len(got) < 99_900 || !bytes.HasPrefix(got, []byte("line ")) || !bytes.HasSuffix(all.Bytes(), got) {
		t.Errorf("%d bytes, %.20q…, %v", len(got), got, err)
	}
	if _, err := Trim(path, 0); err != nil {
		t.Fatal(err)
	}
	write(t, vmm, []byte("and the last\n"))
	if got, err := Tail(path, 1, 1<<30); err != nil || string(got) != "and the last\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// Field case 35: while the head is cut, no NUL and no torn line is seen.
func TestTailDuringAFloodSeesWholeConsecutiveLines(t *testing.T) {
	t.Parallel()
	path, vmm := newConsole(t)
	keep(t, newKeeper(t), path, MinBound)
	stop := make(chan struct{})
	done := make(chan error)
	go func() {
		var err error
		for off := int64(0); err == nil && !isClosed(stop); off += 4 << 10 {
			_, err = vmm.Write(numbered(off, 4<<10))
		}
		done <- err
	}()
	for range 200 {
		b, err := Tail(path, -1, 1<<20)
		if err != nil {
			t.Error(err)
			break
		}
		if len(b) == 0 {
			continue
		}
		var first int64
		if _, err := fmt.Sscanf(string(b[:min(lineLen, len(b))]), "%d\n", &first); err != nil || !bytes.Equal(b, numbered(first*lineLen, len(b))) {
			t.Errorf("%d bytes that begin with %.40q: %v", len(b), b, err)
			break
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The memory that a tail takes does not grow with the file.
func TestTailOfAHugeFileReadsItsEndOnly(t *testing.T) {
	t.Parallel()
	path, vmm := newConsole(t)
	write(t, vmm, []byte("first\n"))
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Skipf("no file of 1 TiB here: %v", err)
	}
	write(t, vmm, []byte("\nlast\n"))
	if b, err := Tail(path, 1, 4096); err != nil || string(b) != "last\n" {
		t.Errorf("%q, %v", b, err)
	}
}
