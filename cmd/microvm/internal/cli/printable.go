package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bytes of a guest can hold escape sequences that move the cursor, retitle the
// window or make a terminal answer as if its user had typed. Whatever is shown
// as text goes through here.

// printable makes text harmless for a terminal: lines and tabs stay, "\r\n"
// becomes "\n", control characters, bidirectional overrides and bytes that are
// no UTF-8 become visible escapes.
func printable(s string) string {
	var b strings.Builder
	w := &printableWriter{w: &b}
	// A strings.Builder never fails.
	_, _ = io.WriteString(w, s)
	_ = w.Flush()
	return b.String()
}

// printableLine is printable on one line.
func printableLine(s string) string {
	return strings.ReplaceAll(strings.TrimRight(printable(s), "\n"), "\n", "; ")
}

// printableWriter is printable for a stream. Flush writes what is held back:
// the beginning of a character or a carriage return.
type printableWriter struct {
	w    io.Writer
	held []byte
}

func (p *printableWriter) Write(b []byte) (int, error) {
	in := append(p.held, b...)
	p.held = nil
	var out bytes.Buffer
	for len(in) > 0 {
		if in[0] == '\r' && len(in) == 1 || !utf8.FullRune(in) {
			p.held = append(p.held, in...)
			break
		}
		in = in[escape(&out, in):]
	}
	if _, err := p.w.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (p *printableWriter) Flush() error {
	var out bytes.Buffer
	for in := p.held; len(in) > 0; {
		in = in[escape(&out, in):]
	}
	p.held = nil
	_, err := p.w.Write(out.Bytes())
	return err
}

// escape writes the first character of in, and says how many bytes it was.
func escape(out *bytes.Buffer, in []byte) int {
	r, n := utf8.DecodeRune(in)
	switch {
	case r == '\n', r == '\t':
		out.WriteRune(r)
	case r == '\r' && bytes.HasPrefix(in[1:], []byte("\n")):
		// The line feed follows.
	case r == '\r' && bytes.HasPrefix(in[1:], []byte("\r")):
		// Serial drivers write several before a line feed.
	case r == utf8.RuneError && n == 1, r < 0x20, r == 0x7f:
		fmt.Fprintf(out, `\x%02x`, in[0])
	case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
		fmt.Fprintf(out, `\u%04x`, r)
	default:
		out.Write(in[:n])
	}
	return n
}
