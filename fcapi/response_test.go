package fcapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestFaultsAreReadInEveryShape(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 20000)
	tests := map[string]struct {
		status int
		body   string
		fault  string
		keeps  bool // the connection
	}{
		"API fault":            {400, `{"fault_message":"The vCPUs \u003c 1."}`, "The vCPUs < 1.", true},
		"MMDS too large":       {413, `{"fault_message":"too large"}`, "too large", true},
		"HTTP parser fault":    {400, parserFault, "Invalid Header. All previous unanswered requests will be dropped.", false},
		"empty body":           {400, "", "", false},
		"text":                 {404, "404 page not found\n", "404 page not found", false},
		"JSON of other shape":  {400, `{"message":"x"}`, `{"message":"x"}`, false},
		"JSON of other type":   {400, `{"fault_message":7}`, `{"fault_message":7}`, false},
		"not UTF-8":            {500, "a\xffb", "a\uFFFDb", false},
		"long":                 {400, `{"fault_message":"` + long + `"}`, long[:maxFault] + "…", true},
		"empty fault":          {400, `{"fault_message":""}`, "", true},
		"fault beside another": {400, `{"fault_message":"a","error":"b"}`, "a", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, always(answer(tt.status, tt.body)))
			c := newClient(t, f)
			for range 2 {
				err := c.Pause(t.Context())
				var fe *Error
				if !errors.As(err, &fe) {
					t.Fatalf("err = %v, want *Error", err)
				}
				if want := (Error{"PATCH", "/vm", tt.status, tt.fault}); *fe != want {
					t.Errorf("got  %+v\nwant %+v", *fe, want)
				}
				if strings.ContainsAny(fe.Error(), "\n\r\x00") {
					t.Errorf("%q is not one line", fe.Error())
				}
			}
			want := int32(2)
			if tt.keeps {
				want = 1
			}
			if n := f.conns.Load(); n != want {
				t.Errorf("%d connections for two calls, want %d", n, want)
			}
		})
	}
}

func TestErrorTextNamesTheCallAndTheFault(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"PUT /actions: 400: no kernel":     &Error{"PUT", "/actions", 400, "no kernel"},
		"PUT /actions: 400: two lines":     &Error{"PUT", "/actions", 400, "two\nlines"},
		"PUT /actions: 400: no fault text": &Error{"PUT", "/actions", 400, ""},
		"GET /: client is closed":          &ConnError{"GET", "/", false, ErrClosed},
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err.Error(), want)
		}
	}
}

// odd are answers that Firecracker does not give, in part because something
// else listens on the socket.
var odd = map[string]struct {
	raw  string
	want error // behind the *ConnError; nil: the answer is good enough
}{
	"nothing":                     {"", io.ErrUnexpectedEOF},
	"half a status line":          {"HTTP/1.1 20", io.ErrUnexpectedEOF},
	"half the headers":            {"HTTP/1.1 200 \r\nServer: Fire", io.ErrUnexpectedEOF},
	"half a body":                 {"HTTP/1.1 200 \r\nContent-Length: 10\r\n\r\n{\"id", io.ErrUnexpectedEOF},
	"another protocol":            {"SSH-2.0-OpenSSH_9.2\r\n", ErrProtocol},
	"no line end":                 {strings.Repeat("x", 100000), ErrProtocol},
	"HTTP/2":                      {"HTTP/2 200 \r\n\r\n", ErrProtocol},
	"status of two digits":        {"HTTP/1.1 20 \r\n\r\n", ErrProtocol},
	"status of four digits":       {"HTTP/1.1 2000 \r\n\r\n", ErrProtocol},
	"status below 100":            {"HTTP/1.1 099 \r\n\r\n", ErrProtocol},
	"status above 599":            {"HTTP/1.1 600 \r\n\r\n", ErrProtocol},
	"redirection":                 {"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", ErrProtocol},
	"switch of protocol":          {"HTTP/1.1 101 \r\n\r\n", ErrProtocol},
	"header without colon":        {"HTTP/1.1 200 \r\nServer\r\n\r\n", ErrProtocol},
	"one endless header":          {"HTTP/1.1 200 \r\nServer: " + strings.Repeat("x", 1<<20), ErrProtocol},
	"endless headers":             {"HTTP/1.1 200 \r\n" + strings.Repeat("A: b\r\n", 1<<16), ErrProtocol},
	"endless interim answers":     {strings.Repeat("HTTP/1.1 100 \r\n\r\n", 1<<16), ErrProtocol},
	"chunked":                     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", ErrProtocol},
	"length that is negative":     {"HTTP/1.1 200 \r\nContent-Length: -1\r\n\r\n", ErrProtocol},
	"length that is signed":       {"HTTP/1.1 200 \r\nContent-Length: +2\r\n\r\n{}", ErrProtocol},
	"length that is empty":        {"HTTP/1.1 200 \r\nContent-Length: \r\n\r\n", ErrProtocol},
	"length beyond 64 bits":       {"HTTP/1.1 200 \r\nContent-Length: 18446744073709551618\r\n\r\n{}", ErrProtocol},
	"length beyond the bound":     {fmt.Sprintf("HTTP/1.1 200 \r\nContent-Length: %d\r\n\r\n{}", maxBody+1), ErrProtocol},
	"lengths that differ":         {"HTTP/1.1 200 \r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", ErrProtocol},
	"success without body":        {noContent, ErrProtocol},
	"body that is not JSON":       {answer(200, "<html>"), ErrProtocol},
	"body of another type":        {answer(200, `[1]`), ErrProtocol},
	"body of deep nesting":        {answer(200, strings.Repeat("[", 1<<20)), ErrProtocol},
	"endless body without length": {"HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("x", 1<<20), ErrProtocol},

	"interim answer first":      {"HTTP/1.1 100 \r\n\r\n" + answer(200, "{}"), nil},
	"reason phrase":             {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", nil},
	"status line without space": {"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}", nil},
	"bare line ends":            {"HTTP/1.1 200 \nContent-Length: 2\n\n{}", nil},
	"headers in small letters":  {"HTTP/1.1 200 \r\ncontent-length:2\r\n\r\n{}", nil},
	"equal lengths":             {"HTTP/1.1 200 \r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", nil},
	"deprecation":               {"HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nDeprecation: true\r\nContent-Length: 2\r\n\r\n{}", nil},
	"HTTP/1.0":                  {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", nil},
	"close":                     {"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\n{}", nil},
}

func TestOddAnswersAreErrorsOrGoodEnough(t *testing.T) {
	t.Parallel()
	for name, tt := range odd {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, func(r received, w net.Conn) error {
				_, err := io.WriteString(w, tt.raw)
				return errors.Join(io.EOF, err)
			})
			c := newClient(t, f)
			soon(t, "Describe", func() {
				info, err := c.Describe(t.Context())
				if tt.want == nil {
					if err != nil {
						t.Error(err)
					}
					return
				}
				var ce *ConnError
				if !errors.As(err, &ce) || !ce.Sent || !errors.Is(err, tt.want) {
					t.Errorf("err = %v, want a sent *ConnError of %v", err, tt.want)
				}
				if info != (InstanceInfo{}) {
					t.Errorf("an error came with %+v", info)
				}
				if n := len(fmt.Sprint(err)); n > 400 {
					t.Errorf("error text of %d bytes", n)
				}
			})
			if n := f.requests.Load(); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
		})
	}
}

// TestAnswerThatStallsHalfwayEndsWithTheContext covers the server that neither
// goes on nor hangs up.
func TestAnswerThatStallsHalfwayEndsWithTheContext(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string]string{
		"in the status line": "HTTP/1.1 2",
		"in the headers":     "HTTP/1.1 200 \r\nServer: Fi",
		"in the body":        "HTTP/1.1 200 \r\nContent-Length: 100\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t, func(r received, w net.Conn) error {
				_, err := io.WriteString(w, raw)
				return err
			})
			c := newClient(t, f)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			soon(t, "Describe", func() {
				_, err := c.Describe(ctx)
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("err = %v", err)
				}
			})
			if n := f.requests.Load(); n != 1 {
				t.Errorf("%d requests, want 1: half an answer must not be asked for again", n)
			}
		})
	}
}

func TestForeignHTTPServerIsRecognised(t *testing.T) {
	t.Parallel()
	f := newFake(t, nil)
	f.stop()
	ln, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/version" { // longer than its buffer: chunked
			io.WriteString(w, strings.Repeat(" ", 10000)+"{}")
			return
		}
		http.NotFound(w, r)
	})}
	go srv.Serve(ln)
	defer srv.Close()
	c := newClient(t, f)
	defer c.Close()

	err = c.Pause(t.Context())
	var fe *Error
	if !errors.As(err, &fe) || fe.Status != 404 || fe.Fault != "404 page not found" {
		t.Errorf("Pause: %v, want the 404", err)
	}
	if _, err := c.Version(t.Context()); !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), "chunked") {
		t.Errorf("Version: %v, want ErrProtocol naming the encoding", err)
	}
}

func TestLargestAnswerIsRead(t *testing.T) {
	t.Parallel()
	body := `"` + strings.Repeat("x", maxBody-2) + `"`
	f := newFake(t, always(answer(200, body)))
	c := newClient(t, f)
	raw, err := c.GetMMDS(t.Context())
	if err != nil || string(raw) != body {
		t.Errorf("%d bytes, %v, want %d", len(raw), err, len(body))
	}
}

// A length is a claim: it must not cost memory before the bytes come.
func TestClaimedLengthCostsNoMemory(t *testing.T) {
	raw := fmt.Sprintf("HTTP/1.1 200 \r\nContent-Length: %d\r\n\r\n{", maxBody)
	got := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := readResponse(bufio.NewReaderSize(strings.NewReader(raw), maxLine)); err == nil {
				b.Fatal("no error")
			}
		}
	})
	if n := got.AllocedBytesPerOp(); n > 256<<10 {
		t.Errorf("%d bytes allocated for 1 byte of body", n)
	}
}

// FuzzResponse feeds answers to the reader: it must not panic, nor read or
// return more than its bounds, and what it accepts it must accept again.
func FuzzResponse(f *testing.F) {
	for _, tt := range odd {
		if len(tt.raw) < 4096 {
			f.Add([]byte(tt.raw))
		}
	}
	f.Add([]byte(noContent))
	f.Add([]byte(answer(400, parserFault)))
	f.Add([]byte(answer(400, `{"fault_message":"x"}`) + noContent))
	f.Fuzz(func(t *testing.T, raw []byte) {
		src := strings.NewReader(string(raw))
		br := bufio.NewReaderSize(src, maxLine)
		res, err := readResponse(br)
		read := len(raw) - src.Len() - br.Buffered()
		if read > maxHeaders+maxLine+maxBody {
			t.Fatalf("%d bytes read", read)
		}
		if err != nil {
			if !errors.Is(err, ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("unexpected kind of error: %v", err)
			}
			if len(err.Error()) > 1000 {
				t.Fatalf("error text of %d bytes", len(err.Error()))
			}
			return
		}
		switch {
		case res.status < 200 || res.status > 599:
			t.Fatalf("status %d", res.status)
		case len(res.body) > maxBody || len(res.fault) > maxFault+len("…"):
			t.Fatalf("body of %d, fault of %d bytes", len(res.body), len(res.fault))
		case res.status < 400 && res.fault != "":
			t.Fatalf("status %d with fault %q", res.status, res.fault)
		}
		again, err := readResponse(bufio.NewReaderSize(strings.NewReader(string(raw[:read])), maxLine))
		if err != nil || again.status != res.status || string(again.body) != string(res.body) || again.keep != res.keep {
			t.Fatalf("the %d bytes read give %+v, %v, then %+v", read, again, err, res)
		}
	})
}
