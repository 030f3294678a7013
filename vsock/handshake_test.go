package vsock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// pipe answers a fixed text, whatever is asked.
type pipe struct {
	asked bytes.Buffer
	io.Reader
}

func (p *pipe) Write(b []byte) (int, error) { return p.asked.Write(b) }

func FuzzHandshake(f *testing.F) {
	for _, s := range []string{"OK 1\n", "OK 4294967295\nrest", "OK", "", "OK 01\n", "ERR\n", strings.Repeat("9", 100)} {
		f.Add([]byte(s), uint32(52))
	}
	f.Fuzz(func(t *testing.T, answer []byte, port uint32) {
		all := bytes.NewReader(answer)
		p := &pipe{Reader: iotest.OneByteReader(all)}
		got, err := handshake(p, port)
		if want := fmt.Sprintf("CONNECT %d\n", port); p.asked.String() != want {
			t.Errorf("asked %q", p.asked.String())
		}
		line, rest, ended := bytes.Cut(answer, []byte("\n"))
		if err == nil {
			if want := fmt.Sprintf("OK %d", got); !ended || string(line) != want {
				t.Errorf("%q became port %d", answer, got)
			}
			if all.Len() != len(rest) {
				t.Errorf("%q: %d bytes are left to the caller, not %d", answer, all.Len(), len(rest))
			}
			return
		}
		if got != 0 || len(err.Error()) > 300 || !errors.Is(err, ErrHandshake) && !errors.Is(err, ErrRefused) {
			t.Errorf("%q: %d, %v", answer, got, err)
		}
		if errors.Is(err, ErrRefused) != (len(answer) == 0) {
			t.Errorf("%q: %v", answer, err)
		}
		if read := len(answer) - all.Len(); read > maxReply {
			t.Errorf("%d bytes were read", read)
		}
	})
}
