package fcemu_test

import (
	"strings"
	"testing"
)

// bodyCase is one request to a fresh VMM, and its status. has must be in the
// body of the answer; texts of faults are the emulator's own and are not
// compared with the original's.
type bodyCase struct {
	method, path, body string
	status             int
	has                string
}

func runBodies(t *testing.T, cases []bodyCase) {
	t.Helper()
	for _, c := range cases {
		name := strings.NewReplacer("/", "|", "\n", " ").Replace(c.method + " " + c.path + " " + c.body)
		if len(name) > 80 {
			name = name[:80]
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := either(t)
			got := v.do(c.method, c.path, c.body)
			if got.status != c.status {
				t.Fatalf("status %d, want %d: %s", got.status, c.status, got.body)
			}
			if (got.body == "") != (got.status == 204) {
				t.Errorf("status %d with the body %q", got.status, got.body)
			}
			if !v.real && !strings.Contains(got.body, c.has) {
				t.Errorf("body %s does not have %q", got.body, c.has)
			}
			if c.status == 400 && v.do("GET", "/version", "").status != 200 {
				t.Error("a refusal has spoiled the connection")
			}
		})
	}
}

func TestMachineConfigBodiesAreJudgedAsTheOriginalJudgesThem(t *testing.T) {
	t.Parallel()
	const path = "/machine-config"
	cases := []bodyCase{
		{"PUT", path, `{"vcpu_count":1,"mem_size_mib":128}`, 204, ""},
		{"PUT", path, ` { "vcpu_count" : 32 , "mem_size_mib" : 1 } `, 204, ""},
		{"PUT", path, `{"vcpu_count":0,"mem_size_mib":128}`, 400, "vCPUs"},
		{"PUT", path, `{"vcpu_count":33,"mem_size_mib":128}`, 400, "vCPUs"},
		{"PUT", path, `{"vcpu_count":256,"mem_size_mib":128}`, 400, "integer `256`, expected u8"},
		{"PUT", path, `{"vcpu_count":-1,"mem_size_mib":128}`, 400, "integer `-1`"},
		{"PUT", path, `{"vcpu_count":1.0,"mem_size_mib":128}`, 400, "floating point"},
		{"PUT", path, `{"vcpu_count":1e0,"mem_size_mib":128}`, 400, ""},
		{"PUT", path, `{"vcpu_count":"1","mem_size_mib":128}`, 400, "string"},
		{"PUT", path, `{"vcpu_count":null,"mem_size_mib":128}`, 400, "null"},
		{"PUT", path, `{"vcpu_count":3,"mem_size_mib":64,"smt":true}`, 400, "even"},
		{"PUT", path, `{"vcpu_count":1,"mem_size_mib":64,"smt":true}`, 204, ""},
		{"PUT", path, `{"vcpu_count":3,"mem_size_mib":64}`, 204, ""},
		{"PUT", path, `{"vcpu_count":2,"mem_size_mib":0}`, 400, "memory size"},
		{"PUT", path, `{"vcpu_count":2,"mem_size_mib":1099511627776}`, 204, ""},
		{"PUT", path, `{"vcpu_count":2,"mem_size_mib":18446744073709551616}`, 400, ""},
		{"PUT", path, `{"vcpu_count":2}`, 400, "missing field `mem_size_mib`"},
		{"PUT", path, `{}`, 400, "missing field `vcpu_count`"},
		{"PUT", path, `{"vcpu_count":2,"mem_size_mib":64,"x":1}`, 400, "unknown field `x`, expected one of `vcpu_count`"},
		{"PUT", path, `{"VCPU_COUNT":2,"mem_size_mib":64}`, 400, "unknown field"},
		{"PUT", path, `{"vcpu_count":1,"vcpu_count":1,"mem_size_mib":64}`, 400, "duplicate field"},
		{"PUT", path, `{"vcpu_count":1,"mem_size_mib":64} x`, 400, "trailing characters"},
		{"PUT", path, `{"vcpu_count":1,"mem_size_mib":64,}`, 400, "trailing comma"},
		{"PUT", path, `{"vcpu_count":01,"mem_size_mib":64}`, 400, "invalid number"},
		{"PUT", path, "{\n\"vcpu_count\":1,\n\"y\":2}", 400, "line 3 column 3"},
		{"PUT", path, `{`, 400, "EOF"},
		{"PUT", path, ` `, 400, "EOF"},
		{"PUT", path, "\xff\xfe", 400, ""},
		{"PUT", path, "\xef\xbb\xbf{}", 400, ""},
		{"PUT", path, `[1,128]`, 204, ""},
		{"PUT", path, `[1,128,false]`, 204, ""},
		{"PUT", path, `[1]`, 400, "invalid length"},
		{"PUT", path, `[1,128,false,null,true,"None",4]`, 400, "trailing characters"},
		{"PUT", path, `"x"`, 400, "expected struct"},
		{"PUT", path, strings.Repeat("[", 200) + strings.Repeat("]", 200), 400, ""},
		{"PUT", path, `{"vcpu_count":2,"mem_size_mib":63,"huge_pages":"2M"}`, 400, "page size"},
		{"PUT", path, `{"vcpu_count":2,"mem_size_mib":64,"huge_pages":"2M"}`, 204, ""},
		{"PUT", path, `{"vcpu_count":2,"mem_size_mib":64,"huge_pages":{"2M":null}}`, 204, ""},
		{"PUT", path, `{"vcpu_count":2,"mem_size_mib":64,"huge_pages":"1G"}`, 400, "unknown variant `1G`"},
		{"PUT", path, `{"vcpu_count":2,"mem_size_mib":64,"huge_pages":null}`, 400, "expected value"},
		{"PUT", path, `{"vcpu_count":2,"mem_size_mib":64,"cpu_template":"XX"}`, 400, "unknown variant"},
		{"PUT", path, `{"vcpu_count":2,"mem_size_mib":64,"cpu_template":null}`, 204, ""},
		{"PUT", path, `{"vcpu_count":2,"mem_size_mib":64,"\u0073mt":true}`, 204, ""},
		{"PUT", path, "", 400, "Empty PUT request."},
		{"PATCH", path, `{"vcpu_count":4}`, 204, ""},
		{"PATCH", path, `{}`, 400, "Empty PATCH request."},
		{"PATCH", path, "", 400, "Empty PATCH request."},
		{"PATCH", path, `{"vcpu_count":null}`, 400, ""},
		{"DELETE", path, "", 400, "DELETE machine-config"},
	}
	runBodies(t, cases)
}

func TestBootSourceBodiesAreJudgedAsTheOriginalJudgesThem(t *testing.T) {
	t.Parallel()
	const path = "/boot-source"
	args := func(s string) string { return `{"kernel_image_path":"DIR/vmlinux","boot_args":"` + s + `"}` }
	runBodies(t, []bodyCase{
		{"PUT", path, `{"kernel_image_path":"DIR/vmlinux"}`, 204, ""},
		{"PUT", path, `["DIR/vmlinux",null,null]`, 204, ""},
		{"PUT", path, `["DIR/vmlinux"]`, 400, "invalid length"},
		{"PUT", path, `{"kernel_image_path":"DIR/nope"}`, 400, "No such file or directory (os error 2)"},
		{"PUT", path, `{"kernel_image_path":"DIR/folder"}`, 204, ""}, // refused at the start
		{"PUT", path, `{"kernel_image_path":"DIR/text"}`, 204, ""},
		{"PUT", path, `{"kernel_image_path":""}`, 400, ""},
		{"PUT", path, `{"kernel_image_path":"DIR/vmlinux","initrd_path":"DIR/initrd"}`, 204, ""},
		{"PUT", path, `{"kernel_image_path":"DIR/vmlinux","initrd_path":"DIR/nope"}`, 400, "initrd"},
		{"PUT", path, `{}`, 400, "missing field `kernel_image_path`"},
		{"PUT", path, `{"kernel_image_path":"DIR/vmlinux","args":1}`, 400, "unknown field `args`"},
		{"PUT", path, args(""), 204, ""},
		{"PUT", path, args(strings.Repeat("a", 2047)), 204, ""},
		{"PUT", path, args(strings.Repeat("a", 2048)), 400, "2047 bytes"},
		{"PUT", path, args("é\\n"), 204, ""},
		{"PUT", path, args("a -- b -- c"), 204, ""},
		{"PUT", path, args(strings.Repeat("a", 1020) + " -- " + strings.Repeat("b", 1023)), 204, ""},
		{"PUT", path, args(strings.Repeat("a", 1020) + " -- " + strings.Repeat("b", 1024)), 400, "command line"},
	})
}

func TestDriveBodiesAreJudgedAsTheOriginalJudgesThem(t *testing.T) {
	t.Parallel()
	const path = "/drives/d"
	with := func(extra string) string {
		return `{"drive_id":"d","path_on_host":"DIR/disk","is_root_device":false` + extra + `}`
	}
	runBodies(t, []bodyCase{
		{"PUT", path, with(""), 204, ""},
		{"PUT", "/drives/x", with(""), 400, "does not match"},
		{"PUT", "/drives/d/more", with(""), 204, ""},
		{"PUT", "/drives", with(""), 400, "ID cannot be empty"},
		{"PUT", "/drives/a-b", with(""), 400, "alphanumeric"},
		{"PUT", "/drives/..", with(""), 400, "alphanumeric"},
		{"PUT", "/drives/ä", `{"drive_id":"ä","path_on_host":"DIR/disk","is_root_device":false}`, 204, ""},
		{"PUT", path, `{"drive_id":"d","path_on_host":"DIR/nope","is_root_device":false}`, 400, "os error 2"},
		{"PUT", path, `{"drive_id":"d","path_on_host":"DIR/folder","is_root_device":false}`, 400, ""},
		{"PUT", path, `{"drive_id":"d","path_on_host":"DIR/empty","is_root_device":false}`, 204, ""},
		{"PUT", path, `{"drive_id":"d","path_on_host":"DIR/odd","is_root_device":false}`, 204, ""},
		{"PUT", path, `{"drive_id":"d","is_root_device":false}`, 400, "path_on_host"},
		{"PUT", path, `{"drive_id":"d","socket":"DIR/s","is_root_device":false}`, 400, "vhost-user"},
		{"PUT", path, `{"drive_id":"d","path_on_host":"DIR/disk"}`, 400, "missing field `is_root_device`"},
		{"PUT", path, `{"drive_id":"d","path_on_host":"DIR/disk","is_root_device":null}`, 400, ""},
		{"PUT", path, with(`,"cache_type":"Writeback"`), 204, ""},
		{"PUT", path, with(`,"cache_type":"Foo"`), 400, "unknown variant `Foo`"},
		{"PUT", path, with(`,"io_engine":"Foo"`), 400, "unknown variant `Foo`"},
		{"PUT", path, with(`,"io_engine":null,"is_read_only":null,"partuuid":null,"rate_limiter":null`), 204, ""},
		{"PUT", path, with(`,"rate_limiter":{}`), 204, ""},
		{"PUT", path, with(`,"rate_limiter":{"bandwidth":{"size":1}}`), 400, "missing field `refill_time`"},
		{"PUT", path, with(`,"rate_limiter":{"bandwidth":{"size":1,"refill_time":1,"x":1}}`), 204, ""},
		{"PUT", path, with(`,"rate_limiter":{"bandwidth":{"size":1,"refill_time":-1}}`), 400, ""},
		{"PUT", path, with(`,"rate_limiter":{"foo":1}`), 400, "unknown field `foo`"},
		{"PUT", path, with(`,"x":1`), 400, "unknown field `x`"},
	})
}

func TestOtherDeviceBodiesAreJudgedAsTheOriginalJudgesThem(t *testing.T) {
	t.Parallel()
	runBodies(t, []bodyCase{
		{"PUT", "/vsock", `{"guest_cid":3,"uds_path":"DIR/v.sock"}`, 204, ""},
		{"PUT", "/vsock", `{"guest_cid":0,"uds_path":"DIR/v.sock"}`, 204, ""},
		{"PUT", "/vsock", `{"guest_cid":4294967296,"uds_path":"DIR/v.sock"}`, 400, "u32"},
		{"PUT", "/vsock", `{"guest_cid":3,"uds_path":"DIR/text"}`, 400, "Address already in use (os error 98)"},
		{"PUT", "/vsock", `{"guest_cid":3,"uds_path":"DIR/no/v.sock"}`, 400, "os error 2"},
		{"PUT", "/vsock", `{"guest_cid":3,"uds_path":"` + strings.Repeat("x", 108) + `"}`, 400, ""},
		{"PUT", "/vsock", `{"guest_cid":3}`, 400, "missing field `uds_path`"},
		{"PUT", "/balloon", `{"amount_mib":128,"deflate_on_oom":true}`, 204, ""},
		{"PUT", "/balloon", `{"amount_mib":129,"deflate_on_oom":true}`, 400, "too large"},
		{"PUT", "/balloon", `{"amount_mib":1,"deflate_on_oom":true,"stats_polling_interval_s":65536}`, 400, "u16"},
		{"PUT", "/balloon", `{"amount_mib":1,"deflate_on_oom":true,"free_page_reporting":true}`, 204, ""},
		{"PUT", "/balloon", `{"deflate_on_oom":true}`, 400, "missing field `amount_mib`"},
		{"PUT", "/entropy", `{}`, 204, ""},
		{"PUT", "/entropy", `{"rate_limiter":{"bandwidth":{"size":10,"refill_time":10}}}`, 204, ""},
		{"PUT", "/entropy", `{"x":1}`, 400, "unknown field `x`"},
		{"PUT", "/serial", `{"serial_out_path":"DIR/no/dir"}`, 204, ""}, // opened at the start
		{"PUT", "/serial", `{"rate_limiter":{"bandwidth":{"size":10,"refill_time":10}}}`, 400, "missing field"},
		{"PUT", "/logger", `{"level":"wArNiNg","show_level":true}`, 204, ""},
		{"PUT", "/logger", `{"level":"loud"}`, 400, "LevelFilter"},
		{"PUT", "/logger", `{"log_path":"DIR/folder"}`, 400, ""},
		{"PUT", "/metrics", `{"metrics_path":"DIR/m","unknown":1}`, 204, ""},
		{"PUT", "/metrics", `{"metrics_path":"DIR/no/m"}`, 400, "os error 2"},
		{"PUT", "/metrics", `{}`, 400, "missing field"},
		{"PUT", "/pmem/p", `{"id":"p","path_on_host":"DIR/nope"}`, 204, ""}, // opened at the start
		{"PUT", "/pmem/p", `{"id":"q","path_on_host":"DIR/disk"}`, 400, "does not match"},
		{"PUT", "/hotplug/memory", `{"total_size_mib":1024}`, 204, ""},
		{"PUT", "/hotplug/memory", `{"total_size_mib":1000}`, 400, "multiple of slot size"},
		{"PUT", "/hotplug/memory", `{"total_size_mib":1024,"block_size_mib":3}`, 400, "power of 2"},
		{"PUT", "/hotplug/memory", `{"total_size_mib":64}`, 400, "slot size"},
		{"PUT", "/cpu-config", `{}`, 204, ""},
		{"PUT", "/cpu-config", `{"kvm_capabilities":["1","!56"]}`, 204, ""},
		{"PUT", "/cpu-config", `{"kvm_capabilities":["x"]}`, 400, "capability"},
		{"PUT", "/cpu-config", `{"cpuid_modifiers":[{"leaf":"0x1","subleaf":"0x0","flags":0,"modifiers":[{"register":"eax","bitmap":"0bx1"}]}]}`, 204, ""},
		{"PUT", "/cpu-config", `{"cpuid_modifiers":[{"leaf":"1","subleaf":"0x0","flags":0,"modifiers":[]}]}`, 400, "prefix"},
		{"PUT", "/cpu-config", `{"cpuid_modifiers":[{"leaf":"0x1","subleaf":"0x0","flags":0,"modifiers":[{"register":"foo","bitmap":"0b1"}]}]}`, 400, "register"},
		{"PUT", "/cpu-config", `{"msr_modifiers":[{"addr":"0x10","bitmap":"0b2"}]}`, 400, "bitmap"},
		{"PUT", "/cpu-config", `{"reg_modifiers":[]}`, 400, "unknown field"},
		{"PUT", "/mmds/config", `{"network_interfaces":[]}`, 400, "empty"},
		{"PUT", "/mmds/config", `{"network_interfaces":["eth0"]}`, 400, "eth0"},
		{"PUT", "/mmds/config", `{"network_interfaces":["eth0"],"ipv4_address":"10.0.0.1"}`, 400, "link local"},
		{"PUT", "/mmds/config", `{"network_interfaces":["eth0"],"version":"V3"}`, 400, "unknown variant"},
		{"PUT", "/network-interfaces/e", `{"iface_id":"e","host_dev_name":"toolongname12345"}`, 400, ""},
		{"PUT", "/network-interfaces/e", `{"iface_id":"e","host_dev_name":"lo"}`, 400, ""},
		{"PUT", "/network-interfaces/e", `{"iface_id":"e","host_dev_name":"t","guest_mac":"aa-fc-00-00-00-01"}`, 400, "MAC"},
		{"PUT", "/network-interfaces/e", `{"iface_id":"e","host_dev_name":"t","mtu":67}`, 400, "68"},
		{"PUT", "/network-interfaces/e", `{"iface_id":"e"}`, 400, "missing field `host_dev_name`"},
	})
}
