package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// terminal says which of our outputs are one, and whether to use colours.
type terminal struct {
	out, err bool
	colour   bool // on stdout
}

func newTerminal(out, err *os.File) terminal {
	t := terminal{out: isTerminal(out), err: isTerminal(err)}
	t.colour = t.out && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return t
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// The colours that we use, as SGR parameters.
const (
	green  = "32"
	yellow = "33"
	red    = "31"
	bold   = "1"
)

func (t terminal) paint(sgr, s string) string {
	if !t.colour || sgr == "" {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

// cell is a field of a table.
type cell struct{ text, sgr string }

func plain(texts ...string) []cell {
	cells := make([]cell, len(texts))
	for i, t := range texts {
		cells[i] = cell{text: printableLine(t)}
	}
	return cells
}

// table writes rows in columns. Widths are counted without colours.
func (t terminal) table(w io.Writer, rows [][]cell) error {
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(c.text)))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, c := range row {
			b.WriteString(t.paint(c.sgr, c.text))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-len([]rune(c.text))+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// progressAfter is how long a step may take before it is shown.
const progressAfter = 300 * time.Millisecond

// progress shows what is going on, with the time it takes, on a terminal. The
// returned function erases the line; it may be called again.
func (a *app) progress(format string, args ...any) (done func()) {
	if !a.tty.err || a.flags.json {
		return func() {}
	}
	what := printableLine(fmt.Sprintf(format, args...))
	quit, ended := make(chan struct{}), make(chan struct{})
	began := time.Now()
	go func() {
		defer close(ended)
		tick := time.NewTicker(progressAfter)
		defer tick.Stop()
		shown := false
		for {
			select {
			case <-tick.C:
				a.errMu.Lock()
				fmt.Fprintf(a.err, "\r\x1b[K%s … %.1f s", what, time.Since(began).Seconds())
				a.errMu.Unlock()
				shown = true
			case <-quit:
				if shown {
					a.errMu.Lock()
					fmt.Fprint(a.err, "\r\x1b[K")
					a.errMu.Unlock()
				}
				return
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(quit)
		<-ended
	})
}

// ago is a time in relation to now, for people.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t)
	switch {
	case d < 0:
		return t.Local().Format(time.DateTime)
	case d < time.Second:
		return "just now"
	}
	return span(d) + " ago"
}

// span is a length of time in its largest unit, for people.
func span(d time.Duration) string {
	for _, u := range []struct {
		size time.Duration
		name string
	}{
		{365 * 24 * time.Hour, "year"}, {30 * 24 * time.Hour, "month"}, {7 * 24 * time.Hour, "week"}, {24 * time.Hour, "day"},
		{time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"},
	} {
		if n := int64(d / u.size); n == 1 {
			return "1 " + u.name
		} else if n > 1 {
			return fmt.Sprintf("%d %ss", n, u.name)
		}
	}
	return d.Round(time.Microsecond).String()
}

// size is a number of bytes for people.
func size(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
