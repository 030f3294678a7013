package fcemu_test

import (
	"strings"
	"testing"
)

// step is one request of a sequence.
type step struct {
	method, path, body string
	status             int
	has                string
}

func (v *vmm) walk(steps []step) {
	v.t.Helper()
	for i, s := range steps {
		got := v.do(s.method, s.path, s.body)
		if got.status != s.status {
			v.t.Fatalf("step %d: %s %s %s: status %d, want %d: %s", i, s.method, s.path, s.body, got.status, s.status, got.body)
		}
		if (!v.real || got.status < 300) && !strings.Contains(got.body, strings.ReplaceAll(s.has, "DIR", v.dir)) {
			v.t.Errorf("step %d: %s %s %s: body %s does not have %q", i, s.method, s.path, s.body, got.body, s.has)
		}
	}
}

const tooEarly = "not supported before starting the microVM"

func TestRequestsBeforeBootAreAnsweredAsTheOriginalAnswersThem(t *testing.T) {
	t.Parallel()
	for name, steps := range map[string][]step{
		"what needs a guest": {
			{"PUT", "/actions", `{"action_type":"FlushMetrics"}`, 400, tooEarly},
			{"PUT", "/actions", `{"action_type":"SendCtrlAltDel"}`, 400, tooEarly},
			{"PUT", "/actions", `{"action_type":"InstanceStart"}`, 400, "without kernel"},
			{"PUT", "/actions", `{"action_type":"Halt"}`, 400, "unknown variant"},
			{"PUT", "/actions", `{"action_type":"InstanceStart","payload":"x"}`, 400, "unknown field"},
			{"PATCH", "/vm", `{"state":"Paused"}`, 400, tooEarly},
			{"PATCH", "/vm", `{"state":"Running"}`, 400, "unknown variant"},
			{"PATCH", "/drives/d", `{"drive_id":"d","path_on_host":"x"}`, 400, tooEarly},
			{"PATCH", "/network-interfaces/e", `{"iface_id":"e"}`, 400, tooEarly},
			{"PATCH", "/pmem/p", `{"id":"p"}`, 400, tooEarly},
			{"PATCH", "/balloon", `{"amount_mib":1}`, 400, tooEarly},
			{"PATCH", "/balloon/statistics", `{"stats_polling_interval_s":1}`, 400, tooEarly},
			{"PATCH", "/balloon/hinting/start", "", 400, tooEarly},
			{"PATCH", "/hotplug/memory", `{"requested_size_mib":128}`, 400, tooEarly},
			{"GET", "/hotplug/memory", "", 400, tooEarly},
			{"GET", "/balloon/statistics", "", 400, tooEarly},
			{"GET", "/balloon/hinting/status", "", 400, tooEarly},
			{"DELETE", "/drives/d", "", 400, tooEarly},
			{"DELETE", "/network-interfaces/e", "", 400, tooEarly},
			{"DELETE", "/pmem/p", "", 400, tooEarly},
			{"PUT", "/snapshot/create", `{"snapshot_path":"a","mem_file_path":"b"}`, 400, tooEarly},
			{"GET", "/", "", 200, `"state":"Not started"`},
		},
		"paths": {
			{"GET", "/version/x", "", 200, "firecracker_version"},
			{"GET", "//version/", "", 200, "firecracker_version"},
			{"GET", "http://localhost/version", "", 200, "firecracker_version"},
			{"GET", "/version?x=1", "", 400, "GET version?x=1."},
			{"GET", "/%76ersion", "", 400, ""},
			{"GET", "/Version", "", 400, ""},
			{"GET", "/drives", "", 400, "GET drives."},
			{"GET", "/vm", "", 400, ""},
			{"GET", "/balloon", "", 400, ""},
			{"GET", "/balloon/x", "", 400, "Unrecognized"},
			{"GET", "/", "{}", 400, "cannot have a body"},
			{"PUT", "/", "{}", 400, ""},
			{"PUT", "/foo", "", 400, "Empty PUT request."},
			{"PUT", "/snapshot", "{}", 400, "Missing snapshot operation type."},
			{"PUT", "/snapshot/x", "{}", 400, ""},
			{"PUT", "/mmds/foo", "{}", 400, "Unrecognized"},
			{"DELETE", "/drives/d", "{}", 400, "Empty Delete request."},
			{"DELETE", "/foo", "", 400, "DELETE foo."},
		},
		"a machine configuration is replaced by PUT and changed by PATCH": {
			{"PUT", "/machine-config", `{"vcpu_count":2,"mem_size_mib":64,"smt":true,"track_dirty_pages":true,"huge_pages":"2M","cpu_template":"T2"}`, 204, ""},
			{"GET", "/machine-config", "", 200, `{"vcpu_count":2,"mem_size_mib":64,"smt":true,"cpu_template":"T2","track_dirty_pages":true,"huge_pages":"2M"}`},
			{"PUT", "/machine-config", `{"vcpu_count":2,"mem_size_mib":64}`, 204, ""},
			{"GET", "/machine-config", "", 200, `{"vcpu_count":2,"mem_size_mib":64,"smt":false,"cpu_template":"T2","track_dirty_pages":false,"huge_pages":"None"}`},
			{"PATCH", "/machine-config", `{"cpu_template":"None","smt":true}`, 204, ""},
			{"PATCH", "/machine-config", `{"vcpu_count":3}`, 400, ""},
			{"GET", "/machine-config", "", 200, `{"vcpu_count":2,"mem_size_mib":64,"smt":true,"track_dirty_pages":false,"huge_pages":"None"}`},
		},
		"one root drive, which comes first": {
			{"PUT", "/drives/a", `{"drive_id":"a","path_on_host":"DIR/disk2","is_root_device":false}`, 204, ""},
			{"PUT", "/drives/r", `{"drive_id":"r","path_on_host":"DIR/disk","is_root_device":true}`, 204, ""},
			{"PUT", "/drives/a", `{"drive_id":"a","path_on_host":"DIR/disk2","is_root_device":true}`, 400, "A root block device already exists!"},
			{"GET", "/vm/config", "", 200, `"drives":[{"drive_id":"r","partuuid":null,"is_root_device":true,"cache_type":"Unsafe","is_read_only":false,"path_on_host":"DIR/disk","rate_limiter":null,"io_engine":"Sync","socket":null},{"drive_id":"a"`},
			{"PUT", "/drives/r", `{"drive_id":"r","path_on_host":"DIR/disk","is_root_device":false}`, 204, ""},
			{"PUT", "/drives/a", `{"drive_id":"a","path_on_host":"DIR/disk2","is_root_device":true}`, 204, ""},
			{"PUT", "/pmem/p", `{"id":"p","path_on_host":"DIR/disk","root_device":true}`, 400, "root device"},
		},
		"rate limits are shown as they are in force": {
			{"PUT", "/drives/a", `{"drive_id":"a","path_on_host":"DIR/disk","is_root_device":false,"rate_limiter":{"bandwidth":{"size":0,"refill_time":9}}}`, 204, ""},
			{"GET", "/vm/config", "", 200, `"rate_limiter":null`},
			{"PUT", "/drives/a", `{"drive_id":"a","path_on_host":"DIR/disk","is_root_device":false,"rate_limiter":{"bandwidth":{"size":5,"refill_time":9,"one_time_burst":0}}}`, 204, ""},
			{"GET", "/vm/config", "", 200, `"rate_limiter":{"bandwidth":{"size":5,"one_time_burst":null,"refill_time":9},"ops":null}`},
		},
		"the vsock's socket is bound at PUT, and lost with a failed second PUT": {
			{"PUT", "/vsock", `{"guest_cid":3,"uds_path":"DIR/v.sock"}`, 204, ""},
			{"PUT", "/vsock", `{"guest_cid":4,"uds_path":"DIR/v.sock"}`, 204, ""},
			{"GET", "/vm/config", "", 200, `"vsock":{"guest_cid":4,"uds_path":"DIR/v.sock"}`},
			{"PUT", "/vsock", `{"guest_cid":4,"uds_path":"DIR/text"}`, 400, "os error 98"},
			{"GET", "/vm/config", "", 200, `"vsock":null`},
		},
		"memory may not shrink below the balloon": {
			{"PUT", "/balloon", `{"amount_mib":100,"deflate_on_oom":true}`, 204, ""},
			{"GET", "/balloon", "", 200, `{"amount_mib":100,"deflate_on_oom":true,"stats_polling_interval_s":0,"free_page_hinting":false,"free_page_reporting":false}`},
			{"PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":99}`, 400, "balloon"},
		},
		"metadata": {
			{"PATCH", "/mmds", `{"a":1}`, 400, "not initialized"},
			{"GET", "/mmds", "", 200, `{}`},
			{"PUT", "/mmds", `{"z":{"b":1.50,"c":[1,2]},"a":"é"}`, 204, ""},
			{"GET", "/mmds", "", 200, `{"a":"é","z":{"b":1.5,"c":[1,2]}}`},
			{"PATCH", "/mmds", `{"z":{"b":null,"d":{"e":null,"f":1}}}`, 204, ""},
			{"GET", "/mmds/config", "", 200, `{"a":"é","z":{"c":[1,2],"d":{"f":1}}}`},
			{"PUT", "/mmds", `[1]`, 204, ""},
			{"PUT", "/mmds", `null`, 204, ""},
			{"GET", "/mmds", "", 200, `{}`},
			{"PUT", "/mmds", `1E400`, 400, "number out of range"},
			{"PUT", "/mmds", `{"a":"` + strings.Repeat("x", 51000) + `"}`, 204, ""},
			{"PATCH", "/mmds", `{"b":"` + strings.Repeat("x", 300) + `"}`, 413, "limit"},
			{"GET", "/mmds", "", 200, `{"a":"xxx`},
		},
		"a start that fails leaves everything as it was": {
			{"PUT", "/boot-source", `{"kernel_image_path":"DIR/text"}`, 204, ""},
			{"PUT", "/actions", `{"action_type":"InstanceStart"}`, 400, "kernel"},
			{"PUT", "/boot-source", `{"kernel_image_path":"DIR/folder"}`, 204, ""},
			{"PUT", "/actions", `{"action_type":"InstanceStart"}`, 400, "kernel"},
			{"GET", "/", "", 200, `"state":"Not started"`},
			{"GET", "/vm/config", "", 200, `"boot-source":{"kernel_image_path":"DIR/folder","initrd_path":null,"boot_args":null}`},
		},
		"metrics can be configured once": {
			{"PUT", "/metrics", `{"metrics_path":"DIR/m"}`, 204, ""},
			{"PUT", "/metrics", `{"metrics_path":"DIR/m2"}`, 400, "already"},
			{"PUT", "/logger", `{"log_path":"DIR/l1"}`, 204, ""},
			{"PUT", "/logger", `{"log_path":"DIR/l2"}`, 204, ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			either(t).walk(steps)
		})
	}
}

func TestAFreshVMMShowsTheOriginalsDefaults(t *testing.T) {
	t.Parallel()
	either(t).walk([]step{{"GET", "/vm/config", "", 200, `{"balloon":null,"drives":[],` +
		`"boot-source":{"kernel_image_path":"","initrd_path":null,"boot_args":null},"cpu-config":null,"logger":null,` +
		`"machine-config":{"vcpu_count":1,"mem_size_mib":128,"smt":false,"track_dirty_pages":false,"huge_pages":"None"},` +
		`"metrics":null,"mmds-config":null,"network-interfaces":[],"vsock":null,"entropy":null,"pmem":[],"memory-hotplug":null}`}})
}

func TestWhatIsDeprecatedIsMarked(t *testing.T) {
	t.Parallel()
	for _, c := range []bodyCase{
		{"PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":64,"cpu_template":"None"}`, 204, ""},
		{"PUT", "/machine-config", `{"vcpu_count":0,"mem_size_mib":64,"cpu_template":"T2"}`, 400, ""},
		{"PUT", "/vsock", `{"guest_cid":3,"uds_path":"DIR/v.sock","vsock_id":"v"}`, 204, ""},
	} {
		v := either(t)
		if got := v.do(c.method, c.path, c.body); got.status != c.status || !got.deprecated {
			t.Errorf("%s %s: %v, deprecated %v", c.path, c.body, got, got.deprecated)
		}
		if v.do("GET", "/version", "").deprecated {
			t.Error("GET /version is not deprecated")
		}
	}
}
