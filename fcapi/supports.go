package fcapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// UnsupportedError is a request that the VMM's release does not understand.
// errors.Is finds ErrUnsupported behind it.
type UnsupportedError struct {
	Method string
	Path   string
	// Field is where in the body, such as "rate_limiter.ops"; empty when it is
	// the endpoint itself that is missing.
	Field string
	// Value is the value of Field, when only that is missing.
	Value string
	// Have is the VMM's release.
	Have Version
	// Need are the releases that brought it: the last one and all newer ones
	// have it, each one before the last only with the later patch releases of
	// its own line. nil when no known release has it.
	Need []Version
}

func (e *UnsupportedError) Error() string {
	what := e.Method + " " + e.Path
	if e.Field != "" {
		what += fmt.Sprintf(": field %.100q", e.Field)
	}
	if e.Value != "" {
		what += fmt.Sprintf(": value %.100q", e.Value)
	}
	if len(e.Need) == 0 {
		return fmt.Sprintf("%s: %v %s: no release up to %d.%d has it", what, ErrUnsupported, e.Have, newest.Major, newest.Minor)
	}
	return fmt.Sprintf("%s: %v %s: it needs %s or newer", what, ErrUnsupported, e.Have, releases(e.Need))
}

// Unwrap returns ErrUnsupported.
func (e *UnsupportedError) Unwrap() error { return ErrUnsupported }

// Supports reports whether the release v understands r: the endpoint, every
// field of the body as it is encoded (whatever its Go type is), and values that
// came later than their field. The error is an *UnsupportedError, of several
// things that v lacks for that which came last, or ErrInvalidRequest. Releases before 1.7.0 support nothing. For a line newer
// than 1.17, what the table does not know passes.
func Supports(v Version, r Request) error {
	body, err := r.body()
	if err != nil {
		return err
	}
	return supports(v, r, body)
}

func supports(v Version, r Request, body []byte) error {
	err := lacking(v, r, body)
	// A release that has the first thing that is missing may lack another: what
	// is named has to be enough.
	for e, ok := err.(*UnsupportedError); ok && len(e.Need) > 0; {
		var next *UnsupportedError
		if next, ok = lacking(e.Need[len(e.Need)-1], r, body).(*UnsupportedError); ok {
			next.Have = v
			e, err = next, next
		}
	}
	return err
}

// lacking finds the first thing that v lacks.
func lacking(v Version, r Request, body []byte) error {
	known, ok := endpoints[r.endpoint()]
	if !ok && v.beyondTable() {
		return nil
	}
	if !ok || !known.since.has(v) {
		e := &UnsupportedError{Method: r.Method, Path: r.Path, Have: v}
		if ok {
			e.Need = known.since.or()
		}
		return e
	}
	if body == nil || known.free {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber() // a float64 does not hold every number of JSON
	w := walker{dec: dec, v: v, r: r}
	return w.value("", known)
}

// endpoint is the key of the request in the table. r has passed check.
func (r Request) endpoint() string {
	path := r.Path
	if i := strings.IndexByte(path[1:], '/'); i >= 0 {
		switch kind := path[:i+1]; kind {
		case "/drives", "/pmem", "/network-interfaces":
			path = kind + "/*"
		}
	}
	return r.Method + " " + path
}

// walker reads a body token by token: so it sees what a map would lose, keys
// that come twice.
type walker struct {
	dec *json.Decoder
	v   Version
	r   Request
}

// value reads the value of the field f, which is at this path.
func (w *walker) value(at string, f field) error {
	if f.free {
		var skipped json.RawMessage
		return w.readable(w.dec.Decode(&skipped))
	}
	t, err := w.dec.Token()
	if err != nil {
		return w.readable(err)
	}
	switch t := t.(type) {
	case json.Delim:
		for w.dec.More() {
			if t == '[' {
				err = w.value(at, f)
			} else {
				err = w.member(at, f)
			}
			if err != nil {
				return err
			}
		}
		_, err = w.dec.Token() // the end of it
		return w.readable(err)
	case string:
		if since, ok := f.values[t]; ok && !since.has(w.v) {
			return w.unsupported(at, t, since)
		}
	}
	return nil
}

// member reads a name and its value in the object at this path.
func (w *walker) member(at string, f field) error {
	t, err := w.dec.Token()
	if err != nil {
		return w.readable(err)
	}
	name, ok := t.(string)
	if !ok {
		return w.readable(fmt.Errorf("the name %v is not a string", t))
	}
	if at != "" {
		at += "."
	}
	at += name
	known, ok := f.in[name]
	switch {
	case !ok && w.v.beyondTable():
		known = field{free: true}
	case !ok:
		return w.unsupported(at, "", nil)
	case !known.since.has(w.v):
		return w.unsupported(at, "", known.since)
	}
	return w.value(at, known)
}

// readable wraps an error of the decoder; there is none for what json.Marshal
// made.
func (w *walker) readable(err error) error {
	if err != nil {
		return fmt.Errorf("%w: %s: read the encoded body: %w", ErrInvalidRequest, w.r, err)
	}
	return nil
}

func (w *walker) unsupported(field, value string, need releases) error {
	return &UnsupportedError{Method: w.r.Method, Path: w.r.Path, Field: field, Value: value, Have: w.v, Need: need}
}
