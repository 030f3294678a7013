package fcemu_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm/fcemu"
)

// What the client sees of each fault, whether the request was carried out, and
// how the process ends.
func TestEachFaultDoesWhatItSays(t *testing.T) {
	t.Parallel()
	for fault, want := range map[string]struct {
		status int // 0: no whole answer
		begins string
		done   bool
		code   int // -1: it lives on
	}{
		"delay=20ms":  {204, "", true, -1},
		"drop":        {0, "", false, -1},
		"drop=before": {0, "", false, -1},
		"drop=after":  {0, "", true, -1},
		"half-reply":  {0, "HTTP/1.1 204 \r\n", true, -1},
		"status":      {500, "", false, -1},
		"status=403":  {403, "", false, -1},
		"swallow":     {204, "", false, -1},
		"die":         {0, "", false, fcemu.ExitAbort},
		"die=before":  {0, "", false, fcemu.ExitAbort},
		"die=mid":     {0, "HTTP/1.1 204 \r\n", true, fcemu.ExitAbort},
		"die=after":   {204, "", true, fcemu.ExitAbort},
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			v := start(t, "--fault", fault+":PUT /machine-config")
			began := time.Now()
			seen := exchange(t, v.conn, put("/machine-config", "", `{"vcpu_count":2,"mem_size_mib":64}`), want.status != 0 && want.code < 0)
			if took := time.Since(began); fault == "delay=20ms" && took < 20*time.Millisecond {
				t.Errorf("answered after %v", took)
			}
			whole := strings.HasSuffix(seen, "\r\n\r\n") || strings.HasSuffix(seen, "}")
			switch {
			case want.status != 0:
				if head := strings.SplitN(seen, " ", 3); len(head) < 3 || !whole || head[1] != map[int]string{204: "204", 403: "403", 500: "500"}[want.status] {
					t.Errorf("answer %q, want %d", seen, want.status)
				}
				if want.status >= 400 && !strings.Contains(seen, `{"fault_message":"Ordered by the fault `) {
					t.Errorf("answer %q", seen)
				}
			case whole || !strings.HasPrefix(seen, want.begins) || want.begins == "" && seen != "":
				t.Errorf("answer %q, want a beginning of it: %q", seen, want.begins)
			}
			if want.code >= 0 {
				if code := v.exit(); code != want.code {
					t.Errorf("exit code %d, want %d", code, want.code)
				}
			} else if done := strings.Contains(exchange(t, v.dial(), "GET /machine-config HTTP/1.1\r\n\r\n", true), `"vcpu_count":2`); done != want.done {
				t.Errorf("carried out: %v, want %v", done, want.done)
			}
			if log := v.file("log"); !strings.Contains(log, `the fault "`+fault+`:PUT /machine-config" was ordered`) ||
				strings.Contains(log, "received a Put request on") != (want.done && fault != "die") {
				t.Errorf("log: %s", log)
			}
			if !strings.Contains(v.file("stderr"), "faults were ordered: "+fault) {
				t.Errorf("standard error: %s", v.file("stderr"))
			}
		})
	}
}

// exchange sends bytes and reads one answer, or all that comes until the
// connection is closed.
func exchange(t *testing.T, c net.Conn, bytes string, kept bool) string {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, bytes); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		b.Write(buf[:n])
		if kept && (strings.HasSuffix(b.String(), "}") || strings.HasSuffix(b.String(), "keep-alive\r\n\r\n")) {
			return b.String()
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("read: %v", err)
			}
			return b.String()
		}
	}
}

func TestHalfAnAnswerHasAllHeadersAndHalfABody(t *testing.T) {
	t.Parallel()
	v := start(t, "--fault", "half-reply:/version")
	seen := exchange(t, v.conn, "GET /version HTTP/1.1\r\n\r\n", false)
	head, body, ok := strings.Cut(seen, "\r\n\r\n")
	if !ok || !strings.Contains(head, "Content-Length: ") || !strings.HasPrefix(body, `{"firecracker_version`) || strings.HasSuffix(body, "}") {
		t.Errorf("%q", seen)
	}
}

func TestAHangKeepsEveryRequestWaiting(t *testing.T) {
	t.Parallel()
	v := start(t, "--fault", "hang:PATCH /vm")
	other := v.dial()
	for _, c := range []net.Conn{v.conn, other} {
		if _, err := io.WriteString(c, "PATCH /vm HTTP/1.1\r\nContent-Length: 18\r\n\r\n{\"state\":\"Paused\"}"); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []net.Conn{v.conn, other} {
		if err := c.SetReadDeadline(time.Now().Add(30 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		var timeout net.Error
		if n, err := c.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	v.stop() // it can be ended all the same
}

func TestAFaultWithANumberBefallsThatRequestOnly(t *testing.T) {
	t.Parallel()
	v := start(t, "--fault", "status=500:/vm*:2, status=501:PUT /machine-config:1,status=502:/machine-config")
	v.walk([]step{
		{"GET", "/vm/config", "", 200, ""},
		{"PUT", "/machine-config", `{"vcpu_count":2,"mem_size_mib":64}`, 501, ""},
		{"GET", "/vm/config", "", 500, ""},
		{"GET", "/vm/config", "", 200, `"vcpu_count":1`},
		{"PUT", "/machine-config", `{"vcpu_count":2,"mem_size_mib":64}`, 502, ""},
		{"GET", "/machine-config", "", 502, ""},
		{"GET", "/", "", 200, ""},
	})
}

func TestFaultsThatCantBeAreRefused(t *testing.T) {
	t.Parallel()
	for fault, says := range map[string]string{
		"x":                         `fault 1 of 1, "x": want KIND[=VALUE]:[METHOD ]PATH[:N]`,
		"drop:/vm,":                 `fault 2 of 2, ""`,
		"drop:/vm,dely:/vm":         `fault 2 of 2, "dely:/vm": kind "dely": want one of delay, die, drop, half-reply, hang, status, swallow`,
		"delay=0s:/vm":              `value "0s" of delay: want a time such as 250ms, above 0 and up to 1h`,
		"delay=2h:/vm":              `value "2h" of delay`,
		"die=late:/vm":              `value "late" of die: want before, mid or after`,
		"drop=mid:/vm":              `value "mid" of drop: want before or after`,
		"status=204:/vm":            `value "204" of status: want a status from 400 to 599`,
		"hang=1s:/vm":               `value "1s": hang takes none`,
		"drop:POST /vm":             `method "POST": want GET, PUT, PATCH, DELETE or none, for all`,
		"drop:vm":                   `path "vm": want one that begins with /`,
		"drop:/*/*":                 `path "/*/*": want at most one *`,
		"drop:/snapshot/restore":    `endpoint "/snapshot/restore": Firecracker has none like it`,
		"drop:PUT /vm":              `endpoint "PUT /vm": Firecracker has none like it`,
		"drop:/vm:0":                `number "0": want 1, for the first such request, to 1000000`,
		"drop:/vm:first":            `number "first"`,
		"drop:/vm:1:2":              `want KIND[=VALUE]:[METHOD ]PATH[:N]`,
		"swallow:PATCH /vm/config ": `endpoint "PATCH /vm/config": Firecracker has none like it`,
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			dir := shortDir(t)
			p := process(t, dir, "--api-sock", "DIR/api.sock")
			p.Fault = fault
			if code := p.Run(t.Context()); code != 153 {
				t.Errorf("exit code %d, want 153", code)
			}
			b := strings.ReplaceAll((&vmm{t: t, dir: dir}).file("stderr"), `\"`, `"`)
			if !strings.Contains(b, strings.ReplaceAll(says, `\"`, `"`)) {
				t.Errorf("standard error: %s", b)
			}
		})
	}
}

func TestTheFlagWinsOverTheEnvironment(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	p := process(t, dir, "--fault", "drop:/vm", "--version")
	p.Fault = "nonsense"
	if code := p.Run(t.Context()); code != 153 {
		t.Errorf("%d: --version hides the flags, not the environment", code)
	}
	p = process(t, dir, "--fault", "drop:/vm", "--snapshot-version")
	p.Fault = "nonsense"
	if code := p.Run(t.Context()); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
