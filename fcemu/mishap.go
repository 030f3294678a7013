package fcemu

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tangle-network/microvm/fcapi"
)

// mishap is a fault on demand: what befalls the requests to an endpoint.
type mishap struct {
	text   string // as it was ordered
	kind   string
	delay  time.Duration
	status int
	when   string // before, mid, after
	// method is empty for all; path has at most one *, for any text.
	method, path string
	nth          int // 0: each
	seen         int
}

// Longest and largest of what can be ordered.
const (
	maxDelay = time.Hour
	maxNth   = 1_000_000
)

// mishapKinds are the kinds with the values that they take; the first is the
// default.
var mishapKinds = []struct {
	kind   string
	values []string
}{
	{"delay", []string{"1s", "a time such as 250ms, above 0 and up to 1h"}},
	{"die", []string{"before", "mid", "after"}},
	{"drop", []string{"before", "after"}},
	{"half-reply", nil},
	{"hang", nil},
	{"status", []string{"500", "a status from 400 to 599"}},
	{"swallow", nil},
}

// parseMishaps understands KIND[=VALUE]:[METHOD ]PATH[:N], several of them with
// commas in between; nothing is none.
func parseMishaps(text string) ([]*mishap, error) {
	if text == "" {
		return nil, nil
	}
	var all []*mishap
	parts := strings.Split(text, ",")
	for i, part := range parts {
		m, err := parseMishap(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("fault %d of %d, %.80q: %w", i+1, len(parts), part, err)
		}
		all = append(all, m)
	}
	return all, nil
}

func parseMishap(text string) (*mishap, error) {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 {
		return nil, errors.New("want KIND[=VALUE]:[METHOD ]PATH[:N], such as delay=2s:PUT /actions:1")
	}
	m := &mishap{text: text}
	if err := m.parseKind(parts[0]); err != nil {
		return nil, err
	}
	if err := m.parseEndpoint(parts[1]); err != nil {
		return nil, err
	}
	if len(parts) == 3 {
		n, err := strconv.Atoi(parts[2])
		if err != nil || n < 1 || n > maxNth {
			return nil, fmt.Errorf("number %.40q: want 1, for the first such request, to %d", parts[2], maxNth)
		}
		m.nth = n
	}
	return m, nil
}

func (m *mishap) parseKind(text string) error {
	kind, value, given := strings.Cut(text, "=")
	var names []string
	for _, k := range mishapKinds {
		names = append(names, k.kind)
		if k.kind != kind {
			continue
		}
		m.kind = kind
		if k.values == nil && given {
			return fmt.Errorf("value %.40q: %s takes none", value, kind)
		}
		if k.values != nil && !given {
			value = k.values[0]
		}
		if k.values != nil && !m.take(value, k.values) {
			return fmt.Errorf("value %.40q of %s: want %s", value, kind, wanted(k.values))
		}
		return nil
	}
	return fmt.Errorf("kind %.40q: want one of %s", kind, strings.Join(names, ", "))
}

func wanted(values []string) string {
	if len(values) == 2 && strings.Contains(values[1], " ") {
		return values[1]
	}
	return strings.Join(values[:len(values)-1], ", ") + " or " + values[len(values)-1]
}

// take sets the value of the kind.
func (m *mishap) take(value string, allowed []string) bool {
	var err error
	switch m.kind {
	case "delay":
		m.delay, err = time.ParseDuration(value)
		return err == nil && m.delay > 0 && m.delay <= maxDelay
	case "status":
		m.status, err = strconv.Atoi(value)
		return err == nil && m.status >= 400 && m.status <= 599
	}
	m.when = value
	return slices.Contains(allowed, value)
}

func (m *mishap) parseEndpoint(text string) error {
	m.path = text
	if method, path, ok := strings.Cut(text, " "); ok {
		m.method, m.path = method, path
	}
	switch {
	case !slices.Contains([]string{"", "*", "GET", "PUT", "PATCH", "DELETE"}, m.method):
		return fmt.Errorf("method %.40q: want GET, PUT, PATCH, DELETE or none, for all", m.method)
	case strings.Count(m.path, "*") > 1:
		return fmt.Errorf("path %.80q: want at most one *", m.path)
	case !strings.HasPrefix(m.path, "/") && !strings.HasPrefix(m.path, "*"):
		return fmt.Errorf("path %.80q: want one that begins with /, such as /snapshot/load, or *", m.path)
	}
	if m.method == "*" {
		m.method = ""
	}
	// One that nobody ever asks for would be a test that tests nothing.
	for _, e := range fcapi.Endpoints() {
		if method, path, _ := strings.Cut(e, " "); (m.method == "" || m.method == method) && meet(m.path, path) {
			return nil
		}
	}
	return fmt.Errorf("endpoint %.80q: Firecracker has none like it", text)
}

// matches says whether path is what pattern means by its *.
func matches(pattern, path string) bool {
	head, tail, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == path
	}
	return len(path) >= len(head)+len(tail) && strings.HasPrefix(path, head) && strings.HasSuffix(path, tail)
}

// meet says whether some path matches both patterns.
func meet(a, b string) bool {
	headA, tailA, starA := strings.Cut(a, "*")
	headB, tailB, starB := strings.Cut(b, "*")
	if !starA {
		return matches(b, a)
	}
	if !starB {
		return matches(a, b)
	}
	return (strings.HasPrefix(headA, headB) || strings.HasPrefix(headB, headA)) &&
		(strings.HasSuffix(tailA, tailB) || strings.HasSuffix(tailB, tailA))
}

// due finds what befalls a request: the first that is due. All of them count it.
func due(all []*mishap, r request) (first *mishap) {
	for _, m := range all {
		if m.method != "" && m.method != r.method || !matches(m.path, r.uri) {
			continue
		}
		m.seen++
		if first == nil && (m.nth == 0 || m.nth == m.seen) {
			first = m
		}
	}
	return first
}

// troubled is handle with the faults that were ordered. What waits here keeps
// all other requests waiting, as in the original, which serves one at a time.
func (c *controller) troubled(all []*mishap) func(request) response {
	return func(r request) response {
		m := due(all, r)
		if m == nil {
			return c.handle(r)
		}
		c.log.log(srcAPI, LevelWarn, "fcemu: the fault %q was ordered for the %s request on %q.", m.text, r.method, r.uri)
		return c.befall(m, r)
	}
}

func (c *controller) befall(m *mishap, r request) response {
	unanswered := response{status: 204, sent: sentNothing}
	switch m.kind {
	case "delay":
		t := time.NewTimer(m.delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.ctx.Done():
			return unanswered
		}
	case "hang":
		<-c.ctx.Done()
		return unanswered
	case "status":
		return faultResponse(m.status, "Ordered by the fault "+m.text)
	case "swallow":
		return noContent()
	case "die":
		// Last: of a load that fails it would have to go, too.
		defer func() { c.fatal = panicked("ordered by the fault " + m.text) }()
	}
	if m.when == "before" {
		return unanswered
	}
	out := c.handle(r)
	switch {
	case m.kind == "half-reply" || m.when == "mid":
		out.sent = sentHalf
	case m.kind == "drop":
		out.sent = sentNothing
	}
	return out
}
