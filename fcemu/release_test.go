package fcemu_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAReleaseSaysWhatItIsAndThatItIsAnEmulator(t *testing.T) {
	t.Parallel()
	for version, format := range map[string]string{"1.7.0": "1.0.0", "1.10.0": "3.0.0", "1.10.1": "4.0.0", "1.15.1": "9.0.0", "1.17.0": "11.0.0"} {
		v := start(t, "--emulate-version", version)
		v.walk([]step{
			{"GET", "/version", "", 200, `"firecracker_version":"` + version + `-fcemu"`},
			{"GET", "/", "", 200, `"vmm_version":"` + version + `-fcemu"`},
		})
		if got := v.file("log"); !strings.Contains(got, "Running Firecracker v"+version+"-fcemu") {
			t.Errorf("log of %s: %s", version, got)
		}
		for arg, want := range map[string]string{"--version": "Firecracker v" + version + "-fcemu\n", "--snapshot-version": "v" + format + "\n"} {
			dir := shortDir(t)
			p := process(t, dir, arg, "--emulate-version", version)
			code := p.Run(t.Context())
			out, err := os.ReadFile(filepath.Join(dir, "stdout"))
			if code != 0 || err != nil || !strings.HasPrefix(string(out), want) {
				t.Errorf("%s %s: %d, %v: %s", version, arg, code, err, out)
			}
		}
	}
}

func TestTheCommandLineOfAReleaseIsItsOwn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		env  string
		code int
		says string
	}{
		{[]string{"--emulate-version", "1.12.1", "--enable-pci"}, "", 153, "enable-pci"},
		{[]string{"--emulate-version", "1.13.0", "--enable-pci", "--snapshot-version"}, "", 0, "v8.0.0"},
		{[]string{"--emulate-version", "1.6.0"}, "", 153, "from 1.7.0 to 1.17.0"},
		{[]string{"--emulate-version", "1.18.0", "--version"}, "", 153, "from 1.7.0 to 1.17.0"},
		{[]string{"--emulate-version", "newest"}, "", 153, "from 1.7.0 to 1.17.0"},
		{[]string{"--emulate-version"}, "", 153, "requires a value"},
		{[]string{"--snapshot-version"}, "1.11.0", 0, "v5.0.0"},
		{[]string{"--snapshot-version", "--emulate-version", "1.12.0"}, "1.11.0", 0, "v6.0.0"},
		{[]string{"--snapshot-version"}, "1.6.0", 153, "from 1.7.0 to 1.17.0"},
	} {
		dir := shortDir(t)
		p := process(t, dir, append([]string(nil), c.args...)...)
		p.EmulateVersion = c.env
		code := p.Run(t.Context())
		out, err := os.ReadFile(filepath.Join(dir, "stdout"))
		if err != nil || code != c.code || !strings.Contains(string(out), c.says) {
			t.Errorf("%v, %q: code %d, want %d: %s", c.args, c.env, code, c.code, out)
		}
	}
}

func TestAReleaseRefusesOrIgnoresWhatCameLater(t *testing.T) {
	t.Parallel()
	const tooLate = "not supported after starting the microVM"
	for version, steps := range map[string][]step{
		"1.7.0": {
			{"PUT", "/pmem/p", `{"id":"p","path_on_host":"DIR/disk"}`, 400, "Invalid request method and/or path: PUT pmem."},
			{"PUT", "/serial", `{}`, 400, "PUT serial."},
			{"GET", "/hotplug/memory", "", 400, "GET hotplug."},
			{"PATCH", "/balloon/hinting/start", `{}`, 400, "Unrecognized PATCH request path `hinting`."},
			{"GET", "/balloon/hinting/status", "", 400, "Unrecognized GET request path `hinting`."},
			{"PUT", "/balloon", `{"amount_mib":1,"deflate_on_oom":true,"free_page_reporting":true}`, 400, "unknown field `free_page_reporting`"},
			{"PUT", "/balloon", `{"amount_mib":1,"deflate_on_oom":true}`, 204, ""},
			{"GET", "/balloon", "", 200, `{"amount_mib":1,"deflate_on_oom":true,"stats_polling_interval_s":0}`},
			{"PUT", "/mmds/config", `{"network_interfaces":[],"imds_compat":true}`, 400, "unknown field `imds_compat`"},
			{"PUT", "/metrics", `{"metrics_path":"DIR/m","emit_id":true,"properties":{"a":"b"}}`, 204, ""},
			{"PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":8}`, 204, ""},
			{"GET", "/vm/config", "", 200, `"vsock":null,"entropy":null}`},
			{"DELETE", "/drives/d", "", 400, "Unsupported HTTP method"},
			{"PUT", "/boot-source", `{"kernel_image_path":"DIR/vmlinux"}`, 204, ""},
			{"PUT", "/actions", `{"action_type":"InstanceStart"}`, 204, ""},
			{"PUT", "/drives/d", `{"drive_id":"d","path_on_host":"DIR/disk","is_root_device":false}`, 400, tooLate},
			{"PATCH", "/vm", `{"state":"Paused"}`, 204, ""},
			{"PUT", "/snapshot/create", `{"snapshot_type":"Diff","snapshot_path":"DIR/s","mem_file_path":"DIR/f"}`, 400, "dirty page tracking"},
			{"PUT", "/snapshot/create", `{"snapshot_path":"DIR/s","mem_file_path":"DIR/f"}`, 204, ""},
		},
		"1.13.0": {
			{"PUT", "/mmds/config", `{"network_interfaces":[],"imds_compat":true}`, 400, "MMDS"},
			{"PUT", "/pmem/p", `{"id":"p","path_on_host":"DIR/disk"}`, 400, "PUT pmem."},
		},
		"1.14.0": {
			{"PUT", "/pmem/p", `{"id":"p","path_on_host":"DIR/disk","rate_limiter":null}`, 400, "unknown field `rate_limiter`"},
			{"PUT", "/pmem/p", `{"id":"p","path_on_host":"DIR/disk"}`, 204, ""},
			{"PATCH", "/pmem/p", `{"id":"p"}`, 400, "PATCH pmem."},
			{"GET", "/vm/config", "", 200, `"pmem":[{"id":"p","path_on_host":"DIR/disk","root_device":false,"read_only":false}],"memory-hotplug":null}`},
			{"PUT", "/serial", `{"rate_limiter":null}`, 400, "unknown field `rate_limiter`"},
			{"PUT", "/network-interfaces/e", `{"iface_id":"e","host_dev_name":"t","mtu":1500}`, 400, "unknown field `mtu`"},
		},
		"1.17.0": {
			{"PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":8,"huge_pages":"Transparent"}`, 204, ""},
			{"GET", "/machine-config", "", 200, `"huge_pages":"Transparent"`},
			{"PUT", "/metrics", `{"metrics_path":"DIR/m","properties":{"a":1}}`, 400, "expected a string"},
		},
	} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			start(t, "--emulate-version", version).walk(steps)
		})
	}
}

// Field case 1: a field of the load that the release does not know refuses the
// whole load, and the process lives.
func TestALoadWithANewerFieldIsRefusedAndTheProcessLives(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		field, value string
		old, has     string
	}{
		{"network_overrides", `[]`, "1.11.0", "1.12.0"},
		{"track_dirty_pages", `true`, "1.12.1", "1.13.0"},
		{"clock_realtime", `false`, "1.15.0", "1.15.1"},
		{"clock_realtime", `false`, "1.14.3", "1.14.4"},
		{"vsock_override", `null`, "1.15.1", "1.16.0"},
		{"huge_pages", `"Snapshot"`, "1.16.1", "1.17.0"},
	} {
		t.Run(c.field+" "+c.has, func(t *testing.T) {
			t.Parallel()
			body := strings.TrimSuffix(load, "}") + fmt.Sprintf(",%q:%s}", c.field, c.value)
			v := start(t, "--emulate-version", c.old)
			v.walk([]step{
				{"PUT", "/snapshot/load", body, 400, "unknown field `" + c.field + "`"},
				{"GET", "/", "", 200, "Not started"},
			})
			w := startIn(t, snapshot(t, "--emulate-version", c.has), "--emulate-version", c.has)
			w.walk([]step{{"PUT", "/snapshot/load", body, 204, ""}})
		})
	}
}

// Field case 25: a snapshot of another format is refused, and the process goes.
func TestASnapshotOfAnotherFormatIsRefusedAndEndsTheProcess(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		wrote, reads string
		ok           bool
	}{
		{"1.14.1", "1.17.0", false}, {"1.17.0", "1.14.1", false}, {"1.16.0", "1.16.1", true},
		{"1.13.0", "1.14.4", true}, {"1.14.4", "1.13.0", true}, {"1.10.0", "1.10.1", false},
	} {
		t.Run(c.wrote+" "+c.reads, func(t *testing.T) {
			t.Parallel()
			v := startIn(t, snapshot(t, "--emulate-version", c.wrote), "--emulate-version", c.reads)
			a := v.do("PUT", "/snapshot/load", load)
			if c.ok {
				if a.status != 204 {
					t.Fatal(a)
				}
				return
			}
			if a.status != 400 || !strings.Contains(a.body, "written by "+c.wrote) {
				t.Errorf("answer %v", a)
			}
			if code := v.exit(); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
		})
	}
}

func TestOnlyLaterReleasesCallEnableDiffSnapshotsDeprecated(t *testing.T) {
	t.Parallel()
	for version, deprecated := range map[string]bool{"1.12.1": false, "1.13.0": true} {
		v := startIn(t, snapshot(t, "--emulate-version", version), "--emulate-version", version)
		a := v.do("PUT", "/snapshot/load", strings.TrimSuffix(load, "}")+`,"enable_diff_snapshots":true}`)
		if a.status != 204 || a.deprecated != deprecated {
			t.Errorf("%s: %v, deprecated %v", version, a, a.deprecated)
		}
	}
}

// line is one line of metrics.
type line map[string]json.RawMessage

func (v *vmm) metrics() []line {
	v.t.Helper()
	var all []line
	for text := range strings.Lines(v.file("metrics")) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			v.t.Fatalf("%v: %s", err, text)
		}
		all = append(all, l)
	}
	return all
}

func (l line) count(t *testing.T, section, name string) int {
	t.Helper()
	var s map[string]json.RawMessage
	if err := json.Unmarshal(l[section], &s); err != nil {
		t.Fatalf("%s: %v", section, err)
	}
	var n int
	if err := json.Unmarshal(s[name], &n); err != nil {
		t.Fatalf("%s.%s: %v", section, name, err)
	}
	return n
}

// Field case 50: counted since the last flush, in the layout of the release.
func TestMetricsAreWrittenInTheLayoutOfTheRelease(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		version  string
		has, not string
		id       bool
	}{
		{"1.7.0", "balloon", "pmem", false}, {"1.14.0", "memory_hotplug", "id", false}, {"1.17.0", "interrupts", "none", true},
	} {
		t.Run(c.version, func(t *testing.T) {
			t.Parallel()
			v := start(t, "--emulate-version", c.version, "--id", "m-1")
			v.must("PUT", "/metrics", `{"metrics_path":"DIR/metrics","emit_id":true,"properties":{"zone":"z"}}`)
			v.must("PUT", "/drives/d", `{"drive_id":"d","path_on_host":"DIR/disk","is_root_device":false}`)
			v.boot("fcemu.disk_writer=d fcemu.tick=1h")
			v.must("PUT", "/actions", `{"action_type":"FlushMetrics"}`)
			v.must("GET", "/version", "")
			v.must("PUT", "/actions", `{"action_type":"FlushMetrics"}`)
			lines := v.metrics()
			if len(lines) != 2 {
				t.Fatalf("%d lines", len(lines))
			}
			if lines[0][c.has] == nil || lines[0][c.not] != nil || lines[0]["block_d"] == nil {
				t.Errorf("sections %v", lines[0])
			}
			if got := string(lines[0]["id"]) == `"m-1"` && string(lines[0]["properties"]) == `{"zone":"z"}`; got != c.id {
				t.Errorf("id %s, properties %s", lines[0]["id"], lines[0]["properties"])
			}
			for i, want := range []int{1, 0} {
				if got := lines[i].count(t, "put_api_requests", "drive_count"); got != want {
					t.Errorf("line %d: drive_count %d, want %d: it counts since the line before", i, got, want)
				}
			}
			if got := lines[1].count(t, "get_api_requests", "vmm_version_count"); got != 1 {
				t.Errorf("vmm_version_count %d", got)
			}
		})
	}
}
