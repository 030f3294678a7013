package console

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Sanitize makes bytes of a guest safe to print, in an error message or on a
// terminal: terminal control sequences (ECMA-48: CSI, OSC, DCS and the like) and
// control characters are left out, save newline and tab; a carriage return
// becomes a newline, or nothing before one; invalid UTF-8 becomes U+FFFD;
// characters that turn the direction of writing or can't be seen are left out.
// Of a longer text the last maxBytes bytes are kept, and "…" stands for the rest.
func Sanitize(b []byte, maxBytes int) string {
	if maxBytes <= 0 {
		return ""
	}
	// Most of what is left out is short: a few times the result is enough input,
	// which also bounds the work.
	cut := false
	if (len(b)-4096)/8 > maxBytes {
		b, cut = b[len(b)-(8*maxBytes+4096):], true
		for len(b) > 0 && !utf8.RuneStart(b[0]) {
			b = b[1:]
		}
	}
	var out strings.Builder
	for len(b) > 0 {
		if n := sequence(b); n > 0 {
			b = b[n:]
			continue
		}
		r, n := utf8.DecodeRune(b)
		switch {
		case r == '\r':
			if len(b) == 1 || b[1] != '\n' {
				out.WriteByte('\n')
			}
		case r == '\n' || r == '\t':
			out.WriteRune(r)
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029':
		default:
			out.WriteRune(r) // RuneError for invalid UTF-8
		}
		b = b[n:]
	}
	s := out.String()
	const ellipsis = "…"
	if len(s) > maxBytes {
		cut = true
	}
	if !cut {
		return s
	}
	room := maxBytes - len(ellipsis)
	if room < 0 {
		return ""
	}
	if len(s) > room {
		s = s[len(s)-room:]
		for s != "" && !utf8.RuneStart(s[0]) {
			s = s[1:]
		}
	}
	return ellipsis + s
}

// sequence returns the length of the terminal control sequence that b begins
// with, or 0. One that does not end is taken to be its introducer only, so that
// it can't hide the text behind it.
func sequence(b []byte) int {
	kind, n := introducer(b)
	switch kind {
	case 0:
		return 0
	case '[': // CSI: parameters, intermediates, one final byte
		for i := n; i < len(b) && i < n+256; i++ {
			switch c := b[i]; {
			case c >= 0x40 && c <= 0x7e:
				return i + 1
			case c < 0x20 || c > 0x7e:
				return i
			}
		}
		return n
	case ']', 'P', '^', '_', 'X': // strings, ended by BEL or ST
		const most = 4096
		for i := n; i < len(b) && i < n+most; i++ {
			switch {
			case b[i] == 0x07:
				return i + 1
			case b[i] == 0x1b && i+1 < len(b) && b[i+1] == '\\':
				return i + 2
			case b[i] == 0xc2 && i+1 < len(b) && b[i+1] == 0x9c:
				return i + 2
			case b[i] == '\n' || b[i] == 0x1b:
				return n
			}
		}
		return n
	default: // ESC, intermediates, one final byte
		for i := 1; i < len(b) && i < 8; i++ {
			if c := b[i]; c < 0x20 || c > 0x2f {
				if c >= 0x30 && c <= 0x7e {
					return i + 1
				}
				return i
			}
		}
		return 1
	}
}

// introducer returns the kind of sequence that begins b and the length of its
// introducer: ESC and a byte, or the C1 character (U+0080 to U+009F) for it.
func introducer(b []byte) (kind byte, n int) {
	switch {
	case b[0] == 0x1b && len(b) > 1:
		return b[1], 2
	case b[0] == 0x1b:
		return 0x1b, 1
	case b[0] == 0xc2 && len(b) > 1 && (b[1] == 0x90 || b[1] == 0x98 || b[1] >= 0x9b && b[1] <= 0x9f && b[1] != 0x9c):
		return b[1] - 0x40, 2
	}
	return 0, 0
}
