package fcemu

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// fact is what the files of one release of Firecracker say; see
// fcapi/testdata/releases.
type fact struct {
	rel   release
	tag   string
	knows map[string]bool
}

// facts reads the releases and what each one knows.
func facts(t *testing.T) []fact {
	t.Helper()
	var raw []struct {
		Tag, Version string
		Adds, Drops  []string
		AddsInCode   []string `json:"adds_in_code"`
	}
	readJSON(t, "../fcapi/testdata/releases.json", &raw)
	var all []fact
	knows := map[string]bool{}
	for _, r := range raw {
		for _, thing := range slices.Concat(r.Adds, r.AddsInCode) {
			knows[thing] = true
		}
		for _, thing := range r.Drops {
			delete(knows, thing)
		}
		rel, err := parseRelease(r.Version)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fact{rel, r.Tag, maps.Clone(knows)})
	}
	if len(all) < 22 {
		t.Fatalf("only %d releases", len(all))
	}
	return all
}

func readJSON(t *testing.T, path string, to any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, to); err != nil {
		t.Fatal(err)
	}
}

const (
	bucket  = `{"size":1,"one_time_burst":1,"refill_time":1}`
	limiter = `{"bandwidth":` + bucket + `,"ops":` + bucket + `}`
	machine = `{"vcpu_count":1,"mem_size_mib":1,"smt":false,"cpu_template":"None","track_dirty_pages":true,"huge_pages":"None"}`
)

// examples are a body with all fields for each endpoint that takes one, and the
// fields that can't be left out.
var examples = map[string]struct{ body, needs string }{
	"PUT /actions":                {`{"action_type":"InstanceStart"}`, "action_type"},
	"PATCH /vm":                   {`{"state":"Paused"}`, "state"},
	"PUT /machine-config":         {machine, "vcpu_count mem_size_mib"},
	"PATCH /machine-config":       {machine, "vcpu_count"},
	"PUT /boot-source":            {`{"kernel_image_path":"k","initrd_path":"i","boot_args":"b"}`, "kernel_image_path"},
	"PUT /drives/*":               {`{"drive_id":"x","is_root_device":true,"partuuid":"p","cache_type":"Unsafe","is_read_only":true,"path_on_host":"p","rate_limiter":` + limiter + `,"io_engine":"Sync","socket":"s"}`, "drive_id is_root_device"},
	"PATCH /drives/*":             {`{"drive_id":"x","path_on_host":"p","rate_limiter":` + limiter + `}`, "drive_id"},
	"PUT /pmem/*":                 {`{"id":"x","path_on_host":"p","root_device":true,"read_only":true,"rate_limiter":` + limiter + `}`, "id path_on_host"},
	"PATCH /pmem/*":               {`{"id":"x","rate_limiter":` + limiter + `}`, "id"},
	"PUT /network-interfaces/*":   {`{"iface_id":"x","host_dev_name":"t","guest_mac":"02:00:00:00:00:01","mtu":1500,"rx_rate_limiter":` + limiter + `,"tx_rate_limiter":` + limiter + `}`, "iface_id host_dev_name"},
	"PATCH /network-interfaces/*": {`{"iface_id":"x","rx_rate_limiter":` + limiter + `,"tx_rate_limiter":` + limiter + `}`, "iface_id"},
	"PUT /vsock":                  {`{"guest_cid":3,"uds_path":"u","vsock_id":"v"}`, "guest_cid uds_path"},
	"PUT /entropy":                {`{"rate_limiter":` + limiter + `}`, ""},
	"PUT /serial":                 {`{"serial_out_path":"p","rate_limiter":` + bucket + `}`, ""},
	"PUT /balloon":                {`{"amount_mib":1,"deflate_on_oom":true,"stats_polling_interval_s":1,"free_page_hinting":true,"free_page_reporting":true}`, "amount_mib deflate_on_oom"},
	"PATCH /balloon":              {`{"amount_mib":1}`, "amount_mib"},
	"PATCH /balloon/statistics":   {`{"stats_polling_interval_s":1}`, "stats_polling_interval_s"},
	"PATCH /balloon/hinting/start": {
		`{"acknowledge_on_stop":true}`, ""},
	"PUT /hotplug/memory":   {`{"total_size_mib":1,"slot_size_mib":1,"block_size_mib":1}`, "total_size_mib"},
	"PATCH /hotplug/memory": {`{"requested_size_mib":1}`, "requested_size_mib"},
	"PUT /mmds":             {`{}`, ""},
	"PATCH /mmds":           {`{}`, ""},
	"PUT /mmds/config":      {`{"version":"V2","network_interfaces":["x"],"ipv4_address":"169.254.0.1","imds_compat":true}`, "network_interfaces"},
	"PUT /logger":           {`{"log_path":"l","level":"Info","show_level":true,"show_log_origin":true,"module":"m"}`, ""},
	"PUT /metrics":          {`{"metrics_path":"m","emit_id":true,"properties":{"a":"b"}}`, "metrics_path"},
	"PUT /snapshot/create":  {`{"snapshot_type":"Full","snapshot_path":"s","mem_file_path":"m"}`, "snapshot_path mem_file_path"},
	"PUT /snapshot/load":    {`{"snapshot_path":"s","mem_backend":{"backend_type":"File","backend_path":"m"},"resume_vm":true,"enable_diff_snapshots":true,"track_dirty_pages":true,"network_overrides":[{"iface_id":"x","host_dev_name":"t"}],"vsock_override":{"uds_path":"u"},"clock_realtime":true,"huge_pages":"Snapshot"}`, "snapshot_path mem_backend"},
	"PUT /cpu-config":       {`{"kvm_capabilities":["1"],"cpuid_modifiers":[{"leaf":"0x1","subleaf":"0x0","flags":0,"modifiers":[{"register":"eax","bitmap":"0b1"}]}],"msr_modifiers":[{"addr":"0x1","bitmap":"0b1"}],"vcpu_features":[]}`, ""},
}

// Only these ignore what they don't know.
var ignoring = map[string]bool{"PUT /metrics": true}

// body makes a body of the fields that an endpoint needs, and of one more.
func body(t *testing.T, endpoint, also, value string) []byte {
	t.Helper()
	e, ok := examples[endpoint]
	if !ok {
		return nil
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal([]byte(e.body), &all); err != nil {
		t.Fatalf("%s: %v", endpoint, err)
	}
	out := map[string]json.RawMessage{}
	for _, name := range strings.Fields(e.needs + " " + also) {
		if all[name] == nil {
			t.Fatalf("%s: no example of %s", endpoint, name)
		}
		out[name] = all[name]
	}
	if also == "mem_file_path" && endpoint == "PUT /snapshot/load" {
		delete(out, "mem_backend")
	}
	if value != "" {
		out[also] = json.RawMessage(quote(value))
	}
	b, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEachReleaseTakesWhatItsFilesSayAndNothingElse(t *testing.T) {
	t.Parallel()
	// aarch64 has these, two of them in place of others.
	skip := map[string]bool{"PUT /cpu-config reg_modifiers": true, "PUT /cpu-config vcpu_features": true}
	all := facts(t)
	things := map[string]bool{}
	for _, f := range all {
		maps.Copy(things, f.knows)
	}
	delete(things, "PUT /mmds/config imds_comat") // a misprint of one release's description
	tried := 0
	for _, f := range all {
		for thing := range things {
			words := strings.SplitN(thing, " ", 3)
			endpoint, rest := words[0]+" "+words[1], ""
			if len(words) == 3 {
				rest = words[2]
			}
			path, value, _ := strings.Cut(rest, "=")
			top, _, nested := strings.Cut(path, ".")
			if skip[endpoint+" "+top] || value == "V1N1" || endpoint == "PUT /cpu-config" && nested {
				continue
			}
			if nested {
				value = ""
			}
			if endpoint == "PUT /snapshot/load" && top == "mem_file_path" {
				continue // excludes mem_backend: another test
			}
			r := request{method: words[0], uri: strings.ReplaceAll(words[1], "*", "x"), rel: &f.rel}
			if words[0] != "GET" && words[0] != "DELETE" {
				r.body = body(t, endpoint, top, value)
			}
			_, fault := route(r)
			known := f.knows[thing] && (top == "" || f.knows[endpoint+" "+top])
			ok := fault == nil
			if r.method == "DELETE" {
				// What has no such method is refused before.
				p := requestParser{rel: &f.rel}
				_, _, err := p.parseRequestLine([]byte("DELETE " + r.uri + " HTTP/1.1"))
				ok = err == nil
			}
			if want := known || f.knows[endpoint] && ignoring[endpoint]; ok != want {
				t.Errorf("%s: %s: taken %v, want %v: %s: %v", f.tag, thing, ok, want, r.body, fault)
			}
			tried++
		}
	}
	if tried < 22*150 {
		t.Errorf("only %d things tried", tried)
	}
}

func TestMetricsHaveTheNamesOfEachRelease(t *testing.T) {
	t.Parallel()
	var raw []struct {
		Tag, Version string
		Adds, Drops  []string
	}
	readJSON(t, "testdata/metrics.json", &raw)
	names := map[string]bool{}
	for _, r := range raw {
		for _, n := range r.Adds {
			names[n] = true
		}
		for _, n := range r.Drops {
			delete(names, n)
		}
		rel, err := parseRelease(r.Version)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, s := range metricLayout(rel) {
			for _, f := range s.fields {
				got[s.name+"."+f] = true
			}
		}
		if !maps.Equal(got, names) {
			for n := range got {
				if !names[n] {
					t.Errorf("%s does not have %s", r.Tag, n)
				}
			}
			for n := range names {
				if !got[n] {
					t.Errorf("%s has %s", r.Tag, n)
				}
			}
		}
	}
	if len(raw) != len(facts(t)) {
		t.Errorf("%d releases, want %d", len(raw), len(facts(t)))
	}
}

func TestAnUnknownReleaseIsRefusedWithTheRange(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"1.6.0", "1.18.0", "2.0.0", "1.7", "latest", "v", "1.16.1\n", strings.Repeat("1", 100)} {
		_, err := parseRelease(name)
		if err == nil || !strings.Contains(err.Error(), oldestRelease+" to "+newestRelease) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "1.7.0", "v1.9.1", "1.17.0", "1.17.0-dev"} {
		if _, err := parseRelease(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	r, err := parseRelease("1.7.0")
	if err != nil || r.reported() != "1.7.0-fcemu" || fmt.Sprint(r.format) != "1.0.0" {
		t.Errorf("%v, %s, %v", err, r.reported(), r.format)
	}
}
