package fcemu

import "strconv"

// response is an HTTP answer. A nil body means none at all.
type response struct {
	status     int
	body       []byte
	deprecated bool
	sent       extent
}

// extent is how much of an answer is sent; after less than all of it the
// connection is closed. Only faults on demand ask for less.
type extent byte

const (
	sentWhole extent = iota
	sentHalf
	sentNothing
)

// cut returns the part of a rendered answer that is sent: half of it is all of
// the headers and half of the body, where it has one.
func (r response) cut(out []byte) []byte {
	switch {
	case r.sent == sentNothing:
		return nil
	case r.body == nil:
		return out[:len(out)/2]
	}
	return out[:len(out)-(len(r.body)+1)/2]
}

// fullMessage is the bare answer to a connection too many.
const fullMessage = "HTTP/1.1 503\r\n" +
	"Server: Firecracker API\r\n" +
	"Connection: close\r\n" +
	"Content-Length: 40\r\n\r\n" +
	`{ "error": "Too many open connections" }`

func noContent() response { return response{status: 204} }

func okBody(body []byte) response { return response{status: 200, body: body} }

// faultBody is the shape of the API's own errors.
func faultResponse(status int, msg string) response {
	return response{status: status, body: []byte(`{"fault_message":` + quote(msg) + `}`)}
}

// parseFault is the shape of the HTTP parser's errors. The raw newline, which
// makes it invalid JSON, is the original's.
func parseFault(err error) response {
	return response{status: 400, body: []byte(`{ "error": "` + err.Error() +
		"\nAll previous unanswered requests will be dropped.\" }")}
}

// render writes an answer with the original's headers in its order and with
// its empty reason phrase.
func (r response) render(version string) []byte {
	out := make([]byte, 0, 192+len(r.body))
	out = append(out, version...)
	out = append(out, ' ')
	out = strconv.AppendInt(out, int64(r.status), 10)
	out = append(out, " \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n"...)
	if r.deprecated {
		out = append(out, "Deprecation: true\r\n"...)
	}
	if r.body != nil {
		out = append(out, "Content-Type: application/json\r\nContent-Length: "...)
		out = strconv.AppendInt(out, int64(len(r.body)), 10)
		out = append(out, "\r\n"...)
	}
	out = append(out, "\r\n"...)
	return append(out, r.body...)
}
