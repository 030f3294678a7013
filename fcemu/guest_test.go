package fcemu_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

const tooLate = "not supported after starting the microVM"

// await waits until ok holds.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in %v", what, patience)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestRequestsAfterBootAreAnsweredAsTheOriginalAnswersThem(t *testing.T) {
	t.Parallel()
	v := start(t)
	v.walk([]step{
		{"PUT", "/drives/root", `{"drive_id":"root","path_on_host":"DIR/disk","is_root_device":true}`, 204, ""},
		{"PUT", "/drives/d", `{"drive_id":"d","path_on_host":"DIR/disk2","is_root_device":false}`, 204, ""},
		{"PUT", "/vsock", `{"guest_cid":3,"uds_path":"DIR/v.sock"}`, 204, ""},
		{"PUT", "/balloon", `{"amount_mib":0,"deflate_on_oom":true,"stats_polling_interval_s":1}`, 204, ""},
		{"PUT", "/entropy", `{}`, 204, ""},
		{"PUT", "/metrics", `{"metrics_path":"DIR/metrics"}`, 204, ""},
	})
	v.boot("console=ttyS0 -- to init")
	for _, state := range []string{"Running", "Paused"} {
		v.walk([]step{
			{"GET", "/", "", 200, `"state":"` + state + `"`},
			{"PUT", "/actions", `{"action_type":"InstanceStart"}`, 400, tooLate},
			{"PUT", "/boot-source", `{"kernel_image_path":"DIR/vmlinux"}`, 400, tooLate},
			{"PUT", "/machine-config", `{"vcpu_count":1,"mem_size_mib":8}`, 400, tooLate},
			{"PATCH", "/machine-config", `{"vcpu_count":1}`, 400, tooLate},
			{"PUT", "/vsock", `{"guest_cid":3,"uds_path":"DIR/v2.sock"}`, 400, tooLate},
			{"PUT", "/balloon", `{"amount_mib":0,"deflate_on_oom":true}`, 400, tooLate},
			{"PUT", "/logger", `{}`, 400, tooLate},
			{"PUT", "/metrics", `{"metrics_path":"DIR/m"}`, 400, tooLate},
			{"PUT", "/serial", `{}`, 400, tooLate},
			{"PUT", "/entropy", `{}`, 400, tooLate},
			{"PUT", "/cpu-config", `{}`, 400, tooLate},
			{"PUT", "/mmds/config", `{"network_interfaces":["eth0"]}`, 400, tooLate},
			{"PUT", "/hotplug/memory", `{"total_size_mib":1024}`, 400, tooLate},
			{"PUT", "/snapshot/load", `{"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"File"}}`, 400, tooLate},
			{"PUT", "/drives/n", `{"drive_id":"n","path_on_host":"DIR/disk2","is_root_device":false}`, 400, "PCI is not enabled"},
			{"DELETE", "/drives/d", "", 400, "PCI is not enabled"},
			{"PUT", "/network-interfaces/e", `{"iface_id":"e","host_dev_name":"t"}`, 400, "PCI is not enabled"},
			{"PUT", "/pmem/p", `{"id":"p","path_on_host":"DIR/disk"}`, 400, "PCI is not enabled"},
			{"PUT", "/actions", `{"action_type":"FlushMetrics"}`, 204, ""},
			{"PUT", "/mmds", `{"a":1}`, 400, "not initialized"}, // no mmds/config before the start
			{"PATCH", "/drives/d", `{"drive_id":"d","path_on_host":"DIR/disk"}`, 204, ""},
			{"PATCH", "/drives/d", `{"drive_id":"d"}`, 400, "neither"},
			{"PATCH", "/drives/d", `{"drive_id":"d","path_on_host":"DIR/nope"}`, 400, "os error 2"},
			{"PATCH", "/drives/x", `{"drive_id":"x","path_on_host":"DIR/disk"}`, 400, ""},
			{"PATCH", "/drives/d", `{"drive_id":"d","rate_limiter":{"ops":{"size":7,"refill_time":10}}}`, 204, ""},
			{"GET", "/vm/config", "", 200, `"path_on_host":"DIR/disk","rate_limiter":{"bandwidth":null,"ops":{"size":7,"one_time_burst":null,"refill_time":10}}`},
			{"PATCH", "/drives/d", `{"drive_id":"d","rate_limiter":{"ops":{"size":0,"refill_time":0}}}`, 204, ""},
			{"GET", "/vm/config", "", 200, `"path_on_host":"DIR/disk","rate_limiter":null`},
			{"PATCH", "/network-interfaces/e", `{"iface_id":"e"}`, 400, ""},
			{"PATCH", "/pmem/p", `{"id":"p"}`, 204, ""},
			{"PATCH", "/pmem/p", `{"id":"p","rate_limiter":{"ops":{"size":1,"refill_time":5}}}`, 400, ""},
			{"PATCH", "/balloon", `{"amount_mib":2}`, 204, ""},
			{"PATCH", "/balloon", `{"amount_mib":9}`, 400, ""},
			{"GET", "/balloon/statistics", "", 200, `"target_pages":512`},
			{"PATCH", "/balloon/statistics", `{"stats_polling_interval_s":0}`, 400, "after boot"},
			{"PATCH", "/balloon/statistics", `{"stats_polling_interval_s":1}`, 204, ""},
			{"PATCH", "/balloon/hinting/start", "", 400, "hinting"},
			{"PATCH", "/hotplug/memory", `{"requested_size_mib":128}`, 400, ""},
			{"GET", "/hotplug/memory", "", 400, ""},
		})
		if state == "Paused" {
			break
		}
		v.walk([]step{
			{"PUT", "/snapshot/create", `{"snapshot_path":"DIR/s","mem_file_path":"DIR/m"}`, 400, "while running"},
			{"PATCH", "/vm", `{"state":"Resumed"}`, 204, ""},
			{"PATCH", "/vm", `{"state":"Paused"}`, 204, ""},
			{"PATCH", "/vm", `{"state":"Paused"}`, 204, ""},
		})
	}
}

func TestTheGuestSeesTheUsersBootArgsUnchangedAndOursBeforeInits(t *testing.T) {
	t.Parallel()
	v := start(t)
	v.must("PUT", "/drives/root", `{"drive_id":"root","path_on_host":"DIR/disk","is_root_device":true,"is_read_only":true}`)
	v.boot(`console=ttyS0 console=tty0 x="a  b" -- -c "echo a  b" -- c`)
	const want = `console=ttyS0 console=tty0 x="a  b" pci=off root=/dev/vda ro -- -c "echo a  b" -- c`
	await(t, "the guest's first line", func() bool { return strings.Contains(v.file("stdout"), "\n") })
	if got := v.file("stdout"); !strings.Contains(got, want+"\r\n") {
		t.Errorf("the guest saw %q, want %q", got, want)
	}
}

func TestAGuestThatEndsTakesTheProcessWithItsCode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args string
		code int
	}{
		{"reboot=k fcemu.reboot_after=0s", 0},
		{"reboot=t fcemu.reboot_after=1ms", 1},
		{"reboot=k panic=-1 fcemu.panic_after=1ms", 0},
		{"reboot=k panic=1 fcemu.panic_after=0s", 0},
		{"fcemu.fault_after=1ms", 1},
		{"panic=1 fcemu.panic_after=5ms fcemu.console=lines:0:1000 fcemu.rewrite=1", 0},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			v := start(t)
			v.boot(c.args)
			if code := v.exit(); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if log := v.file("log"); !strings.Contains(log, fmt.Sprintf("exit_code=%d", c.code)) {
				t.Errorf("the log does not say so: %s", log)
			}
			if n := strings.Count(v.file("stdout"), "Kernel panic"); n > 1 {
				t.Errorf("the panic was printed %d times", n)
			}
			if errs := v.file("stderr"); strings.Contains(errs, "Error: ") != (c.code != 0) {
				t.Errorf("standard error: %s", errs)
			}
		})
	}
}

func TestAGuestThatPowersOffOrPanicsForeverKeepsTheProcessRunning(t *testing.T) {
	t.Parallel()
	for args, line := range map[string]string{
		"fcemu.poweroff_after=1ms":      "Power down",
		"panic=0 fcemu.panic_after=1ms": "Kernel panic",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			v := start(t)
			v.boot(args)
			await(t, line, func() bool { return strings.Contains(v.file("stdout"), line) })
			v.walk([]step{
				{"GET", "/", "", 200, `"state":"Running"`},
				{"PUT", "/actions", `{"action_type":"SendCtrlAltDel"}`, 204, ""},
				{"GET", "/", "", 200, `"state":"Running"`},
			})
			if n := strings.Count(v.file("stdout"), line); n != 1 {
				t.Errorf("%q was printed %d times", line, n)
			}
		})
	}
}

func TestCtrlAltDelRestartsTheGuestOnceItRuns(t *testing.T) {
	t.Parallel()
	v := start(t)
	v.boot("")
	v.walk([]step{
		{"PATCH", "/vm", `{"state":"Paused"}`, 204, ""},
		{"PUT", "/actions", `{"action_type":"SendCtrlAltDel"}`, 204, ""},
		{"GET", "/", "", 200, `"state":"Paused"`},
		{"PATCH", "/vm", `{"state":"Resumed"}`, 204, ""},
	})
	if code := v.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestMetricsAreOneLineOfJSONPerFlushAndCountFromTheLineBefore(t *testing.T) {
	t.Parallel()
	v := start(t)
	v.must("PUT", "/metrics", `{"metrics_path":"DIR/metrics"}`)
	v.boot("")
	v.must("PUT", "/actions", `{"action_type":"FlushMetrics"}`)
	v.do("PUT", "/actions", `{"action_type":"InstanceStart"}`)
	v.must("PUT", "/actions", `{"action_type":"FlushMetrics"}`)
	v.must("PUT", "/actions", `{"action_type":"SendCtrlAltDel"}`)
	v.exit()
	lines := strings.Split(strings.TrimSuffix(v.file("metrics"), "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines, want one per flush and one at the end", len(lines))
	}
	type line struct {
		Time int64 `json:"utc_timestamp_ms"`
		Put  struct {
			Actions int `json:"actions_count"`
			Fails   int `json:"actions_fails"`
			Boot    int `json:"boot_source_count"`
		} `json:"put_api_requests"`
	}
	var got [3]line
	for i, l := range lines {
		if err := json.Unmarshal([]byte(l), &got[i]); err != nil {
			t.Fatalf("line %d: %v", i, err)
		}
	}
	if got[0].Put.Boot != 1 || got[1].Put.Boot != 0 {
		t.Errorf("boot_source_count %d, %d, want 1, 0", got[0].Put.Boot, got[1].Put.Boot)
	}
	if got[1].Put.Fails != 1 || got[0].Put.Fails != 0 {
		t.Errorf("actions_fails %d, %d, want 0, 1", got[0].Put.Fails, got[1].Put.Fails)
	}
	if got[0].Time == 0 {
		t.Error("no timestamp")
	}
}

func TestLogAndMetricsAreWrittenOverWhatIsThere(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	furnish(t, dir)
	old := strings.Repeat("old ", 10000)
	write(t, dir, "log", old)
	v := startIn(t, dir, "--id", "a-1", "--show-level", "--show-log-origin")
	v.do("PUT", "/vsock", `{}`)
	log := v.file("log")
	if len(log) != len(old) || strings.HasPrefix(log, "old") {
		t.Error("the log was appended to or truncated")
	}
	for _, want := range []string{"[a-1:main:INFO:", "Running Firecracker v1.16.1-fcemu", `The API server received a Put request on "/vsock" with body "{}".`, ":ERROR:", "Status code: 400 Bad Request."} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not have %q", want)
		}
	}
}

func TestALevelSilencesTheLog(t *testing.T) {
	t.Parallel()
	v := start(t, "--level", "Off")
	v.do("PUT", "/vsock", `{}`)
	if log := v.file("log"); log != "" {
		t.Errorf("the log at level Off: %s", log)
	}
}

func TestAFileThatIsUnlinkedBeforeTheStartDoesNotMatter(t *testing.T) {
	t.Parallel()
	v := start(t)
	v.must("PUT", "/boot-source", `{"kernel_image_path":"DIR/vmlinux","initrd_path":"DIR/initrd"}`)
	for _, name := range []string{"vmlinux", "initrd"} {
		if err := os.Remove(v.dir + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
	v.must("PUT", "/actions", `{"action_type":"InstanceStart"}`)
}

func TestNobodyTakesItForTheOriginal(t *testing.T) {
	t.Parallel()
	v := start(t)
	if got := v.must("GET", "/version", ""); !strings.Contains(got, `"firecracker_version":"1.16.1-fcemu"`) {
		t.Errorf("GET /version: %s", got)
	}
	if got := v.must("GET", "/", ""); !strings.Contains(got, `-fcemu"`) {
		t.Errorf("GET /: %s", got)
	}
	if got := v.file("stderr"); !strings.Contains(got, "emulator") {
		t.Errorf("standard error: %s", got)
	}
}

func TestDevicesComeAndGoWithPCI(t *testing.T) {
	t.Parallel()
	v := start(t, "--enable-pci")
	v.must("PUT", "/drives/root", `{"drive_id":"root","path_on_host":"DIR/disk","is_root_device":true}`)
	v.must("PUT", "/hotplug/memory", `{"total_size_mib":1024}`)
	v.boot("")
	v.walk([]step{
		{"PUT", "/drives/n", `{"drive_id":"n","path_on_host":"DIR/disk2","is_root_device":false}`, 204, ""},
		{"GET", "/vm/config", "", 200, `"drive_id":"n"`},
		{"PUT", "/drives/n", `{"drive_id":"n","path_on_host":"DIR/disk2","is_root_device":false}`, 400, "Device ID in use"},
		{"PUT", "/drives/r", `{"drive_id":"r","path_on_host":"DIR/disk2","is_root_device":true}`, 400, "root"},
		{"PUT", "/drives/m", `{"drive_id":"m","path_on_host":"DIR/nope","is_root_device":false}`, 400, "os error 2"},
		{"DELETE", "/drives/n", "", 204, ""},
		{"DELETE", "/drives/n", "", 400, "Device not found"},
		{"DELETE", "/drives/root", "", 400, "root"},
		{"PUT", "/pmem/p", `{"id":"p","path_on_host":"DIR/disk2"}`, 204, ""},
		{"PUT", "/pmem/p", `{"id":"p","path_on_host":"DIR/disk2"}`, 400, "Device ID in use"},
		{"PUT", "/pmem/q", `{"id":"q","path_on_host":"DIR/nope"}`, 400, "os error 2"},
		{"DELETE", "/pmem/p", "", 204, ""},
		{"DELETE", "/network-interfaces/e", "", 400, "Device not found"},
		{"GET", "/vm/config", "", 200, `"pmem":[]`},
		{"PATCH", "/hotplug/memory", `{"requested_size_mib":3}`, 400, "block_size_mib"},
		{"PATCH", "/hotplug/memory", `{"requested_size_mib":128}`, 204, ""},
		{"GET", "/hotplug/memory", "", 200, `"plugged_size_mib":128`},
	})
}
