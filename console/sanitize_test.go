package console

import (
	"math"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestSanitizeKeepsTextAndDropsWhatCommandsATerminal(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ in, want string }{
		{"", ""},
		{"plain text\n\twith tab\n", "plain text\n\twith tab\n"},
		{"grüße 世界 🙂", "grüße 世界 🙂"},
		{"line\r\nnext\rover\r", "line\nnext\nover\n"},
		{"\x1b[31mred\x1b[0m", "red"},
		{"\x1b[38;5;196;48:2::1:2:3mx", "x"},
		{"\x1b[?1049h\x1b[2J\x1b[H\x1b[6nx", "x"},                                // another screen, clear, home, report the cursor
		{"\x1b]0;new title\x07x\x1b]52;c;ZXZpbA==\x1b\\y", "xy"},                 // title, clipboard
		{"\x1b]8;;http://evil/\x1b\\click\x1b]8;;\x1b\\", "click"},               // link
		{"\x1bP+q544e\x1b\\x\x1b_Gf=100\x1b\\y\x1b^p\x1b\\z\x1bXs\x1b\\", "xyz"}, // DCS, APC, PM, SOS
		{"\x1bcx\x1b(0y\x1b#8z\x1b=\x1b>\x1b7\x1b8", "xyz"},                      // reset, character sets, alignment
		{"\u009b31mx\u009d0;t\u009cy\u0090q\u009cz", "xyz"},                      // the same as C1 characters
		{"\x9b31mx", "\ufffd31mx"},                                               // an 8-bit CSI is not UTF-8
		{"\x1b]0;without end\nthe next line", "0;without end\nthe next line"},
		{"\x1b", ""}, {"a\x1b", "a"}, {"a\x1b[", "a"}, {"a\x1b[31", "a31"}, {"\x1b\x1b[31mx", "x"},
		{"\x00\x01\x07\x08\x0b\x0c\x0e\x7f\u0085x", "x"},
		{"a\u202eb\u2066c\u200bd\ufeffe\u2028f", "abcdef"}, // turns writing round, invisible
		{"\xff\xfea\xc3", "\ufffd\ufffda\ufffd"},
	} {
		if got := Sanitize([]byte(tc.in), 1000); got != tc.want {
			t.Errorf("%q: %q, not %q", tc.in, got, tc.want)
		}
	}
}

func TestSanitizeKeepsTheEndOfALongText(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 10_000) + "end"
	for _, tc := range []struct {
		in   string
		max  int
		want string
	}{
		{"abcdef", 6, "abcdef"},
		{"abcdef", 5, "…ef"},
		{"abcdef", 3, "…"},
		{"abcdef", 2, ""},
		{"abcdef", 0, ""},
		{"abcdef", -1, ""},
		{"abcdef", math.MinInt, ""},
		{"abcdef", math.MaxInt, "abcdef"},
		{long, math.MaxInt, long},
		{"äöü", 5, "…ü"},
		{"äöü", 4, "…"}, // never half a character
		{long, 10, "…56789"[:3] + "6789end"},
		{strings.Repeat("\x80", 100_000), 10, ""},
	} {
		got := Sanitize([]byte(tc.in), tc.max)
		if tc.in[0] == 0x80 {
			if len(got) > tc.max {
				t.Errorf("%d bytes", len(got))
			}
			continue
		}
		if got != tc.want {
			t.Errorf("%.20q, %d: %q, not %q", tc.in, tc.max, got, tc.want)
		}
	}
}

func FuzzSanitize(f *testing.F) {
	for _, s := range []string{"text\n", "\x1b[31mred\x1b[0m", "\x1b]0;t\x07", "\u009b1m", "\x1bP\x1b\\", "a\u202eb", "\xff", "\x1b[\x1b[\x1b["} {
		f.Add([]byte(s), 100)
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		s := Sanitize(b, n)
		if len(s) > max(n, 0) || !utf8.ValidString(s) {
			t.Errorf("%q of at most %d bytes became %q", b, n, s)
		}
		for _, r := range s {
			if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r)) {
				t.Errorf("%q became %q, which has %U", b, s, r)
			}
		}
		if again := Sanitize([]byte(s), max(n, len(s))); again != s {
			t.Errorf("%q became %q, and that became %q", b, s, again)
		}
	})
}
