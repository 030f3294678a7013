package fcapi

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

const (
	maxLine    = 4 << 10  // of a header, in bytes: the size of the read buffer
	maxHeaders = 32 << 10 // of one answer with its interim answers, in bytes
	maxBody    = 4 << 20  // of one answer, in bytes
)

// response is an answer, read to its end.
type response struct {
	status int
	body   []byte
	fault  string // of a status >= 400
	keep   bool   // the connection can serve another call
}

// readResponse reads one answer. It reads no further than the answer's end, at
// most maxHeaders + maxBody bytes.
func readResponse(br *bufio.Reader) (response, error) {
	budget := maxHeaders
	for {
		h, err := readHeader(br, &budget)
		if err != nil {
			return response{}, err
		}
		if h.status < 200 { // 100 Continue and its like
			continue
		}
		return readBody(br, h)
	}
}

type header struct {
	status    int
	length    int64 // -1: none
	keepAlive bool
}

func readHeader(br *bufio.Reader, budget *int) (header, error) {
	line, err := readLine(br, budget)
	if err != nil {
		return header{}, err
	}
	h := header{length: -1}
	h.status, h.keepAlive, err = parseStatus(line)
	if err != nil {
		return header{}, err
	}
	for {
		line, err := readLine(br, budget)
		if err != nil {
			return header{}, err
		}
		if len(line) == 0 {
			return h, nil
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return header{}, fmt.Errorf("%w: header line %q without colon", ErrProtocol, clip(line))
		}
		value = bytes.TrimSpace(value)
		switch {
		case isHeader(name, "Content-Length"):
			n, err := parseLength(value)
			if err != nil {
				return header{}, err
			}
			if h.length >= 0 && h.length != n {
				return header{}, fmt.Errorf("%w: Content-Length is both %d and %d", ErrProtocol, h.length, n)
			}
			h.length = n
		case isHeader(name, "Transfer-Encoding"):
			return header{}, fmt.Errorf("%w: status %d with Transfer-Encoding %q: does another program listen on the socket?", ErrProtocol, h.status, clip(value))
		case isHeader(name, "Connection"):
			if strings.Contains(strings.ToLower(string(value)), "close") {
				h.keepAlive = false
			}
		}
	}
}

func isHeader(name []byte, want string) bool {
	return len(name) == len(want) && strings.EqualFold(string(name), want)
}

// parseStatus reads "HTTP/1.1 204 ": Firecracker's reason phrase is empty.
func parseStatus(line []byte) (status int, keepAlive bool, err error) {
	rest, ok := bytes.CutPrefix(line, []byte("HTTP/1."))
	if !ok || len(rest) < 5 || rest[0] != '0' && rest[0] != '1' || rest[1] != ' ' || len(rest) > 5 && rest[5] != ' ' {
		return 0, false, fmt.Errorf("%w: status line %q", ErrProtocol, clip(line))
	}
	for _, d := range rest[2:5] {
		if d < '0' || d > '9' {
			return 0, false, fmt.Errorf("%w: status line %q", ErrProtocol, clip(line))
		}
		status = status*10 + int(d-'0')
	}
	switch {
	case status < 100 || status > 599, status == http.StatusSwitchingProtocols, status/100 == 3:
		return 0, false, fmt.Errorf("%w: status %d", ErrProtocol, status)
	}
	return status, rest[0] == '1', nil
}

func parseLength(value []byte) (int64, error) {
	var n int64
	if len(value) == 0 || len(value) > 18 {
		return 0, fmt.Errorf("%w: Content-Length %q", ErrProtocol, clip(value))
	}
	for _, d := range value {
		if d < '0' || d > '9' {
			return 0, fmt.Errorf("%w: Content-Length %q", ErrProtocol, clip(value))
		}
		n = n*10 + int64(d-'0')
	}
	if n > maxBody {
		return 0, fmt.Errorf("%w: body of %d bytes is longer than %d", ErrProtocol, n, int64(maxBody))
	}
	return n, nil
}

func readBody(br *bufio.Reader, h header) (response, error) {
	// Without a length there is no body (Firecracker's 204), or one whose end
	// can't be told.
	res := response{status: h.status, keep: h.keepAlive && h.length >= 0}
	switch {
	case h.status == http.StatusNoContent:
		res.keep = h.keepAlive && h.length <= 0
	case h.length > 0:
		// A length is only a claim: memory grows with what comes.
		var body bytes.Buffer
		body.Grow(int(min(h.length, 64<<10)) + bytes.MinRead)
		if _, err := io.CopyN(&body, br, h.length); err != nil {
			return response{}, fmt.Errorf("answer with status %d ends after %d of %d bytes of body: %w", h.status, body.Len(), h.length, noEOF(err))
		}
		res.body = body.Bytes()
	}
	if res.status >= http.StatusBadRequest {
		api := false
		res.fault, api = parseFault(res.body)
		// After a fault of its HTTP parser Firecracker takes the rest of the
		// request for further requests and answers each.
		res.keep = res.keep && api
	}
	return res, nil
}

// readLine returns a line without its end. It is valid until the next read.
func readLine(br *bufio.Reader, budget *int) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	*budget -= len(line)
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("%w: header line longer than %d bytes", ErrProtocol, maxLine)
	case err != nil:
		return nil, fmt.Errorf("answer ends in its headers: %w", noEOF(err))
	case *budget < 0:
		return nil, fmt.Errorf("%w: headers longer than %d bytes", ErrProtocol, maxHeaders)
	}
	line = line[:len(line)-1]
	return bytes.TrimSuffix(line, []byte("\r")), nil
}

// noEOF names the end of a connection for what it is here: never a proper end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// clip bounds bytes that go into an error text.
func clip(b []byte) []byte { return b[:min(len(b), 80)] }
