package fcemu

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// latest is the newest release.
func latest(t testing.TB) release {
	rel, err := parseRelease(newestRelease)
	if err != nil {
		t.Fatal(err)
	}
	return rel
}

// FuzzBody: whatever a body holds, decoding neither panics nor takes what the
// standard library takes for no JSON, and what was taken is written back as
// JSON.
func FuzzBody(f *testing.F) {
	for _, s := range []string{`{"vcpu_count":1,"mem_size_mib":128}`, `[1,2,null]`, `"\ud83d\ude00"`, `1e400`, `-0`, `{"a":{"b":[]}}`, "\xff", `{"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"File"}}`} {
		f.Add([]byte(s))
	}
	rel := latest(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := parseJSON(body)
		if err == nil {
			if !json.Valid(body) {
				t.Fatalf("took %q", body)
			}
			out := appendValue(nil, n)
			if !json.Valid(out) {
				t.Fatalf("%q became %q", body, out)
			}
			again, err := parseJSON(out)
			if err != nil || !bytes.Equal(appendValue(nil, again), out) {
				t.Fatalf("%q is not stable: %v", out, err)
			}
		}
		for _, path := range []string{"machine-config", "drives/d", "network-interfaces/e", "snapshot/load", "snapshot/create", "cpu-config", "mmds/config", "vsock", "balloon", "serial", "logger", "pmem/p", "hotplug/memory", "actions"} {
			for _, method := range []string{"PUT", "PATCH"} {
				if _, f := route(request{method: method, uri: "/" + path, body: body, rel: &rel}); f != nil && f.msg == "" {
					t.Fatal("a fault without a text")
				}
			}
		}
		// Faults need not be UTF-8; anything else is the parser's to judge.
		_ = decodeBody(&rel, body, setFileConfig(&fileConfig{}))
	})
}

// FuzzRequests: the parser takes any bytes in any pieces, and whole requests
// come out the same however they were cut.
func FuzzRequests(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint16(3))
	f.Add([]byte("PUT /a HTTP/1.0\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbodyGET / HTTP/1.1\r\n\r\n"), uint16(7))
	f.Add([]byte("GET / HTTP/1.1\r\nAccept-Encoding: identity;q=0\r\n\r\n"), uint16(1))
	f.Add([]byte(strings.Repeat("x", 3000)), uint16(500))
	rel := latest(f)
	f.Fuzz(func(t *testing.T, in []byte, piece uint16) {
		feed := func(max int) (done []request, failed bool) {
			p := &requestParser{maxBody: 1000, rel: &rel}
			for rest := in; len(rest) > 0; {
				room := p.space()
				if len(room) == 0 {
					t.Fatal("no room for the next bytes")
				}
				n := copy(room[:min(len(room), max)], rest)
				rest = rest[n:]
				got, _, err := p.feed(n)
				if err != nil {
					if err.Error() == "" || len(got) > 0 {
						t.Fatalf("%v with %d requests", err, len(got))
					}
					return done, true
				}
				done = append(done, got...)
			}
			return done, false
		}
		cut, failed := feed(int(piece)%readSize + 1)
		whole, failedWhole := feed(readSize)
		if failed || failedWhole {
			return // which requests a fault drops depends on the pieces
		}
		if len(cut) != len(whole) {
			t.Fatalf("%d requests in pieces, %d at once", len(cut), len(whole))
		}
		for i := range cut {
			if cut[i].method != whole[i].method || cut[i].uri != whole[i].uri || !bytes.Equal(cut[i].body, whole[i].body) {
				t.Fatalf("request %d: %v in pieces, %v at once", i, cut[i], whole[i])
			}
		}
	})
}

// FuzzState: a state file is hostile; what is taken holds what engines rely on.
func FuzzState(f *testing.F) {
	path := filepath.Join(f.TempDir(), "state")
	cfg := Config{Machine: MachineConfig{VCPUCount: 1, MemSizeMiB: 1, HugePages: "None"}}
	if err := WriteState(path, "null", &cfg, strings.NewReader("blob"), 4); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:20])
	f.Add([]byte(stateMagic))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, at, err := parseState(bytes.NewReader(in), int64(len(in)))
		if err != nil {
			return
		}
		if at < stateFixed || at > int64(len(in))-8 {
			t.Fatalf("the engine's part begins at %d of %d bytes", at, len(in))
		}
		if m := s.Config.Machine; m.VCPUCount < 1 || m.VCPUCount > maxVCPUs || m.MemSizeMiB < 1 {
			t.Fatalf("took %+v", m)
		}
	})
}

// FuzzFaults: no order of faults is taken that could not be met or has no
// bounds, and taking it again gives the same.
func FuzzFaults(f *testing.F) {
	for _, s := range []string{"", "delay=2s:PUT /actions:1", "drop:/snapshot/load, die=mid:* *", "half-reply:GET /*", "status=404:/drives/*:7", "hang:*", "swallow:PUT /drives/rootfs"} {
		f.Add(s, "/drives/rootfs")
	}
	f.Fuzz(func(t *testing.T, text, path string) {
		all, err := parseMishaps(text)
		if err != nil {
			return
		}
		for _, m := range all {
			if m.delay < 0 || m.delay > maxDelay || m.nth < 0 || m.nth > maxNth || m.kind == "" || !meet(m.path, m.path) {
				t.Fatalf("%q became %+v", text, m)
			}
			again, err := parseMishaps(m.text)
			if err != nil || len(again) != 1 || *again[0] != *m {
				t.Fatalf("%q again: %v, %v", m.text, again, err)
			}
			if matches(m.path, path) && !meet(m.path, path) {
				t.Fatalf("%q matches %q, and can't", m.path, path)
			}
		}
		due(all, request{method: "PUT", uri: path})
		for _, m := range all {
			if m.seen > 1 {
				t.Fatalf("%q: counted %d times", m.text, m.seen)
			}
		}
	})
}
