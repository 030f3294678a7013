package fcemu_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

const (
	get     = "GET / HTTP/1.1\r\n\r\n"
	machine = `{"vcpu_count":2,"mem_size_mib":64}`
)

func put(path, headers, body string) string {
	return fmt.Sprintf("PUT %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s", path, headers, len(body), body)
}

// statuses sends bytes over a new connection and reads the statuses of the
// answers up to one that a GET /version sent behind them gets. The bytes must
// leave the parser at the begin of a request.
func (v *vmm) statuses(bytes string) []int {
	v.t.Helper()
	c := v.dial()
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		v.t.Fatal(err)
	}
	if _, err := io.WriteString(c, bytes); err != nil {
		v.t.Fatal(err)
	}
	r := bufio.NewReader(c)
	var got []int
	sent := false
	for {
		a, err := readAnswer(r)
		if err != nil {
			v.t.Fatalf("after %v: %v", got, err)
		}
		if strings.Contains(a.body, "firecracker_version") {
			return got
		}
		if got = append(got, a.status); !sent {
			// Only now, lest a fault in the same read drops it.
			sent = true
			if _, err := io.WriteString(c, "GET /version HTTP/1.1\r\n\r\n"); err != nil {
				v.t.Fatal(err)
			}
		}
	}
}

func TestOddHTTPIsAnsweredAsTheOriginalAnswersIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, bytes string
		want        []int
	}{
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", []int{200}},
		{"a wish to close is ignored", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", []int{200}},
		{"POST", "POST / HTTP/1.1\r\n", []int{400}},
		{"HEAD", "HEAD / HTTP/1.1\r\n", []int{400}},
		{"lower case", "get / HTTP/1.1\r\n", []int{400}},
		{"HTTP/2.0", "GET / HTTP/2.0\r\n", []int{400}},
		{"no version", "GET /\r\n", []int{400}},
		{"two blanks", "GET  / HTTP/1.1\r\n", []int{400}},
		{"no URI", "GET  HTTP/1.1\r\n", []int{400}},
		{"a URI that is not UTF-8", "GET /\xff HTTP/1.1\r\n", []int{400}},
		{"an empty line first", "\r\n", []int{400}},
		{"a length that is no number", "PUT / HTTP/1.1\r\nContent-Length: abc\r\n", nil},
		{"the longest body", put("/mmds", "", `{"a":"`+strings.Repeat("x", 51200-8)+`"}`), []int{204}},
		{"a long header", "GET / HTTP/1.1\r\nA: " + strings.Repeat("x", 1000) + "\r\n\r\n", []int{200}},
		{"many headers", "GET / HTTP/1.1\r\n" + strings.Repeat("H: "+strings.Repeat("y", 80)+"\r\n", 60) + "\r\n", []int{200}},
		{"a body after its length", "PUT /machine-config HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", []int{400}},
		{"a length of 0 is no body", "PUT /machine-config HTTP/1.1\r\nContent-Length: 0\r\n\r\n", []int{400}},
		{"the last of two lengths", "PUT /machine-config HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 34\r\n\r\n" + machine, []int{204}},
		{"header names in any case", "PUT /machine-config HTTP/1.1\r\nCONTENT-LENGTH:34\r\n\r\n" + machine, []int{204}},
		{"content types are ignored", put("/machine-config", "Content-Type: text/xml\r\n", machine), []int{204}},
		{"100 first", put("/machine-config", "Expect: 100-continue\r\n", machine), []int{100, 204}},
		{"another expectation is ignored", put("/machine-config", "Expect: foo\r\n", machine), []int{204}},
		{"pipelined", get + put("/machine-config", "", machine) + get, []int{200, 204, 200}},
		{"what is unanswered before a fault is dropped", get + get + "FOO\r\n", []int{400}},
		{"gzip", "GET / HTTP/1.1\r\nAccept-Encoding: gzip, deflate\r\n\r\n", []int{200}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := either(t)
			if c.want == nil { // the parser still waits for the rest of the headers
				a, err := v.send(c.bytes)
				if err != nil || a.status != 400 {
					t.Fatalf("%v, %v", a, err)
				}
				return
			}
			if got := v.statuses(c.bytes); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("statuses %v, want %v", got, c.want)
			}
		})
	}
}

func TestARequestMayComeInPieces(t *testing.T) {
	t.Parallel()
	v := either(t)
	whole := put("/machine-config", "Expect: nothing\r\n", machine)
	for i := range len(whole) - 1 {
		if _, err := io.WriteString(v.conn, whole[i:i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if a, err := v.send(whole[len(whole)-1:]); err != nil || a.status != 204 {
		t.Fatalf("%v, %v", a, err)
	}
}

func TestAnAnswerHasTheOriginalsHeadersInItsOrder(t *testing.T) {
	t.Parallel()
	v := either(t)
	if _, err := io.WriteString(v.conn, put("/machine-config", "", machine)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"HTTP/1.1 204 \r\n", "Server: Firecracker API\r\n", "Connection: keep-alive\r\n", "\r\n"} {
		if got, err := v.answers.ReadString('\n'); err != nil || got != want {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
	}
	if _, err := io.WriteString(v.conn, put("/machine-config", "", `{"cpu_template":"T2"}`)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"HTTP/1.1 400 \r\n", "Server: Firecracker API\r\n", "Connection: keep-alive\r\n", "Content-Type: application/json\r\n", "Content-Length: "} {
		got, err := v.answers.ReadString('\n')
		if err != nil || !strings.HasPrefix(got, want) {
			t.Fatalf("%q, %v, want %q", got, err, want)
		}
	}
}

func TestABodyOverTheLimitIsRefusedBeforeItComes(t *testing.T) {
	t.Parallel()
	v := either(t, "--http-api-max-payload-size", "100")
	a, err := v.send("PUT /mmds HTTP/1.1\r\nContent-Length: 101\r\nExpect: 100-continue\r\n\r\n")
	if err != nil || a.status != 400 || !strings.Contains(a.body, "101") {
		t.Fatalf("%v, %v, want a 400 and no 100", a, err)
	}
	// The body's bytes are taken for what comes next in a request.
	if a, err = v.send(strings.Repeat("x", 99) + "\r\n"); err != nil || a.status != 400 {
		t.Fatalf("%v, %v", a, err)
	}
	if got := v.statuses(put("/mmds", "", `{"a":"`+strings.Repeat("x", 92)+`"}`)); fmt.Sprint(got) != "[204]" {
		t.Errorf("a body at the limit: %v", got)
	}
}

func TestTheEleventhConnectionIsTurnedAway(t *testing.T) {
	t.Parallel()
	v := either(t)
	v.must("GET", "/", "") // the first is accepted
	conns := []net.Conn{v.conn}
	for len(conns) < 10 {
		c := v.dial()
		conns = append(conns, c)
		if _, err := io.WriteString(c, get); err != nil {
			t.Fatal(err)
		}
		if a, err := readAnswer(bufio.NewReader(c)); err != nil || a.status != 200 {
			t.Fatalf("connection %d: %v, %v", len(conns), a, err)
		}
	}
	extra := v.dial()
	b, err := io.ReadAll(extra)
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 503\r\n") || !strings.Contains(string(b), "Connection: close") {
		t.Errorf("the eleventh connection got %q, %v", b, err)
	}
	conns[9].Close()
	// Its place is free as soon as the VMM has seen the end of it.
	deadline := time.Now().Add(patience)
	for {
		c := v.dial()
		if _, err := io.WriteString(c, get); err == nil {
			if a, err := readAnswer(bufio.NewReader(c)); err == nil && a.status == 200 {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("no place gets free")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestARequestWhoseSenderHasGoneIsNotExecuted(t *testing.T) {
	t.Parallel()
	v := either(t)
	for range 20 {
		c := v.dial().(*net.UnixConn)
		// In one write with the end of the stream, so that both are there
		// when the VMM looks.
		if _, err := io.WriteString(c, put("/machine-config", "", `{"vcpu_count":2,"mem_size_mib":64`)); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	v.walk([]step{{"GET", "/machine-config", "", 200, `"vcpu_count":1`}})
}

func TestTheSocketStaysBehindAndIsNotTakenOver(t *testing.T) {
	t.Parallel()
	v := start(t)
	dir := v.dir
	v.stop()
	if st, err := os.Lstat(dir + "/api.sock"); err != nil || st.Mode().Type() != os.ModeSocket {
		t.Fatalf("the socket after the end: %v, %v", st, err)
	}
	if _, err := net.Dial("unix", dir+"/api.sock"); err == nil {
		t.Error("the socket is still served")
	}
	p := process(t, dir, "--api-sock", "DIR/api.sock")
	if code := p.Run(t.Context()); code != 1 {
		t.Errorf("exit code %d on a socket in use, want 1", code)
	}
	if _, err := os.Lstat(dir + "/api.sock"); errors.Is(err, os.ErrNotExist) {
		t.Error("the other process's socket was removed")
	}
}
