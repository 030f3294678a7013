package fcemu

import (
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// The standard library's JSON decoder can't be made as strict as the one that
// Firecracker uses (duplicate keys, number types, arrays in place of objects,
// case of names), so bodies are parsed into a tree of nodes here, and decode.go
// checks the tree against each body's fields.

type kind byte

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

// node is one JSON value.
type node struct {
	kind kind
	text string   // number literal or decoded string; "true" or "false"
	keys []key    // object
	list []node   // array elements, or the values that belong to keys
	end  int      // offset just behind the value
	rel  *release // nil when it does not matter
}

type key struct {
	name string
	end  int
}

// jsonError is a fault in a body, at an offset of it.
type jsonError struct {
	what string
	off  int
}

func (e *jsonError) Error() string { return e.what }

// maxDepth is the nesting at which the original gives up.
const maxDepth = 127

type jsonParser struct {
	in  []byte
	pos int
	rel *release
}

// parseJSON parses a whole body.
func parseJSON(in []byte) (*node, error) { return parseFor(nil, in) }

// parseFor parses a whole body that a release decodes.
func parseFor(rel *release, in []byte) (*node, error) {
	p := &jsonParser{in: in, rel: rel}
	var n node
	err := p.value(&n, 0)
	if err == nil {
		p.space()
		if p.pos < len(p.in) {
			err = p.fail("trailing characters")
		}
	}
	if err != nil {
		return nil, locate(in, err)
	}
	return &n, nil
}

// locate adds line and column to a fault.
func locate(in []byte, err error) error {
	je, ok := err.(*jsonError)
	if !ok {
		return err
	}
	line, col := 1, 0
	for i := 0; i < je.off && i < len(in); i++ {
		if in[i] == '\n' {
			line, col = line+1, 0
		} else {
			col++
		}
	}
	return fmt.Errorf("%s at line %d column %d", je.what, line, col)
}

func (p *jsonParser) fail(what string) error { return &jsonError{what, p.pos + 1} }

func (p *jsonParser) space() {
	for p.pos < len(p.in) {
		switch p.in[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

func (p *jsonParser) value(n *node, depth int) error {
	p.space()
	if p.pos == len(p.in) {
		return &jsonError{"EOF while parsing a value", p.pos}
	}
	var err error
	switch c := p.in[p.pos]; {
	case c == 'n':
		n.kind, err = kindNull, p.word("null")
	case c == 't':
		n.kind, n.text, err = kindBool, "true", p.word("true")
	case c == 'f':
		n.kind, n.text, err = kindBool, "false", p.word("false")
	case c == '"':
		n.kind = kindString
		n.text, err = p.str()
	case c == '-' || c >= '0' && c <= '9':
		n.kind = kindNumber
		n.text, err = p.number()
	case c == '[':
		n.kind, err = kindArray, p.array(n, depth+1)
	case c == '{':
		n.kind, err = kindObject, p.object(n, depth+1)
	default:
		err = p.fail("expected value")
	}
	n.end, n.rel = p.pos, p.rel
	return err
}

func (p *jsonParser) word(w string) error {
	for i := range len(w) {
		if p.pos == len(p.in) {
			return &jsonError{"EOF while parsing a value", p.pos}
		}
		if p.in[p.pos] != w[i] {
			return p.fail("expected ident")
		}
		p.pos++
	}
	return nil
}

func (p *jsonParser) number() (string, error) {
	start := p.pos
	digits := func() bool {
		from := p.pos
		for p.pos < len(p.in) && p.in[p.pos] >= '0' && p.in[p.pos] <= '9' {
			p.pos++
		}
		return p.pos > from
	}
	if p.in[p.pos] == '-' {
		p.pos++
	}
	switch {
	case p.pos < len(p.in) && p.in[p.pos] == '0':
		p.pos++
		if p.pos < len(p.in) && p.in[p.pos] >= '0' && p.in[p.pos] <= '9' {
			return "", p.fail("invalid number")
		}
	case !digits():
		return "", p.fail("invalid number")
	}
	if p.pos < len(p.in) && p.in[p.pos] == '.' {
		p.pos++
		if !digits() {
			return "", p.fail("invalid number")
		}
	}
	if p.pos < len(p.in) && (p.in[p.pos] == 'e' || p.in[p.pos] == 'E') {
		p.pos++
		if p.pos < len(p.in) && (p.in[p.pos] == '+' || p.in[p.pos] == '-') {
			p.pos++
		}
		if !digits() {
			return "", p.fail("invalid number")
		}
	}
	text := string(p.in[start:p.pos])
	if f, err := strconv.ParseFloat(text, 64); err != nil && math.IsInf(f, 0) {
		return "", &jsonError{"number out of range", p.pos}
	}
	return text, nil
}

func (p *jsonParser) str() (string, error) {
	p.pos++ // the quote
	start := p.pos
	var out []byte // nil as long as nothing is escaped
	for p.pos < len(p.in) {
		c := p.in[p.pos]
		switch {
		case c == '"':
			raw := p.in[start:p.pos]
			p.pos++
			if out != nil {
				raw = append(out, raw...)
			}
			if !utf8.Valid(raw) {
				return "", p.fail("invalid unicode code point")
			}
			return string(raw), nil
		case c == '\\':
			out = append(out, p.in[start:p.pos]...)
			if out == nil {
				out = []byte{}
			}
			p.pos++
			var err error
			if out, err = p.escape(out); err != nil {
				return "", err
			}
			start = p.pos
		case c < 0x20:
			return "", p.fail("control character (\\u0000-\\u001F) found while parsing a string")
		default:
			p.pos++
		}
	}
	return "", &jsonError{"EOF while parsing a string", p.pos}
}

func (p *jsonParser) escape(out []byte) ([]byte, error) {
	if p.pos == len(p.in) {
		return nil, &jsonError{"EOF while parsing a string", p.pos}
	}
	c := p.in[p.pos]
	p.pos++
	switch c {
	case '"', '\\', '/':
		return append(out, c), nil
	case 'b':
		return append(out, '\b'), nil
	case 'f':
		return append(out, '\f'), nil
	case 'n':
		return append(out, '\n'), nil
	case 'r':
		return append(out, '\r'), nil
	case 't':
		return append(out, '\t'), nil
	case 'u':
		r, err := p.hex4()
		if err != nil {
			return nil, err
		}
		if r >= 0xDC00 && r <= 0xDFFF {
			return nil, p.fail("lone leading surrogate in hex escape")
		}
		if r >= 0xD800 && r <= 0xDBFF {
			if p.pos+1 >= len(p.in) || p.in[p.pos] != '\\' || p.in[p.pos+1] != 'u' {
				return nil, p.fail("unexpected end of hex escape")
			}
			p.pos += 2
			low, err := p.hex4()
			if err != nil {
				return nil, err
			}
			if low < 0xDC00 || low > 0xDFFF {
				return nil, p.fail("lone leading surrogate in hex escape")
			}
			r = 0x10000 + (r-0xD800)<<10 + (low - 0xDC00)
		}
		return utf8.AppendRune(out, r), nil
	}
	return nil, p.fail("invalid escape")
}

func (p *jsonParser) hex4() (rune, error) {
	if p.pos+4 > len(p.in) {
		return 0, &jsonError{"EOF while parsing a string", len(p.in)}
	}
	r, err := strconv.ParseUint(string(p.in[p.pos:p.pos+4]), 16, 16)
	if err != nil {
		return 0, p.fail("invalid escape")
	}
	p.pos += 4
	return rune(r), nil
}

func (p *jsonParser) array(n *node, depth int) error {
	return p.members("a list", ']', depth, func() error { return p.member(n, depth) })
}

func (p *jsonParser) object(n *node, depth int) error {
	const what = "an object"
	return p.members(what, '}', depth, func() error {
		if p.pos == len(p.in) {
			return p.cutOff(what)
		}
		if p.in[p.pos] != '"' {
			return p.fail("key must be a string")
		}
		name, err := p.str()
		if err != nil {
			return err
		}
		n.keys = append(n.keys, key{name, p.pos})
		p.space()
		if p.pos == len(p.in) {
			return p.cutOff(what)
		}
		if p.in[p.pos] != ':' {
			return p.fail("expected `:`")
		}
		p.pos++
		return p.member(n, depth)
	})
}

func (p *jsonParser) cutOff(what string) error {
	return &jsonError{"EOF while parsing " + what, p.pos}
}

// members reads what is between brackets and commas, up to and with the closing
// bracket. It begins at the opening one.
func (p *jsonParser) members(what string, closing byte, depth int, member func() error) error {
	if depth > maxDepth {
		return p.fail("recursion limit exceeded")
	}
	p.pos++
	for first := true; ; first = false {
		p.space()
		if p.pos == len(p.in) {
			return p.cutOff(what)
		}
		switch {
		case p.in[p.pos] == closing:
			p.pos++
			return nil
		case first:
		case p.in[p.pos] == ',':
			p.pos++
			p.space()
			if p.pos < len(p.in) && p.in[p.pos] == closing {
				return p.fail("trailing comma")
			}
		default:
			return p.fail("expected `,` or `" + string(closing) + "`")
		}
		if err := member(); err != nil {
			return err
		}
	}
}

// member reads a value into a new place of the list.
func (p *jsonParser) member(n *node, depth int) error {
	n.list = append(n.list, node{})
	return p.value(&n.list[len(n.list)-1], depth)
}
