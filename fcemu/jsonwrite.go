package fcemu

import (
	"math"
	"sort"
	"strconv"
	"strings"
)

// appendValue writes a parsed value as compactly as the original does: keys
// sorted, of two equal keys the last, floats with a fraction or an exponent.
func appendValue(out []byte, n *node) []byte {
	switch n.kind {
	case kindNull:
		return append(out, "null"...)
	case kindBool:
		return append(out, n.text...)
	case kindNumber:
		return appendNumber(out, n.text)
	case kindString:
		return append(out, quote(n.text)...)
	case kindArray:
		out = append(out, '[')
		for i := range n.list {
			if i > 0 {
				out = append(out, ',')
			}
			out = appendValue(out, &n.list[i])
		}
		return append(out, ']')
	}
	last := make(map[string]int, len(n.keys))
	for i, k := range n.keys {
		last[k.name] = i
	}
	names := make([]string, 0, len(last))
	for name := range last {
		names = append(names, name)
	}
	sort.Strings(names)
	out = append(out, '{')
	for i, name := range names {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(out, quote(name)...), ':')
		out = appendValue(out, &n.list[last[name]])
	}
	return append(out, '}')
}

func appendNumber(out []byte, text string) []byte {
	if text != "-0" && !strings.ContainsAny(text, ".eE") {
		if _, err := strconv.ParseInt(text, 10, 64); err == nil {
			return append(out, text...)
		}
		if _, err := strconv.ParseUint(text, 10, 64); err == nil {
			return append(out, text...)
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(f, 0) { // the parser lets none through
		return append(out, "null"...)
	}
	if abs := math.Abs(f); abs == 0 || abs >= 1e-5 && abs < 1e16 {
		at := len(out)
		out = strconv.AppendFloat(out, f, 'f', -1, 64)
		if !strings.Contains(string(out[at:]), ".") {
			out = append(out, ".0"...)
		}
		return out
	}
	s := strconv.FormatFloat(f, 'e', -1, 64)
	mantissa, exp, _ := strings.Cut(s, "e")
	sign, exp := exp[:1], strings.TrimLeft(exp[1:], "0")
	return append(out, mantissa+"e"+sign+exp...)
}

// quote writes a JSON string, escaping only what must be.
func quote(s string) string {
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\b':
			b.WriteString(`\b`)
		case c == '\f':
			b.WriteString(`\f`)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case c < 0x20:
			const hex = "0123456789abcdef"
			b.WriteString(`\u00`)
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// mergePatch applies a JSON merge patch (RFC 7396) to target.
func mergePatch(target, patch *node) node {
	if patch.kind != kindObject {
		return *patch
	}
	out := node{kind: kindObject}
	if target.kind == kindObject {
		out.keys = append(out.keys, target.keys...)
		out.list = append(out.list, target.list...)
	}
	for i, k := range patch.keys {
		at := -1
		for j := range out.keys {
			if out.keys[j].name == k.name {
				at = j
			}
		}
		switch p := &patch.list[i]; {
		case p.kind == kindNull && at >= 0:
			out.keys = append(out.keys[:at], out.keys[at+1:]...)
			out.list = append(out.list[:at], out.list[at+1:]...)
		case p.kind == kindNull:
		case at >= 0:
			out.list[at] = mergePatch(&out.list[at], p)
		default:
			out.keys = append(out.keys, k)
			out.list = append(out.list, mergePatch(&node{}, p))
		}
	}
	return out
}
