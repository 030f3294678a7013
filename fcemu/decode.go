package fcemu

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// need says what the absence of a field means.
type need byte

const (
	required  need = iota
	optional       // absent as an object's key is none; an array must have it
	defaulted      // may be absent in both
)

// field is one field of a body, in the order in which the original declares
// them, which is also the order of an array that stands for the object.
type field struct {
	name string
	need need
	set  func(*node) error
}

// unknownFields says what to do with names that are not among the fields.
type unknownFields byte

const (
	refuseUnknown unknownFields = iota
	ignoreUnknown
)

// decodeBody parses a body and hands it to fn. The errors have line and
// column.
func decodeBody(rel *release, body []byte, fn func(*node) error) error {
	n, err := parseFor(rel, body)
	if err != nil {
		return err
	}
	if err := fn(n); err != nil {
		return locate(body, err)
	}
	return nil
}

// newer is a field that is there if the release knows this thing of the version
// table.
func (n *node) newer(thing string, f field) field {
	if !n.rel.knows(thing) {
		return field{}
	}
	return f
}

// fields decodes an object, or an array that stands for one.
func (n *node) fields(what string, unknown unknownFields, fs ...field) error {
	fs = slices.DeleteFunc(fs, func(f field) bool { return f.name == "" })
	switch n.kind {
	case kindArray:
		return n.sequence(what, fs)
	case kindObject:
	default:
		return n.typeError("struct " + what)
	}
	var seen uint64 // no body has more than 64 fields
	for i, k := range n.keys {
		at := -1
		for j := range fs {
			if fs[j].name == k.name {
				at = j
			}
		}
		switch {
		case at < 0 && unknown == ignoreUnknown:
			continue
		case at < 0:
			return &jsonError{fmt.Sprintf("unknown field `%s`, expected %s", k.name, oneOf(fs)), k.end}
		case seen&(1<<at) != 0:
			return &jsonError{fmt.Sprintf("duplicate field `%s`", k.name), k.end}
		}
		seen |= 1 << at
		if err := fs[at].set(&n.list[i]); err != nil {
			return err
		}
	}
	for j, f := range fs {
		if f.need == required && seen&(1<<j) == 0 {
			return &jsonError{fmt.Sprintf("missing field `%s`", f.name), n.end}
		}
	}
	return nil
}

func (n *node) sequence(what string, fs []field) error {
	for i, f := range fs {
		if i >= len(n.list) {
			if f.need == defaulted {
				continue
			}
			return &jsonError{fmt.Sprintf("invalid length %d, expected struct %s with %d elements", len(n.list), what, len(fs)), n.end}
		}
		if err := f.set(&n.list[i]); err != nil {
			return err
		}
	}
	if len(n.list) > len(fs) {
		return &jsonError{"trailing characters", n.list[len(fs)].end}
	}
	return nil
}

func oneOf(fs []field) string {
	var names []string
	for _, f := range fs {
		names = append(names, "`"+f.name+"`")
	}
	switch len(names) {
	case 1:
		return names[0]
	case 2:
		return names[0] + " or " + names[1]
	}
	return "one of " + strings.Join(names, ", ")
}

func (n *node) typeError(want string) error {
	var got string
	switch n.kind {
	case kindNull:
		got = "null"
	case kindBool:
		got = "boolean `" + n.text + "`"
	case kindNumber:
		got = "integer `" + n.text + "`"
		if strings.ContainsAny(n.text, ".eE") {
			got = "floating point `" + n.text + "`"
		}
	case kindString:
		got = "string " + quote(n.text)
	case kindArray:
		got = "sequence"
	case kindObject:
		got = "map"
	}
	return &jsonError{"invalid type: " + got + ", expected " + want, n.end}
}

func setString(to *string) func(*node) error {
	return func(n *node) error {
		if n.kind != kindString {
			return n.typeError("a string")
		}
		*to = n.text
		return nil
	}
}

func setBool(to *bool) func(*node) error {
	return func(n *node) error {
		if n.kind != kindBool {
			return n.typeError("a boolean")
		}
		*to = n.text == "true"
		return nil
	}
}

// setUint takes unsigned integers of up to bits bits. Numbers with a fraction
// or an exponent are no integers, whatever their value.
func setUint[T int | uint32 | uint64](to *T, bits int) func(*node) error {
	name := "u" + strconv.Itoa(bits)
	return func(n *node) error {
		if n.kind != kindNumber || n.text == "-0" || strings.ContainsAny(n.text, ".eE") {
			return n.typeError(name)
		}
		if _, err := strconv.ParseUint(strings.TrimPrefix(n.text, "-"), 10, 64); err != nil {
			return n.typeError(name) // too long for an integer: taken for a float
		}
		v, err := strconv.ParseUint(n.text, 10, bits)
		if err != nil || uint64(T(v)) != v || T(v) < 0 {
			return &jsonError{"invalid value: integer `" + n.text + "`, expected " + name, n.end}
		}
		*to = T(v)
		return nil
	}
}

// orNull makes a field that null leaves unset.
func orNull[T any](to **T, set func(*T) func(*node) error) func(*node) error {
	return func(n *node) error {
		if n.kind == kindNull {
			*to = nil
			return nil
		}
		v := new(T)
		if err := set(v)(n); err != nil {
			return err
		}
		*to = v
		return nil
	}
}

// setEnum takes one of a list of names, plain or as the only key of an object
// whose value is null.
func setEnum(to *string, names ...string) func(*node) error {
	return func(n *node) error {
		name, end := n.text, n.end
		switch {
		case n.kind == kindString:
		case n.kind == kindObject && len(n.keys) == 1:
			name, end = n.keys[0].name, n.keys[0].end
			if n.list[0].kind != kindNull {
				return n.list[0].typeError("unit")
			}
		default:
			return &jsonError{"expected value", n.end}
		}
		var fs []field
		for _, ok := range names {
			if name == ok {
				*to = name
				return nil
			}
			fs = append(fs, field{name: ok})
		}
		return &jsonError{fmt.Sprintf("unknown variant `%s`, expected %s", name, oneOf(fs)), end}
	}
}

func enumOf(names ...string) func(*string) func(*node) error {
	return func(to *string) func(*node) error { return setEnum(to, names...) }
}

func setList[T any](to *[]T, set func(*T) func(*node) error) func(*node) error {
	return func(n *node) error {
		if n.kind != kindArray {
			return n.typeError("a sequence")
		}
		list := make([]T, len(n.list))
		for i := range n.list {
			if err := set(&list[i])(&n.list[i]); err != nil {
				return err
			}
		}
		*to = list
		return nil
	}
}
