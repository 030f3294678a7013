package cli

import (
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

func TestPrintableShowsControlCharactersAsEscapes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain\tline\r\n":          "plain\tline\n",
		"two\r\r\nlines":           "two\nlines",
		"\x1b]0;title\x07":         `\x1b]0;title\x07`,
		"back\rspace":              `back\x0dspace`,
		"half \xc3":                `half \xc3`,
		"über \u202e":              `über \u202e`,
		"c1 \u009b31m":             `c1 \u009b31m`,
		"\x00\x7f":                 `\x00\x7f`,
		"line\u2028and\u2029again": `line\u2028and\u2029again`,
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\r\nb\x1b[31m\xff", 3)
	f.Add("\r\r\r\n\xe2\x80", 1)
	f.Fuzz(func(t *testing.T, s string, cut int) {
		whole := printable(s)
		if !utf8.ValidString(whole) {
			t.Fatalf("%q is no UTF-8", whole)
		}
		for _, r := range whole {
			if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
				t.Fatalf("%q has %U", whole, r)
			}
		}
		if strings.Contains(printableLine(s), "\n") {
			t.Fatalf("%q is more than a line", printableLine(s))
		}
		// The same bytes in pieces of any size give the same text.
		if cut < 1 {
			return
		}
		var b strings.Builder
		w := &printableWriter{w: &b}
		for rest := s; rest != ""; {
			n := min(cut, len(rest))
			if _, err := w.Write([]byte(rest[:n])); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if b.String() != whole {
			t.Fatalf("in pieces of %d: %q, whole: %q", cut, b.String(), whole)
		}
	})
}

func TestParseMiBTakesUnitsAndRefusesTheRest(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int{"512": 512, "512M": 512, "512MiB": 512, "2G": 2048, "2GiB": 2048, "1 GiB": 1024} {
		if got, err := parseMiB(in); err != nil || got != want {
			t.Errorf("parseMiB(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "-1", "1.5G", "1T", "M", "0x10", "99999999999999"} {
		if got, err := parseMiB(in); err == nil {
			t.Errorf("parseMiB(%q) = %d, want an error", in, got)
		}
	}
}

func TestParseDriveAndParseNICReadTheirParts(t *testing.T) {
	t.Parallel()
	d, err := parseDrive("id=data,path=/a,,b.img,ro,cache=Writeback,engine=Async")
	if err != nil || d.ID != "data" || d.Path != "/a,b.img" || d.ReadOnly == nil || !*d.ReadOnly || d.CacheType != "Writeback" || d.IOEngine != "Async" {
		t.Errorf("drive %+v, %v", d, err)
	}
	n, err := parseNIC("id=eth0,tap=tap7,mac=02:00:00:00:00:01,mtu=1400")
	if err != nil || n.ID != "eth0" || n.HostDevName != "tap7" || n.MTU != 1400 {
		t.Errorf("nic %+v, %v", n, err)
	}
	for _, bad := range []string{"", "id=x", "path=/x", "id=x,path=", "id=x,path=/y,ro=1", "id=x,path=/y,colour=red"} {
		if _, err := parseDrive(bad); err == nil {
			t.Errorf("parseDrive(%q) is no error", bad)
		}
	}
	for _, bad := range []string{"", "id=x", "tap=x", "id=x,tap=y,mtu=many", "id=x,tap=y,z=1"} {
		if _, err := parseNIC(bad); err == nil {
			t.Errorf("parseNIC(%q) is no error", bad)
		}
	}
}

func TestTimesAndSizesAreForPeople(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, got := range map[string]string{
		"-":            ago(time.Time{}, now),
		"just now":     ago(now.Add(-time.Millisecond), now),
		"1 minute ago": ago(now.Add(-61*time.Second), now),
		"2 hours ago":  ago(now.Add(-2*time.Hour), now),
		"512 B":        size(512),
		"1.5 KiB":      size(1536),
		"128.0 MiB":    size(128 << 20),
		"2.0 GiB":      size(2 << 30),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
