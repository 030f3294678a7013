package fcapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Request is one call of the API as data.
type Request struct {
	// Method is GET, PUT, PATCH or DELETE.
	Method string
	// Path is the endpoint, such as "/drives/rootfs".
	Path string
	// Body is encoded as JSON; nil means no body, which is the only choice for
	// GET and DELETE.
	Body any
}

// String returns method and path.
func (r Request) String() string { return r.Method + " " + r.Path }

// maxPath keeps the request line within the 1,024 bytes that Firecracker reads.
const maxPath = 1000

// check refuses what would be understood otherwise than meant: Firecracker
// decodes no percent escapes, ignores surplus path segments (DELETE
// /drives/a/b unplugs a) and takes the bytes of an unexpected body for the
// next request.
func (r Request) check() error {
	switch r.Method {
	case http.MethodPut, http.MethodPatch:
	case http.MethodGet, http.MethodDelete:
		if r.Body != nil {
			return fmt.Errorf("%w: %s has a body", ErrInvalidRequest, r)
		}
	default:
		return fmt.Errorf("%w: method %q is not one of GET, PUT, PATCH, DELETE", ErrInvalidRequest, r.Method)
	}
	if len(r.Path) > maxPath {
		return fmt.Errorf("%w: path of %d bytes is longer than %d", ErrInvalidRequest, len(r.Path), maxPath)
	}
	rest, ok := strings.CutPrefix(r.Path, "/")
	if !ok {
		return fmt.Errorf("%w: path %q does not begin with /", ErrInvalidRequest, r.Path)
	}
	if rest == "" {
		return nil
	}
	segments := strings.Split(rest, "/")
	switch segments[0] {
	case "drives", "network-interfaces", "pmem":
		if len(segments) != 2 || !validID(segments[1]) {
			id := strings.TrimPrefix(strings.TrimPrefix(rest, segments[0]), "/")
			if raw, err := url.PathUnescape(id); err == nil {
				id = raw
			}
			return fmt.Errorf("%w: %s /%s: id %q must be made of one or more of A-Z, a-z, 0-9 and _", ErrInvalidRequest, r.Method, segments[0], id)
		}
		return nil
	}
	for _, s := range segments {
		if s == "" || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz-") != "" {
			return fmt.Errorf("%w: path %q has a segment that no endpoint has: %q", ErrInvalidRequest, r.Path, s)
		}
	}
	return nil
}

// validID is Firecracker's rule for the ids of devices, less its letters
// outside ASCII, which do not survive every HTTP layer.
func validID(id string) bool {
	for i := range len(id) {
		c := id[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_') {
			return false
		}
	}
	return id != ""
}

// devicePath is the path of a device. Escaping keeps a wrong id from becoming
// another path; check then refuses it.
func devicePath(kind, id string) string {
	return "/" + kind + "/" + url.PathEscape(id)
}

// body checks the request and returns its body as JSON, nil when it has none.
func (r Request) body() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	if r.Body == nil {
		return nil, nil
	}
	body, err := json.Marshal(r.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: encode body: %w", ErrInvalidRequest, r, err)
	}
	// A path that is not UTF-8 would silently become another path. What goes
	// into the MMDS is the user's own JSON.
	if r.Path != "/mmds" && replacedBytes(body) {
		return nil, fmt.Errorf("%w: %s: a string in the body is not valid UTF-8", ErrInvalidRequest, r)
	}
	return body, nil
}

// message returns the request as bytes for the wire. The headers are those that
// Firecracker understands and no others; a body always has a Content-Length.
func (r Request) message(body []byte) []byte {
	msg := make([]byte, 0, 128+len(r.Path)+len(body))
	msg = append(msg, r.Method...)
	msg = append(msg, ' ')
	msg = append(msg, r.Path...)
	msg = append(msg, " HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"...)
	if r.Method == http.MethodPut || r.Method == http.MethodPatch {
		if r.Body != nil {
			msg = append(msg, "Content-Type: application/json\r\n"...)
		}
		msg = append(msg, "Content-Length: "...)
		msg = strconv.AppendInt(msg, int64(len(body)), 10)
		msg = append(msg, "\r\n"...)
	}
	msg = append(msg, "\r\n"...)
	return append(msg, body...)
}

// replacedBytes reports whether encoding/json had to replace bytes that were
// not UTF-8: it writes those as an escape, and a genuine U+FFFD as it is.
func replacedBytes(body []byte) bool {
	escape := []byte(`\ufffd`)
	for off := 0; ; {
		i := bytes.Index(body[off:], escape)
		if i < 0 {
			return false
		}
		at := off + i
		before := body[:at]
		if (len(before)-len(bytes.TrimRight(before, `\`)))%2 == 0 {
			return true
		}
		off = at + len(escape)
	}
}
