package fcapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

var (
	// ErrClosed is behind the error of a call on a closed Client, and of a
	// call that Close interrupted.
	ErrClosed = errors.New("client is closed")
	// ErrProtocol is behind the error of a call whose answer is not one that
	// Firecracker gives: malformed, endless, of another HTTP server.
	ErrProtocol = errors.New("not an answer of Firecracker")
	// ErrInvalidRequest is behind the error of a request that was not sent
	// because it could not have been understood as meant.
	ErrInvalidRequest = errors.New("invalid request")
	// ErrUnsupported is behind the error of a request that was not sent because
	// the VMM's release does not understand it. The error is an
	// *UnsupportedError.
	ErrUnsupported = errors.New("not supported by Firecracker")
	// ErrInvalidVersion is behind the error of ParseVersion.
	ErrInvalidVersion = errors.New("not a version of Firecracker")
)

// maxFault bounds Error.Fault, in bytes.
const maxFault = 8 << 10

// Error is an answer with a status of 400 or more.
type Error struct {
	Method string
	Path   string
	// Status is 400 for nearly everything, 413 when the MMDS contents exceed
	// their limit, 503 when the VMM has 10 connections already.
	Status int
	// Fault is Firecracker's explanation, or the bounded text of the answer
	// where that has another shape. Texts differ between releases: for people,
	// not for matching. It can quote parts of the request.
	Fault string
}

func (e *Error) Error() string {
	fault := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, e.Fault)
	if fault == "" {
		fault = "no fault text"
	}
	return fmt.Sprintf("%s %s: %d: %s", e.Method, e.Path, e.Status, fault)
}

// ConnError is a call that got no proper answer.
type ConnError struct {
	Method string
	Path   string
	// Sent is false when no byte of the request was written: the VMM has not
	// seen it, and it can be tried again. When true, the VMM may have carried
	// it out, may do so later, or never.
	Sent bool
	Err  error
}

func (e *ConnError) Error() string {
	return fmt.Sprintf("%s %s: %v", e.Method, e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *ConnError) Unwrap() error { return e.Err }

// parseFault gets the text out of the body of a failed answer. api tells that
// the body has the shape of Firecracker's API level; the HTTP parser below it
// has another ({"error": …}, with raw newlines in the string, so not JSON),
// after which the rest of the stream can't be trusted.
func parseFault(body []byte) (text string, api bool) {
	var fault struct {
		FaultMessage *string `json:"fault_message"`
		Error        *string `json:"error"`
	}
	err := json.Unmarshal(body, &fault)
	if err != nil {
		// Raw control characters mean nothing outside strings and make JSON
		// invalid inside them: a space serves in both places.
		flat := bytes.Map(func(r rune) rune {
			if r < ' ' {
				return ' '
			}
			return r
		}, body)
		err = json.Unmarshal(flat, &fault)
	}
	switch {
	case err == nil && fault.FaultMessage != nil:
		return boundFault(*fault.FaultMessage), true
	case err == nil && fault.Error != nil:
		return boundFault(*fault.Error), false
	default:
		return boundFault(string(body)), false
	}
}

func boundFault(s string) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "\uFFFD")
	if len(s) <= maxFault {
		return s
	}
	cut := maxFault
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
