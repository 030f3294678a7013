package cli

import (
	"bytes"
	"io"
	"regexp"
)

// lineFilter passes on the lines that match as they are, and those that tell of
// a gap. A line longer than maxLine is looked at in pieces. Flush takes what is
// left for a line.
type lineFilter struct {
	w     io.Writer
	match *regexp.Regexp
	line  []byte // without its end
	shown int    // lines that matched
}

// gap is what stands in a followed console for what was cut off unread.
var gap = regexp.MustCompile(`^\[microvm: \d+ bytes of console output were cut off here\]$`)

func (f *lineFilter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		take := min(len(b), maxLine-len(f.line))
		i := bytes.IndexByte(b[:take], '\n')
		if i >= 0 {
			take = i + 1
		}
		f.line = append(f.line, b[:take]...)
		b = b[take:]
		if i >= 0 || len(f.line) >= maxLine {
			if err := f.pass(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

// pass decides on the line.
func (f *lineFilter) pass() error {
	line := f.line
	f.line = f.line[:0]
	// The line feed makes a carriage return before it vanish.
	text := printableLine(string(bytes.TrimSuffix(line, []byte("\n"))) + "\n")
	matches := f.match.MatchString(text)
	if !matches && !gap.MatchString(text) {
		return nil
	}
	if matches {
		f.shown++
	}
	_, err := f.w.Write(line)
	return err
}

// Flush passes a last line that has no end.
func (f *lineFilter) Flush() error {
	if len(f.line) == 0 {
		return nil
	}
	return f.pass()
}
