package fcapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// things lists what a request holds, by another way than Supports.
func things(r Request, body any) []string {
	endpoint := r.endpoint()
	all := []string{endpoint}
	var walk func(prefix string, v any)
	walk = func(prefix string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, in := range v {
				all = append(all, prefix+name)
				if s, ok := in.(string); ok {
					all = append(all, prefix+name+"="+s)
				}
				if prefix+name != "PUT /metrics properties" {
					walk(prefix+name+".", in)
				}
			}
		case []any:
			for _, in := range v {
				walk(prefix, in)
			}
		}
	}
	if r.Path != "/mmds" {
		walk(endpoint+" ", body)
	}
	return all
}

func TestSupportsAgreesWithTheFilesOfEachRelease(t *testing.T) {
	t.Parallel()
	all := facts(t)
	last := all[len(all)-1]
	refused := 0
	for _, tt := range calls() {
		parts := strings.SplitN(tt.wire, " ", 3)
		r := Request{Method: parts[0], Path: parts[1]}
		var body any
		if parts[2] != "" {
			r.Body = json.RawMessage(parts[2])
			if err := json.Unmarshal([]byte(parts[2]), &body); err != nil {
				t.Fatal(err)
			}
		}
		if tt.request != nil {
			r = *tt.request
		}
		for _, f := range all {
			missing := ""
			for _, thing := range things(r, body) {
				// Values are facts only where the files list them.
				if !f.knows[thing] && (!strings.Contains(thing, "=") || last.knows[thing]) {
					missing = thing
				}
			}
			err := Supports(f.version, r)
			if (err == nil) != (missing == "") {
				t.Errorf("%s on %s: %v, missing is %q", tt.name, f.tag, err, missing)
			}
			if err == nil {
				continue
			}
			refused++
			e, ok := errors.AsType[*UnsupportedError](err)
			if !ok || !errors.Is(err, ErrUnsupported) || e.Have != f.version || len(e.Need) == 0 || releases(e.Need).has(f.version) {
				t.Errorf("%s on %s: %#v", tt.name, f.tag, err)
			}
		}
	}
	if refused < 100 {
		t.Errorf("only %d refusals", refused)
	}
}

func TestSupportsNamesWhatIsMissingAndBothReleases(t *testing.T) {
	t.Parallel()
	raw := func(path, body string) Request {
		return Request{Method: "PUT", Path: path, Body: json.RawMessage(body)}
	}
	load := SnapshotLoad{SnapshotPath: "s", MemBackend: &MemoryBackend{MemoryFile, "m"}}
	realtime, overrides := load, load
	realtime.ClockRealtime = true
	overrides.NetworkOverrides = []NetworkOverride{{"eth0", "tap1"}}
	tests := map[string]struct {
		v    Version
		r    Request
		want string // empty: supported
	}{
		"field": {Version{1, 11, 0}, LoadSnapshotRequest(overrides),
			`PUT /snapshot/load: field "network_overrides": not supported by Firecracker 1.11.0: it needs 1.12.0 or newer`},
		"field carried back": {Version{1, 15, 0}, LoadSnapshotRequest(realtime),
			`PUT /snapshot/load: field "clock_realtime": not supported by Firecracker 1.15.0: it needs 1.14.4, 1.15.1 or 1.16.0 or newer`},
		"field carried back, there": {Version{1, 14, 4}, LoadSnapshotRequest(realtime), ""},
		"endpoint": {Version{1, 13, 2}, PutPmemRequest(Pmem{ID: "p", PathOnHost: "f"}),
			"PUT /pmem/p: not supported by Firecracker 1.13.2: it needs 1.14.0 or newer"},
		"endpoint without body": {Version{1, 15, 1}, DeleteDriveRequest("d"),
			"DELETE /drives/d: not supported by Firecracker 1.15.1: it needs 1.16.0 or newer"},
		"endpoint without body, there": {Version{1, 14, 0}, StopBalloonHintingRequest(), ""},
		"value": {Version{1, 16, 1}, PutMachineConfigRequest(MachineConfig{VCPUCount: 1, MemSizeMiB: 2, HugePages: HugePagesTransparent}),
			`PUT /machine-config: field "huge_pages": value "Transparent": not supported by Firecracker 1.16.1: it needs 1.17.0 or newer`},
		"value in a patch": {Version{1, 16, 1}, PatchMachineConfigRequest(MachineConfigPatch{HugePages: new(HugePagesTransparent)}),
			`PATCH /machine-config: field "huge_pages": value "Transparent": not supported by Firecracker 1.16.1: it needs 1.17.0 or newer`},
		"ignored by older ones": {Version{1, 16, 1}, PutMetricsRequest(Metrics{MetricsPath: "m", EmitID: true}),
			`PUT /metrics: field "emit_id": not supported by Firecracker 1.16.1: it needs 1.17.0 or newer`},
		"release before the table": {Version{1, 6, 0}, Request{Method: "GET", Path: "/version"},
			"GET /version: not supported by Firecracker 1.6.0: it needs 1.7.0 or newer"},
		"null":                             {Version{1, 15, 0}, raw("/network-interfaces/e", `{"mtu":null}`), `field "mtu"`},
		"name that is twice":               {Version{1, 16, 0}, raw("/drives/d", `{"rate_limiter":{"x":1},"rate_limiter":{}}`), `field "rate_limiter.x"`},
		"nested":                           {Version{1, 16, 0}, raw("/cpu-config", `{"cpuid_modifiers":[[],{"leaf":"0"},{"modifiers":[{"y":1e999}]}]}`), `field "cpuid_modifiers.modifiers.y"`},
		"other case":                       {Version{1, 16, 0}, raw("/vsock", `{"Guest_CID":3}`), `field "Guest_CID": not supported by Firecracker 1.16.0: no release up to 1.17 has it`},
		"object for a text":                {Version{1, 16, 0}, raw("/vsock", `{"uds_path":{"a":1}}`), `field "uds_path.a"`},
		"long name":                        {Version{1, 16, 0}, raw("/vsock", `{"`+strings.Repeat("a", 200)+`":3}`), `field "` + strings.Repeat("a", 100) + `":`},
		"huge number":                      {Version{1, 16, 0}, raw("/vsock", `{"guest_cid":1e999}`), ""},
		"not an object":                    {Version{1, 16, 0}, raw("/vsock", `[3,"v"]`), ""},
		"metadata":                         {Version{1, 7, 0}, PutMMDSRequest(map[string]any{"huge_pages": map[string]any{"a": 1}}), ""},
		"properties":                       {Version{1, 17, 0}, PutMetricsRequest(Metrics{"m", true, map[string]string{"a": "b"}}), ""},
		"unknown endpoint":                 {Version{1, 17, 0}, Request{Method: "GET", Path: "/drives/d"}, "GET /drives/d: not supported by Firecracker 1.17.0: no release up to 1.17 has it"},
		"unknown endpoint of a later line": {Version{1, 18, 0}, raw("/teleport", `{}`), ""},
		"unknown field of a later line":    {Version{2, 0, 0}, raw("/vsock", `{"a":{"b":[{}]},"guest_cid":3}`), ""},
	}
	for name, tt := range tests {
		err := Supports(tt.v, tt.r)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		} else if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v\nwant %s", name, err, tt.want)
		}
	}
	if err := Supports(newest, DeleteDriveRequest("a/b")); !errors.Is(err, ErrInvalidRequest) {
		t.Errorf("a wrong request: %v", err)
	}
}

func TestClientSendsNothingThatTheReleaseDoesNotKnow(t *testing.T) {
	t.Parallel()
	f := newFake(t, always(noContent))
	c := newClient(t, f)
	c.CheckVersion(Version{1, 15, 1})
	eth := NetworkInterface{IfaceID: "eth0", HostDevName: "tap0", MTU: 1400}
	for _, err := range []error{c.PutNetworkInterface(t.Context(), eth), c.DeleteDrive(t.Context(), "d")} {
		if e, ok := errors.AsType[*UnsupportedError](err); !ok || e.Have != (Version{1, 15, 1}) {
			t.Errorf("%v, want *UnsupportedError", err)
		}
	}
	if n := f.conns.Load(); n != 0 {
		t.Errorf("%d connections, want none", n)
	}
	eth.MTU = 0
	if err := c.PutNetworkInterface(t.Context(), eth); err != nil {
		t.Error(err)
	}
	c.CheckVersion(Version{1, 16, 0})
	if err := c.DeleteDrive(t.Context(), "d"); err != nil {
		t.Error(err)
	}
}

func FuzzSupports(f *testing.F) {
	f.Add("PUT", "/snapshot/load", `{"network_overrides":[{"iface_id":"a"}]}`, 7)
	f.Add("PUT", "/metrics", `{"properties":{"a":{"b":[1e999]}}}`, 17)
	f.Add("PATCH", "/machine-config", `{"huge_pages":["Transparent"]}`, 16)
	f.Add("DELETE", "/drives/a", ``, 18)
	says := tableSays()
	f.Fuzz(func(t *testing.T, method, path, body string, minor int) {
		r := Request{Method: method, Path: path}
		if body != "" {
			r.Body = json.RawMessage(body)
		}
		v := Version{1, minor, 0}
		switch err := Supports(v, r); {
		case err == nil, errors.Is(err, ErrUnsupported), errors.Is(err, ErrInvalidRequest):
		default:
			t.Fatalf("%s %s on %v: %v", r, body, v, err)
		}
		encoded, err := r.body()
		if err != nil || v.beyondTable() || bytes.Contains(encoded, []byte(`:"Transparent"`)) {
			return
		}
		var decoded any
		if encoded != nil && json.Unmarshal(encoded, &decoded) != nil {
			return // a number that no float64 holds
		}
		// What passes holds nothing that the table does not give to v.
		if Supports(v, r) == nil {
			for _, thing := range things(r, decoded) {
				if !strings.Contains(thing, "=") && (says[thing] == nil || !says[thing](v)) {
					t.Fatalf("%s %s passes on %v with %q", r, body, v, thing)
				}
			}
		}
	})
}

func TestWhatIsNamedIsEnoughForTheWholeRequest(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		r    Request
		says string
	}{
		{PutSerialRequest(SerialDevice{RateLimiter: &TokenBucket{Size: 1, RefillTime: 1}}),
			`PUT /serial: field "rate_limiter": not supported by Firecracker 1.7.0: it needs 1.16.0 or newer`},
		{PutSerialRequest(SerialDevice{SerialOutPath: "p"}), `PUT /serial: not supported by Firecracker 1.7.0: it needs 1.14.0 or newer`},
		{LoadSnapshotRequest(SnapshotLoad{SnapshotPath: "s", VsockOverride: &VsockOverride{UDSPath: "u"},
			NetworkOverrides: []NetworkOverride{{IfaceID: "e", HostDevName: "t"}}}),
			`PUT /snapshot/load: field "vsock_override": not supported by Firecracker 1.7.0: it needs 1.16.0 or newer`},
		{Request{Method: "PUT", Path: "/serial", Body: json.RawMessage(`{"nobody":1}`)},
			`PUT /serial: field "nobody": not supported by Firecracker 1.7.0: no release up to 1.17 has it`},
	} {
		err := Supports(Version{1, 7, 0}, c.r)
		if err == nil || err.Error() != c.says {
			t.Errorf("%v\nwant %s", err, c.says)
		}
	}
}
