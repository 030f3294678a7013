package cli

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

func TestALineFilterPassesWhatMatchesAndTellsOfGaps(t *testing.T) {
	t.Parallel()
	const gapLine = "[microvm: 17 bytes of console output were cut off here]\n"
	long := strings.Repeat("x", maxLine) + "end"
	for _, c := range []struct{ in, match, want string }{
		{"a\nb\nab\n", "a", "a\nab\n"},
		{"a\nb", "b", "b"},
		{"a\r\nb\r\n", "^a$", "a\r\n"},
		{"\x1b[31mred\x1b[0m\nplain\n", `^\\x1b\[31mred`, "\x1b[31mred\x1b[0m\n"},
		{"one\n" + gapLine + "two\n", "two", gapLine + "two\n"},
		{"x" + gapLine, "nothing", ""},
		{"\n\na\n", "^$", "\n\n"},
		{long + "\nend\n", "^end", "end\nend\n"},
		{"", "a", ""},
	} {
		for _, step := range []int{1, 7, 1 << 20} {
			var out bytes.Buffer
			f := &lineFilter{w: &out, match: regexp.MustCompile(c.match)}
			for in := []byte(c.in); len(in) > 0; in = in[min(step, len(in)):] {
				if n, err := f.Write(in[:min(step, len(in))]); err != nil || n != min(step, len(in)) {
					t.Fatal(n, err)
				}
			}
			if err := f.Flush(); err != nil {
				t.Fatal(err)
			}
			if out.String() != c.want {
				t.Errorf("%.40q by %q in steps of %d: %.80q, not %.80q", c.in, c.match, step, out.String(), c.want)
			}
		}
	}
}
