package console

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// Tail returns the last lines of a console file, at most maxBytes of them, with
// their line ends. lines < 0 means all that there is. An unfinished last line
// counts as one; a line whose beginning was cut off, by the bound or by
// maxBytes, is left out unless nothing else would remain.
func Tail(path string, lines int, maxBytes int64) ([]byte, error) {
	if maxBytes < 0 {
		return nil, fmt.Errorf("tail %s: maxBytes: %d is negative", path, maxBytes)
	}
	f, err := open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, _, err := tail(f, lines, maxBytes)
	return b, err
}

// tail returns the offset of its first byte too.
func tail(f *os.File, lines int, maxBytes int64) (b []byte, off int64, err error) {
	st, err := stat(f)
	if err != nil {
		return nil, 0, err
	}
	if lines == 0 || maxBytes == 0 {
		return nil, st.Size, nil
	}
	first, err := dataFrom(f, 0)
	if err != nil {
		return nil, 0, err
	}
	start := max(first, st.Size-maxBytes)
	// One byte more, where there is one, tells whether start begins a line.
	from := max(first, start-1)
	b = make([]byte, max(0, st.Size-from))
	n, err := f.ReadAt(b, from)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, fmt.Errorf("tail: %w", err)
	}
	b = b[:n]
	now, err := dataFrom(f, from) // see there: what was punched meanwhile is not data
	if err != nil {
		return nil, 0, err
	}
	if now > from {
		b = b[min(now-from, int64(len(b))):]
		from = now
		start = max(start, now)
	}
	if start > 0 {
		b, from = dropPartialLine(b, from, start)
	}
	if lines > 0 {
		keep := lastLines(b, lines)
		from += int64(len(b) - len(keep))
		b = keep
	}
	return b, from, nil
}

// dropPartialLine returns what begins at the first beginning of a line at or
// behind start; all from start on if there is none.
func dropPartialLine(b []byte, from, start int64) ([]byte, int64) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 && i+1 < len(b) {
		return b[i+1:], from + int64(i) + 1
	}
	skip := min(start-from, int64(len(b)))
	return b[skip:], from + skip
}

func lastLines(b []byte, n int) []byte {
	end := len(b)
	if end > 0 && b[end-1] == '\n' {
		end--
	}
	for ; n > 0; n-- {
		i := bytes.LastIndexByte(b[:end], '\n')
		if i < 0 {
			return b
		}
		end = i
	}
	return b[end+1:]
}
