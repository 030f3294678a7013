package microvm

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// MaxSpecBytes is the largest spec file that ParseSpec reads, MaxSpecDepth how
// deep its objects and arrays may be nested.
const (
	MaxSpecBytes = 1 << 20
	MaxSpecDepth = 100
	maxFaults    = 50 // told of one file; a file of garbage has any number
)

// ParseSpec reads a spec from JSON. It is strict: keys that Spec does not know,
// keys given twice, values of a wrong type and bytes behind the object are
// errors (ErrInvalidSpec), all unknown keys at once, each with the nearest known
// one. It does not call Validate.
func ParseSpec(r io.Reader) (Spec, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxSpecBytes+1))
	if err != nil {
		return Spec{}, fmt.Errorf("read spec: %w", err)
	}
	if len(b) > MaxSpecBytes {
		return Spec{}, &FieldError{Field: "spec", Value: "the file", Rule: fmt.Sprintf("at most %d bytes", MaxSpecBytes)}
	}
	if first := bytes.TrimLeft(b, " \t\r\n"); len(first) > 0 && first[0] != '{' {
		return Spec{}, &FieldError{Field: "spec", Value: fmt.Sprintf("%.20q", first), Rule: "one JSON object"}
	}
	v := &faults{}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := v.keys(dec, reflect.TypeFor[Spec](), "", 0); err != nil {
		return Spec{}, syntaxFault(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		v.add("spec", fmt.Sprintf("bytes after offset %d", dec.InputOffset()), "one JSON object and nothing after it")
	}
	if n := len(v.errs); n > maxFaults {
		v.errs = v.errs[:maxFaults]
		v.add("spec", fmt.Sprintf("%d more faults", n-maxFaults), "a file that follows the rules")
	}
	if len(v.errs) > 0 {
		return Spec{}, errors.Join(v.errs...)
	}
	var s Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return Spec{}, syntaxFault(err)
	}
	return s, nil
}

func syntaxFault(err error) error {
	var f *FieldError
	if errors.As(err, &f) {
		return f
	}
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		return &FieldError{Field: t.Field, Value: "a JSON " + t.Value, Rule: "a value for " + t.Type.String()}
	}
	var s *json.SyntaxError
	if errors.As(err, &s) {
		return &FieldError{Field: "spec", Value: fmt.Sprintf("offset %d: %s", s.Offset, s), Rule: "valid JSON"}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &FieldError{Field: "spec", Value: "the end of the file", Rule: "a whole JSON object"}
	}
	return &FieldError{Field: "spec", Value: err.Error(), Rule: "valid JSON"}
}

// keys walks one JSON value and compares its keys with the type that it is
// meant for; t is nil where any value goes. encoding/json does the rest: it
// checks the types.
func (v *faults) keys(dec *json.Decoder, t reflect.Type, path string, depth int) error {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	if _, nested := tok.(json.Delim); nested && depth == MaxSpecDepth {
		top, _, _ := strings.Cut(path, ".")
		top, _, _ = strings.Cut(top, "[")
		return &FieldError{
			Field: fmt.Sprintf("%.80s", top),
			Value: fmt.Sprintf("nested deeper than %d levels, at offset %d,", MaxSpecDepth, dec.InputOffset()),
			Rule:  fmt.Sprintf("at most %d levels of objects and arrays", MaxSpecDepth),
		}
	}
	switch tok {
	case json.Delim('['):
		var elem reflect.Type
		if t != nil && t.Kind() == reflect.Slice && t != reflect.TypeFor[json.RawMessage]() {
			elem = t.Elem()
		}
		for i := 0; dec.More(); i++ {
			if err := v.keys(dec, elem, fmt.Sprintf("%s[%d]", path, i), depth+1); err != nil {
				return err
			}
		}
	case json.Delim('{'):
		known := fields(t)
		seen := map[string]bool{}
		for dec.More() {
			tok, err := dec.Token()
			if err != nil {
				return err
			}
			key, _ := tok.(string) // a key is always a string
			name := strings.TrimPrefix(path+"."+key, ".")
			if seen[key] {
				v.add(name, key, "given once")
			}
			seen[key] = true
			next, ok := known[key]
			if known != nil && !ok {
				v.add(name, key, "a known key; did you mean "+fmt.Sprintf("%q?", nearest(key, known)))
			}
			if err := v.keys(dec, next, name, depth+1); err != nil {
				return err
			}
		}
	default:
		if text, ok := tok.(string); ok {
			v.text(t, text, path)
		}
		return nil
	}
	_, err = dec.Token() // the closing one
	return err
}

// text tries a string on a type that reads itself from text: encoding/json would not
// say where it stands.
func (v *faults) text(t reflect.Type, text, path string) {
	if t == nil {
		return
	}
	u, ok := reflect.New(t).Interface().(encoding.TextUnmarshaler)
	if !ok {
		return
	}
	err := u.UnmarshalText([]byte(text))
	var f *FieldError
	switch {
	case errors.As(err, &f):
		if part := f.Field[strings.LastIndex(f.Field, ".")+1:]; part != "rule" && part != "publish" { // those are the text itself
			path += "." + part
		}
		v.add(path, text, f.Rule)
	case err != nil:
		v.add(path, text, err.Error())
	}
}

// fields maps the JSON keys of a struct to their types; nil for what takes any
// key.
func fields(t reflect.Type) map[string]reflect.Type {
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	m := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			m[name] = f.Type
		}
	}
	return m
}

// nearest is the known key with the fewest edits from key, the first in the
// alphabet among equals.
func nearest(key string, known map[string]reflect.Type) string {
	best, dist := "", 1<<30
	for k := range known {
		if d := edits(strings.ToLower(key), k); d < dist || d == dist && k < best {
			best, dist = k, d
		}
	}
	return best
}

// edits is the Levenshtein distance, over at most the first 64 bytes.
func edits(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
