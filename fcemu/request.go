package fcemu

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// request is one complete HTTP request.
type request struct {
	method string
	uri    string
	body   []byte   // nil when there is none
	rel    *release // that is asked
}

// readSize is the most that is read from a connection at a time, and the
// longest line that a request may have. Firecracker's HTTP server
// (micro_http) has one buffer of this size for each connection.
const readSize = 1024

type parserState byte

const (
	wantRequestLine parserState = iota
	wantHeaders
	wantBody
)

// requestParser turns the bytes of a connection into requests, with the same
// buffer and the same states as micro_http: after a fault the state stays what
// it was and the unread rest of the buffer is lost, so that clients see what
// they would see there.
type requestParser struct {
	maxBody int // limit of Content-Length
	rel     *release

	state  parserState
	buf    [readSize]byte
	cursor int // where the next bytes go
	cur    request
	length uint32 // Content-Length
	expect bool   // Expect: 100-continue
	http10 bool
	body   []byte
}

var crlf = []byte("\r\n")

// space is where the next bytes must be put before feed is called.
func (p *requestParser) space() []byte { return p.buf[p.cursor:] }

// feed parses n new bytes in space. It returns the requests that are complete
// and, for each "100 Continue" that is due, the HTTP version in continues. An
// error is a fault of the client: the requests of the same call are dropped.
func (p *requestParser) feed(n int) (done []request, continues []string, err error) {
	end, at := p.cursor+n, 0
	for {
		var more bool
		switch p.state {
		case wantRequestLine:
			more, err = p.requestLine(&at, end)
		case wantHeaders:
			var ready, cont bool
			more, ready, cont, err = p.header(&at, end)
			if cont {
				continues = append(continues, p.version())
			}
			if ready {
				done = append(done, p.finish())
			}
		case wantBody:
			more = p.takeBody(&at, end)
			if more {
				p.cur.body, p.body = p.body, nil
				done = append(done, p.finish())
			}
		}
		if err != nil {
			return nil, continues, err
		}
		if !more {
			return done, continues, nil
		}
	}
}

func (p *requestParser) version() string {
	if p.http10 {
		return "HTTP/1.0"
	}
	return "HTTP/1.1"
}

func (p *requestParser) finish() request {
	r := p.cur
	p.cur, p.state = request{}, wantRequestLine
	return r
}

// shift keeps the unparsed bytes for the next call.
func (p *requestParser) shift(at, end int) {
	copy(p.buf[:], p.buf[at:end])
	p.cursor = end - at
}

func (p *requestParser) requestLine(at *int, end int) (more bool, err error) {
	i := bytes.Index(p.buf[*at:end], crlf)
	if i < 0 {
		if end == readSize && *at == 0 {
			return false, errInvalidRequest
		}
		p.shift(*at, end)
		return false, nil
	}
	line := p.buf[*at : *at+i]
	*at += i + len(crlf)
	p.cur, p.http10, err = p.parseRequestLine(line)
	if err != nil {
		return false, err
	}
	p.length, p.expect = 0, false
	p.state = wantHeaders
	return true, nil
}

// badRequest is a fault of the client that the HTTP parser found, in the words
// that go into the answer.
type badRequest string

func (b badRequest) Error() string { return string(b) }

const errInvalidRequest = badRequest("Invalid request.")

func (p *requestParser) parseRequestLine(line []byte) (r request, http10 bool, err error) {
	method, rest, ok := bytes.Cut(line, []byte(" "))
	uri, version, ok2 := bytes.Cut(rest, []byte(" "))
	if !ok || !ok2 {
		return r, false, errInvalidRequest
	}
	r.rel = p.rel
	switch r.method = string(method); {
	case r.method == "GET" || r.method == "PUT" || r.method == "PATCH":
	case r.method == "DELETE" && p.rel.knows("DELETE /drives/*"): // older parsers have no such method
	default:
		return request{}, false, badRequest("Invalid HTTP Method: Unsupported HTTP method.")
	}
	switch {
	case len(uri) == 0:
		return request{}, false, badRequest("Invalid URI: Empty URI not allowed.")
	case !utf8.Valid(uri):
		return request{}, false, badRequest("Invalid URI: Cannot parse URI as UTF-8.")
	}
	r.uri = string(uri)
	switch string(version) {
	case "HTTP/1.0":
		http10 = true
	case "HTTP/1.1":
	default:
		return request{}, false, badRequest("Invalid HTTP Version: Unsupported HTTP version.")
	}
	return r, http10, nil
}

func (p *requestParser) header(at *int, end int) (more, ready, cont bool, err error) {
	i := bytes.Index(p.buf[*at:end], crlf)
	switch {
	case i < 0:
		if *at == 0 && end == readSize {
			return false, false, false, badRequest(fmt.Sprintf("Invalid header. Reason: Invalid content length. Header: %s",
				strings.ToValidUTF8(string(p.buf[:]), "\uFFFD")))
		}
		p.shift(*at, end)
		return false, false, false, nil
	case i > 0:
		if err := p.headerLine(p.buf[*at : *at+i]); err != nil {
			return false, false, false, err
		}
		*at += i + len(crlf)
		return true, false, false, nil
	}
	if p.length == 0 {
		*at += len(crlf)
		return true, true, false, nil
	}
	if uint64(p.length) > uint64(p.maxBody) {
		return false, false, false, badRequest(fmt.Sprintf("Request payload with size %d is larger than the limit of %d allowed by server.",
			p.length, p.maxBody))
	}
	*at += len(crlf)
	p.state, p.body = wantBody, []byte{}
	return true, false, p.expect, nil
}

func (p *requestParser) headerLine(line []byte) error {
	if !utf8.Valid(line) {
		return badRequest("Invalid header. Reason: Header contains invalid characters. Key: " + strings.ToValidUTF8(string(line), "\uFFFD"))
	}
	name, value, ok := strings.Cut(string(line), ":")
	if !ok {
		return badRequest("Invalid header. Reason: Header is incorrectly formatted. Key: " + name)
	}
	trimmed := strings.TrimSpace(value)
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "content-length":
		n, err := strconv.ParseUint(strings.TrimPrefix(trimmed, "+"), 10, 32)
		if err != nil {
			return badRequest(fmt.Sprintf("Invalid header. Reason: Invalid value. Key:%s; Value:%s", name, value))
		}
		p.length = uint32(n)
	case "expect":
		if trimmed == "100-continue" {
			p.expect = true
		}
	case "accept-encoding":
		return checkAcceptEncoding(trimmed)
	}
	return nil
}

// checkAcceptEncoding refuses clients that refuse plain answers.
func checkAcceptEncoding(value string) error {
	if value == "" {
		return errInvalidRequest
	}
	for _, e := range strings.Split(value, ",") {
		e = strings.TrimSpace(e)
		if e == "identity;q=0" || e == "*;q=0" && !strings.Contains(value, "identity") {
			return badRequest(fmt.Sprintf("Invalid header. Reason: Invalid value. Key:Accept-Encoding; Value:%s", e))
		}
	}
	return nil
}

// takeBody takes what there is of the body, and says whether that is all.
func (p *requestParser) takeBody(at *int, end int) bool {
	missing := int(p.length) - len(p.body)
	if have := end - *at; missing > have {
		p.body = append(p.body, p.buf[*at:end]...)
		p.cursor = 0
		return false
	}
	p.body = append(p.body, p.buf[*at:*at+missing]...)
	*at += missing
	return true
}
