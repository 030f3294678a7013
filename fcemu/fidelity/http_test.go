package fidelity

import (
	"fmt"
	"strings"
)

// crlf writes a request whose lines are separated by |.
func crlf(s string) string { return strings.ReplaceAll(s, "|", "\r\n") }

func httpSequences() []sequence {
	const machine = `{"vcpu_count":2,"mem_size_mib":64}`
	const get = "GET / HTTP/1.1||"
	put := func(headers, body string) string {
		return fmt.Sprintf("PUT /machine-config HTTP/1.1|%sContent-Length: %d||%s", headers, len(body), body)
	}
	mmds := func(size int) string {
		return fmt.Sprintf(`PUT /mmds HTTP/1.1|Content-Length: %d||{"a":"%s"}`, size, strings.Repeat("x", size-8))
	}
	var list []sequence
	for _, c := range []struct {
		n           int
		name, bytes string
	}{
		{1, "HTTP/1.0", "GET / HTTP/1.0||"}, {1, "HTTP/1.1", get}, {1, "HTTP/2.0", "GET / HTTP/2.0|"}, {1, "HTTP/0.9", "GET / HTTP/0.9|"}, {1, "http/1.1", "GET / http/1.1|"}, {1, "no version", "GET /|"},
		{1, "no URI", "GET  HTTP/1.1|"}, {1, "two blanks", "GET  / HTTP/1.1|"}, {1, "a blank first", " GET / HTTP/1.1|"}, {1, "a blank at the end", "GET / HTTP/1.1 |"}, {1, "a tab", "GET\t/\tHTTP/1.1|"},
		{1, "POST", "POST / HTTP/1.1|"}, {1, "HEAD", "HEAD / HTTP/1.1|"}, {1, "OPTIONS", "OPTIONS / HTTP/1.1|"}, {1, "TRACE", "TRACE / HTTP/1.1|"}, {1, "CONNECT", "CONNECT / HTTP/1.1|"}, {1, "FOO", "FOO / HTTP/1.1|"}, {1, "get", "get / HTTP/1.1|"}, {1, "Put", "Put / HTTP/1.1|"},
		{1, "an empty line first", "|"}, {1, "a zero byte", "GET /\x00 HTTP/1.1||"}, {1, "a URI that is not UTF-8", "GET /\xff HTTP/1.1|"}, {1, "a line without CR", "GET / HTTP/1.1\n|"},
		{1, "Connection: close is ignored", "GET / HTTP/1.1|Connection: close||"}, {1, "Host", "GET / HTTP/1.1|Host: localhost||"}, {1, "Upgrade", "GET / HTTP/1.1|Connection: Upgrade|Upgrade: h2c||"},
		{1, "Accept", "GET / HTTP/1.1|Accept: text/html||"}, {1, "gzip", "GET / HTTP/1.1|Accept-Encoding: gzip, deflate||"}, {1, "identity;q=1", "GET / HTTP/1.1|Accept-Encoding: identity;q=1||"},
		{1, "a header without a value", "GET / HTTP/1.1|A:||"}, {1, "a header without a name", "GET / HTTP/1.1|: a||"}, {1, "a blank before the colon", "GET / HTTP/1.1|A : b||"}, {1, "a folded header", "GET / HTTP/1.1|A: b| c: d||"},
		{1, "many headers", "GET / HTTP/1.1|" + strings.Repeat("H: "+strings.Repeat("y", 80)+"|", 60) + "|"}, {1, "a long header", "GET / HTTP/1.1|A: " + strings.Repeat("x", 1000) + "||"},
		{1, "a long URI", "GET /" + strings.Repeat("v", 990) + " HTTP/1.1||"}, {1, "a small body", put("", machine)}, {1, "no body where one is needed", put("", "")},
		{1, "a length with leading zeros", "PUT /machine-config HTTP/1.1|Content-Length: 0034||" + machine}, {1, "a length with a plus", "PUT /machine-config HTTP/1.1|Content-Length: +34||" + machine},
		{1, "two lengths", "PUT /machine-config HTTP/1.1|Content-Length: 3|Content-Length: 34||" + machine}, {1, "a name in capitals", "PUT /machine-config HTTP/1.1|CONTENT-LENGTH:34||" + machine}, {1, "blanks around a length", "PUT /machine-config HTTP/1.1|Content-Length:   34  ||" + machine},
		{1, "Content-Type", put("Content-Type: text/xml|", machine)}, {1, "Content-Type of JSON", put("Content-Type: application/json|", machine)}, {1, "Expect: foo", put("Expect: foo|", machine)}, {2, "Expect: 100-continue", put("Expect: 100-continue|", machine)}, {2, "expect in other case", put("eXpect: 100-continue|", machine)},
		{2, "Expect: 100-continue in HTTP/1.0", strings.Replace(put("Expect: 100-continue|", machine), "1.1", "1.0", 1)}, {1, "Expect without a body", "GET / HTTP/1.1|Expect: 100-continue||"},
		{3, "pipelined", get + put("", machine) + get}, {5, "five pipelined", get + get + get + get + get}, {1, "what is unanswered before a fault is dropped", get + get + "FOO|"}, {2, "a fault of the API does not drop", "PUT /foo HTTP/1.1||" + get},
		{1, "a body at the limit", mmds(51200)}, {1, "a transfer encoding of identity", put("Transfer-Encoding: identity|", machine)}, {1, "a transfer encoding and a length", put("Transfer-Encoding: chunked|", machine)},
		{1, "a GET with a length of 0", "GET / HTTP/1.1|Content-Length: 0||"}, {1, "a DELETE with a body", "DELETE /drives/d HTTP/1.1|Content-Length: 2||{}"},
	} {
		list = append(list, sequence{name: c.name, steps: []string{fmt.Sprintf("!raw %d %s", c.n, crlf(c.bytes)), "GET /machine-config"}})
	}
	// Faults in a header, told at once; too long a body is told when the
	// headers end.
	for _, c := range []struct{ name, header string }{
		{"a length that is no number", "Content-Length: abc"}, {"a negative length", "Content-Length: -1"}, {"a length of 33 bits", "Content-Length: 4294967296"}, {"an empty length", "Content-Length:"}, {"a length over the limit", "Content-Length: 51201|"},
		{"a header without a colon", "abc"}, {"a header that is not UTF-8", "A: \xff"}, {"identity;q=0", "Accept-Encoding: identity;q=0"}, {"*;q=0", "Accept-Encoding: *;q=0"},
		{"a header over the limit", "A: " + strings.Repeat("x", 1100)},
	} {
		list = append(list, sequence{name: c.name, steps: []string{"!raw 1 " + crlf("GET / HTTP/1.1|"+c.header+"|"), "!connect", "GET /version"}})
	}
	return append(list,
		sequence{name: "a transfer encoding without a length", steps: []string{"!raw 1 " + crlf("PUT /machine-config HTTP/1.1|Transfer-Encoding: chunked||"), "GET /machine-config"}},
		sequence{name: "a request line over the limit", steps: []string{"!raw 1 GET /" + strings.Repeat("v", 1100), "!connect", "GET /version"}},
		sequence{name: "in pieces", steps: []string{"!raw - PU", "!raw - T /machine-config HTTP/1.1\r", "!raw - \nContent-Le", "!raw - ngth: 34\r\n\r", "!raw - \n" + machine[:5], "!raw 1 " + machine[5:], "GET /machine-config"}},
		sequence{name: "the body comes after 100", steps: []string{"!raw 1 " + crlf("PUT /machine-config HTTP/1.1|Expect: 100-continue|Content-Length: 34||"), "!raw 1 " + machine, "GET /machine-config"}},
		sequence{name: "no 100 for a body over the limit", args: []string{"--http-api-max-payload-size", "100"}, steps: []string{"!raw 1 " + crlf("PUT /mmds HTTP/1.1|Content-Length: 101|Expect: 100-continue||"), "!connect", "GET /version"}},
		sequence{name: "a limit of 0", args: []string{"--http-api-max-payload-size", "0"}, steps: []string{"GET /version", "PUT /machine-config", "!raw 1 " + crlf("PUT /mmds HTTP/1.1|Content-Length: 1||"), "!connect", "GET /version"}},
		sequence{name: "a limit of 34", args: []string{"--http-api-max-payload-size", "34"}, steps: []string{"PUT /machine-config " + machine, "!raw 1 " + crlf("PUT /machine-config HTTP/1.1|Content-Length: 35||"), "!connect", "GET /machine-config"}},
		sequence{name: "a larger limit", args: []string{"--http-api-max-payload-size", "60000"}, steps: []string{"!raw 1 " + crlf(mmds(60000)), "GET /version"}},
		sequence{name: "thirty requests over one connection", steps: slicesRepeat("GET /machine-config", 30)},
		sequence{name: "a connection that is left in the middle", steps: []string{"!raw - " + crlf("PUT /machine-config HTTP/1.1|Content-Length: 34||") + machine[:30], "!connect", "GET /machine-config"}},
	)
}

func slicesRepeat(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}
