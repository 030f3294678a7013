package fcapi

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// call is one method of Client, what it must send, and what it must make of
// the answer.
type call struct {
	name    string
	do      func(context.Context, *Client) (any, error)
	request *Request // what the constructor gives
	wire    string   // METHOD path body
	answer  string   // body of a 200, else 204
	want    any
}

// put makes a call out of a method without answer.
func put[T any](name string, method func(*Client, context.Context, T) error, construct func(T) Request, v T, wire string) call {
	r := construct(v)
	return call{name: name, request: &r, wire: wire, do: func(ctx context.Context, c *Client) (any, error) {
		return nil, method(c, ctx, v)
	}}
}

func act(name string, method func(*Client, context.Context) error, r Request, wire string) call {
	return call{name: name, request: &r, wire: wire, do: func(ctx context.Context, c *Client) (any, error) {
		return nil, method(c, ctx)
	}}
}

func ask[T any](name string, method func(*Client, context.Context) (T, error), wire, answer string, want T) call {
	return call{name: name, wire: wire, answer: answer, want: want, do: func(ctx context.Context, c *Client) (any, error) {
		return method(c, ctx)
	}}
}

func calls() []call {
	bucket := &TokenBucket{Size: 1000, OneTimeBurst: 5, RefillTime: 100}
	limit := &RateLimiter{Bandwidth: bucket, Ops: &TokenBucket{Size: 10, RefillTime: 1}}
	const bucketJSON = `{"size":1000,"one_time_burst":5,"refill_time":100}`
	const limitJSON = `{"bandwidth":` + bucketJSON + `,"ops":{"size":10,"refill_time":1}}`
	return []call{
		ask("Describe", (*Client).Describe, "GET / ",
			`{"id":"anonymous-instance","state":"Not started","vmm_version":"1.16.1","app_name":"Firecracker"}`,
			InstanceInfo{"anonymous-instance", StateNotStarted, "1.16.1", "Firecracker"}),
		ask("Version", (*Client).Version, "GET /version ", `{"firecracker_version":"1.16.1"}`, "1.16.1"),

		put("Action", (*Client).Action, ActionRequest, "SendCtrlAltDel", `PUT /actions {"action_type":"SendCtrlAltDel"}`),
		act("StartInstance", (*Client).StartInstance, StartInstanceRequest(), `PUT /actions {"action_type":"InstanceStart"}`),
		act("SendCtrlAltDel", (*Client).SendCtrlAltDel, SendCtrlAltDelRequest(), `PUT /actions {"action_type":"SendCtrlAltDel"}`),
		act("FlushMetrics", (*Client).FlushMetrics, FlushMetricsRequest(), `PUT /actions {"action_type":"FlushMetrics"}`),

		put("PatchVM", (*Client).PatchVM, PatchVMRequest, VM{VMPaused}, `PATCH /vm {"state":"Paused"}`),
		act("Pause", (*Client).Pause, PauseRequest(), `PATCH /vm {"state":"Paused"}`),
		act("Resume", (*Client).Resume, ResumeRequest(), `PATCH /vm {"state":"Resumed"}`),

		put("PutMachineConfig, least", (*Client).PutMachineConfig, PutMachineConfigRequest,
			MachineConfig{VCPUCount: 1, MemSizeMiB: 128}, `PUT /machine-config {"vcpu_count":1,"mem_size_mib":128}`),
		put("PutMachineConfig, all", (*Client).PutMachineConfig, PutMachineConfigRequest,
			MachineConfig{VCPUCount: 2, MemSizeMiB: 256, SMT: true, CPUTemplate: CPUTemplateT2, TrackDirtyPages: true, HugePages: HugePages2M},
			`PUT /machine-config {"vcpu_count":2,"mem_size_mib":256,"smt":true,"cpu_template":"T2","track_dirty_pages":true,"huge_pages":"2M"}`),
		put("PatchMachineConfig, least", (*Client).PatchMachineConfig, PatchMachineConfigRequest,
			MachineConfigPatch{SMT: new(false)}, `PATCH /machine-config {"smt":false}`),
		put("PatchMachineConfig, all", (*Client).PatchMachineConfig, PatchMachineConfigRequest,
			MachineConfigPatch{new(4), new(512), new(true), new(CPUTemplateNone), new(false), new(HugePagesNone)},
			`PATCH /machine-config {"vcpu_count":4,"mem_size_mib":512,"smt":true,"cpu_template":"None","track_dirty_pages":false,"huge_pages":"None"}`),
		ask("GetMachineConfig", (*Client).GetMachineConfig, "GET /machine-config ",
			`{"vcpu_count":1,"mem_size_mib":128,"smt":false,"track_dirty_pages":true,"huge_pages":"None"}`,
			MachineConfig{VCPUCount: 1, MemSizeMiB: 128, TrackDirtyPages: true, HugePages: HugePagesNone}),

		put("PutBootSource, least", (*Client).PutBootSource, PutBootSourceRequest,
			BootSource{KernelImagePath: "vmlinux"}, `PUT /boot-source {"kernel_image_path":"vmlinux"}`),
		put("PutBootSource, no arguments at all", (*Client).PutBootSource, PutBootSourceRequest,
			BootSource{KernelImagePath: "vmlinux", BootArgs: new("")}, `PUT /boot-source {"kernel_image_path":"vmlinux","boot_args":""}`),
		put("PutBootSource, all", (*Client).PutBootSource, PutBootSourceRequest,
			BootSource{"vmlinux", "initrd", new("console=ttyS0")},
			`PUT /boot-source {"kernel_image_path":"vmlinux","initrd_path":"initrd","boot_args":"console=ttyS0"}`),

		put("PutCPUConfig, least", (*Client).PutCPUConfig, PutCPUConfigRequest, CPUConfig{}, `PUT /cpu-config {}`),
		put("PutCPUConfig, all", (*Client).PutCPUConfig, PutCPUConfigRequest,
			CPUConfig{
				KVMCapabilities: []string{"!121"},
				CPUIDModifiers:  []CPUIDLeafModifier{{"0x7", "0x0", 1, []CPUIDRegisterModifier{{"ebx", "0b1x"}}}},
				MSRModifiers:    []MSRModifier{{"0x10a", "0b0"}},
				RegModifiers:    []ARMRegisterModifier{{"0x1", "0b1"}},
				VCPUFeatures:    []VCPUFeature{{0, "0b11"}},
			},
			`PUT /cpu-config {"kvm_capabilities":["!121"],`+
				`"cpuid_modifiers":[{"leaf":"0x7","subleaf":"0x0","flags":1,"modifiers":[{"register":"ebx","bitmap":"0b1x"}]}],`+
				`"msr_modifiers":[{"addr":"0x10a","bitmap":"0b0"}],"reg_modifiers":[{"addr":"0x1","bitmap":"0b1"}],`+
				`"vcpu_features":[{"index":0,"bitmap":"0b11"}]}`),

		put("PutDrive, least", (*Client).PutDrive, PutDriveRequest,
			Drive{DriveID: "d_1", PathOnHost: "disk"}, `PUT /drives/d_1 {"drive_id":"d_1","is_root_device":false,"path_on_host":"disk"}`),
		put("PutDrive, vhost-user", (*Client).PutDrive, PutDriveRequest,
			Drive{DriveID: "d", Socket: "blk.sock"}, `PUT /drives/d {"drive_id":"d","is_root_device":false,"socket":"blk.sock"}`),
		put("PutDrive, all", (*Client).PutDrive, PutDriveRequest,
			Drive{"rootfs", true, "0eaa91a0-01", CacheWriteback, true, "disk", limit, IOAsync, "s"},
			`PUT /drives/rootfs {"drive_id":"rootfs","is_root_device":true,"partuuid":"0eaa91a0-01","cache_type":"Writeback",`+
				`"is_read_only":true,"path_on_host":"disk","rate_limiter":`+limitJSON+`,"io_engine":"Async","socket":"s"}`),
		put("PatchDrive, least", (*Client).PatchDrive, PatchDriveRequest, DrivePatch{DriveID: "d"}, `PATCH /drives/d {"drive_id":"d"}`),
		put("PatchDrive, all", (*Client).PatchDrive, PatchDriveRequest, DrivePatch{"d", "new", limit},
			`PATCH /drives/d {"drive_id":"d","path_on_host":"new","rate_limiter":`+limitJSON+`}`),
		put("PatchDrive, limit taken away", (*Client).PatchDrive, PatchDriveRequest,
			DrivePatch{DriveID: "d", RateLimiter: &RateLimiter{Ops: &TokenBucket{}}},
			`PATCH /drives/d {"drive_id":"d","rate_limiter":{"ops":{"size":0,"refill_time":0}}}`),
		put("DeleteDrive", (*Client).DeleteDrive, DeleteDriveRequest, "d", "DELETE /drives/d "),

		put("PutPmem, least", (*Client).PutPmem, PutPmemRequest, Pmem{ID: "p", PathOnHost: "f"}, `PUT /pmem/p {"id":"p","path_on_host":"f"}`),
		put("PutPmem, all", (*Client).PutPmem, PutPmemRequest, Pmem{"p", "f", true, true, limit},
			`PUT /pmem/p {"id":"p","path_on_host":"f","root_device":true,"read_only":true,"rate_limiter":`+limitJSON+`}`),
		put("PatchPmem", (*Client).PatchPmem, PatchPmemRequest, PmemPatch{"p", limit}, `PATCH /pmem/p {"id":"p","rate_limiter":`+limitJSON+`}`),
		put("DeletePmem", (*Client).DeletePmem, DeletePmemRequest, "p", "DELETE /pmem/p "),

		put("PutNetworkInterface, least", (*Client).PutNetworkInterface, PutNetworkInterfaceRequest,
			NetworkInterface{IfaceID: "eth0", HostDevName: "tap0"}, `PUT /network-interfaces/eth0 {"iface_id":"eth0","host_dev_name":"tap0"}`),
		put("PutNetworkInterface, all", (*Client).PutNetworkInterface, PutNetworkInterfaceRequest,
			NetworkInterface{"eth0", "tap0", "AA:FC:00:00:00:01", 1400, limit, limit},
			`PUT /network-interfaces/eth0 {"iface_id":"eth0","host_dev_name":"tap0","guest_mac":"AA:FC:00:00:00:01","mtu":1400,`+
				`"rx_rate_limiter":`+limitJSON+`,"tx_rate_limiter":`+limitJSON+`}`),
		put("PatchNetworkInterface, least", (*Client).PatchNetworkInterface, PatchNetworkInterfaceRequest,
			NetworkInterfacePatch{IfaceID: "eth0"}, `PATCH /network-interfaces/eth0 {"iface_id":"eth0"}`),
		put("PatchNetworkInterface, all", (*Client).PatchNetworkInterface, PatchNetworkInterfaceRequest,
			NetworkInterfacePatch{"eth0", limit, limit},
			`PATCH /network-interfaces/eth0 {"iface_id":"eth0","rx_rate_limiter":`+limitJSON+`,"tx_rate_limiter":`+limitJSON+`}`),
		put("DeleteNetworkInterface", (*Client).DeleteNetworkInterface, DeleteNetworkInterfaceRequest, "eth0", "DELETE /network-interfaces/eth0 "),

		put("PutVsock, least", (*Client).PutVsock, PutVsockRequest, Vsock{GuestCID: 3, UDSPath: "v.sock"}, `PUT /vsock {"guest_cid":3,"uds_path":"v.sock"}`),
		put("PutVsock, all", (*Client).PutVsock, PutVsockRequest, Vsock{3, "v.sock", "id"}, `PUT /vsock {"guest_cid":3,"uds_path":"v.sock","vsock_id":"id"}`),
		put("PutEntropy, least", (*Client).PutEntropy, PutEntropyRequest, EntropyDevice{}, `PUT /entropy {}`),
		put("PutEntropy, all", (*Client).PutEntropy, PutEntropyRequest, EntropyDevice{limit}, `PUT /entropy {"rate_limiter":`+limitJSON+`}`),
		put("PutSerial, least", (*Client).PutSerial, PutSerialRequest, SerialDevice{}, `PUT /serial {}`),
		put("PutSerial, all", (*Client).PutSerial, PutSerialRequest, SerialDevice{"out", bucket},
			`PUT /serial {"serial_out_path":"out","rate_limiter":`+bucketJSON+`}`),

		put("PutBalloon, least", (*Client).PutBalloon, PutBalloonRequest, Balloon{}, `PUT /balloon {"amount_mib":0,"deflate_on_oom":false}`),
		put("PutBalloon, all", (*Client).PutBalloon, PutBalloonRequest, Balloon{64, true, 1, true, true},
			`PUT /balloon {"amount_mib":64,"deflate_on_oom":true,"stats_polling_interval_s":1,"free_page_hinting":true,"free_page_reporting":true}`),
		put("PatchBalloon", (*Client).PatchBalloon, PatchBalloonRequest, BalloonPatch{0}, `PATCH /balloon {"amount_mib":0}`),
		ask("GetBalloon", (*Client).GetBalloon, "GET /balloon ",
			`{"amount_mib":8,"deflate_on_oom":true,"stats_polling_interval_s":5,"free_page_hinting":false,"free_page_reporting":true}`,
			Balloon{AmountMiB: 8, DeflateOnOOM: true, StatsPollingIntervalS: 5, FreePageReporting: true}),
		put("PatchBalloonStatistics", (*Client).PatchBalloonStatistics, PatchBalloonStatisticsRequest,
			BalloonStatisticsPatch{0}, `PATCH /balloon/statistics {"stats_polling_interval_s":0}`),
		ask("GetBalloonStatistics", (*Client).GetBalloonStatistics, "GET /balloon/statistics ",
			`{"target_pages":1,"actual_pages":2,"target_mib":3,"actual_mib":4,"swap_in":18446744073709551615,"oom_kill":0}`,
			BalloonStatistics{TargetPages: 1, ActualPages: 2, TargetMiB: 3, ActualMiB: 4, SwapIn: new(uint64(1<<64 - 1)), OOMKill: new(uint64(0))}),
		put("StartBalloonHinting, least", (*Client).StartBalloonHinting, StartBalloonHintingRequest,
			BalloonHintingStart{}, `PATCH /balloon/hinting/start {}`),
		put("StartBalloonHinting, all", (*Client).StartBalloonHinting, StartBalloonHintingRequest,
			BalloonHintingStart{new(false)}, `PATCH /balloon/hinting/start {"acknowledge_on_stop":false}`),
		act("StopBalloonHinting", (*Client).StopBalloonHinting, StopBalloonHintingRequest(), `PATCH /balloon/hinting/stop `),
		ask("GetBalloonHintingStatus", (*Client).GetBalloonHintingStatus, "GET /balloon/hinting/status ",
			`{"host_cmd":2,"guest_cmd":null}`, BalloonHintingStatus{HostCmd: 2}),

		put("PutMemoryHotplug, least", (*Client).PutMemoryHotplug, PutMemoryHotplugRequest,
			MemoryHotplug{TotalSizeMiB: 1024}, `PUT /hotplug/memory {"total_size_mib":1024}`),
		put("PutMemoryHotplug, all", (*Client).PutMemoryHotplug, PutMemoryHotplugRequest,
			MemoryHotplug{1024, 128, 2}, `PUT /hotplug/memory {"total_size_mib":1024,"slot_size_mib":128,"block_size_mib":2}`),
		put("PatchMemoryHotplug", (*Client).PatchMemoryHotplug, PatchMemoryHotplugRequest,
			MemoryHotplugPatch{0}, `PATCH /hotplug/memory {"requested_size_mib":0}`),
		ask("GetMemoryHotplug", (*Client).GetMemoryHotplug, "GET /hotplug/memory ",
			`{"block_size_mib":2,"total_size_mib":1024,"slot_size_mib":128,"plugged_size_mib":256,"requested_size_mib":512}`,
			MemoryHotplugStatus{1024, 128, 2, 256, 512}),

		put("PutMMDSConfig, least", (*Client).PutMMDSConfig, PutMMDSConfigRequest,
			MMDSConfig{NetworkInterfaces: []string{"eth0"}}, `PUT /mmds/config {"network_interfaces":["eth0"]}`),
		put("PutMMDSConfig, all", (*Client).PutMMDSConfig, PutMMDSConfigRequest,
			MMDSConfig{MMDSV2, []string{"a", "b"}, "169.254.1.1", true},
			`PUT /mmds/config {"version":"V2","network_interfaces":["a","b"],"ipv4_address":"169.254.1.1","imds_compat":true}`),
		put("PutMMDS", (*Client).PutMMDS, PutMMDSRequest, any(map[string]any{"a": 1}), `PUT /mmds {"a":1}`),
		put("PutMMDS, null", (*Client).PutMMDS, PutMMDSRequest, nil, `PUT /mmds null`),
		put("PatchMMDS", (*Client).PatchMMDS, PatchMMDSRequest, any(json.RawMessage(`{"a":null}`)), `PATCH /mmds {"a":null}`),
		ask("GetMMDS", (*Client).GetMMDS, "GET /mmds ", `{"a":{"b":1.0}}`, json.RawMessage(`{"a":{"b":1.0}}`)),

		put("PutLogger, least", (*Client).PutLogger, PutLoggerRequest, Logger{}, `PUT /logger {}`),
		put("PutLogger, all", (*Client).PutLogger, PutLoggerRequest,
			Logger{"log", LogDebug, new(true), new(false), "api_server"},
			`PUT /logger {"log_path":"log","level":"Debug","show_level":true,"show_log_origin":false,"module":"api_server"}`),
		put("PutMetrics, least", (*Client).PutMetrics, PutMetricsRequest, Metrics{MetricsPath: "m"}, `PUT /metrics {"metrics_path":"m"}`),
		put("PutMetrics, all", (*Client).PutMetrics, PutMetricsRequest,
			Metrics{"m", true, map[string]string{"k": "v"}}, `PUT /metrics {"metrics_path":"m","emit_id":true,"properties":{"k":"v"}}`),

		put("CreateSnapshot, least", (*Client).CreateSnapshot, CreateSnapshotRequest,
			SnapshotCreate{SnapshotPath: "s", MemFilePath: "m"}, `PUT /snapshot/create {"snapshot_path":"s","mem_file_path":"m"}`),
		put("CreateSnapshot, all", (*Client).CreateSnapshot, CreateSnapshotRequest,
			SnapshotCreate{SnapshotDiff, "s", "m"}, `PUT /snapshot/create {"snapshot_type":"Diff","snapshot_path":"s","mem_file_path":"m"}`),
		put("LoadSnapshot, least", (*Client).LoadSnapshot, LoadSnapshotRequest,
			SnapshotLoad{SnapshotPath: "s", MemBackend: &MemoryBackend{MemoryFile, "m"}},
			`PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_type":"File","backend_path":"m"}}`),
		put("LoadSnapshot, all", (*Client).LoadSnapshot, LoadSnapshotRequest,
			SnapshotLoad{"s", &MemoryBackend{MemoryUffd, "u.sock"}, true, true, []NetworkOverride{{"eth0", "tap1"}}, &VsockOverride{"v2.sock"}, true, HugePagesSnapshot, "m", true},
			`PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_type":"Uffd","backend_path":"u.sock"},"track_dirty_pages":true,`+
				`"resume_vm":true,"network_overrides":[{"iface_id":"eth0","host_dev_name":"tap1"}],"vsock_override":{"uds_path":"v2.sock"},`+
				`"clock_realtime":true,"huge_pages":"Snapshot","mem_file_path":"m","enable_diff_snapshots":true}`),

		ask("VMConfig, fresh", (*Client).VMConfig, "GET /vm/config ",
			`{"balloon":null,"drives":[],"boot-source":{"kernel_image_path":"","initrd_path":null,"boot_args":null},"cpu-config":null,"logger":null,`+
				`"machine-config":{"vcpu_count":1,"mem_size_mib":128,"smt":false,"track_dirty_pages":false,"huge_pages":"None"},"metrics":null,`+
				`"mmds-config":null,"network-interfaces":[],"vsock":null,"entropy":null,"pmem":[],"memory-hotplug":null}`,
			VMConfig{
				Drives: []Drive{}, BootSource: &BootSource{}, MachineConfig: &MachineConfig{VCPUCount: 1, MemSizeMiB: 128, HugePages: HugePagesNone},
				NetworkInterfaces: []NetworkInterface{}, Pmem: []Pmem{},
			}),
		ask("VMConfig, full", (*Client).VMConfig, "GET /vm/config ",
			`{"balloon":{"amount_mib":0,"deflate_on_oom":true,"stats_polling_interval_s":1,"free_page_hinting":true,"free_page_reporting":false},`+
				`"drives":[{"drive_id":"r_1","partuuid":null,"is_root_device":true,"cache_type":"Unsafe","is_read_only":true,"path_on_host":"disk",`+
				`"rate_limiter":{"bandwidth":{"size":1048576,"one_time_burst":null,"refill_time":100},"ops":null},"io_engine":"Sync","socket":null}],`+
				`"boot-source":{"kernel_image_path":"k","initrd_path":null,"boot_args":"x"},"cpu-config":null,"logger":null,`+
				`"machine-config":{"vcpu_count":1,"mem_size_mib":128,"smt":false,"track_dirty_pages":false,"huge_pages":"None"},"metrics":null,`+
				`"mmds-config":{"version":"V2","network_interfaces":["eth0"],"ipv4_address":null,"imds_compat":false},`+
				`"network-interfaces":[{"iface_id":"eth0","host_dev_name":"tap0","guest_mac":"aa:fc:00:00:00:01","mtu":1400,"rx_rate_limiter":null,"tx_rate_limiter":null}],`+
				`"vsock":{"guest_cid":3,"uds_path":"v.sock"},"entropy":{"rate_limiter":null},`+
				`"pmem":[{"id":"p1","path_on_host":"pm","root_device":false,"read_only":true,"rate_limiter":null}],`+
				`"memory-hotplug":{"total_size_mib":1024,"block_size_mib":2,"slot_size_mib":128},"of-a-later-release":{}}`,
			VMConfig{
				Balloon: &Balloon{DeflateOnOOM: true, StatsPollingIntervalS: 1, FreePageHinting: true},
				Drives: []Drive{{DriveID: "r_1", IsRootDevice: true, CacheType: CacheUnsafe, IsReadOnly: true, PathOnHost: "disk",
					RateLimiter: &RateLimiter{Bandwidth: &TokenBucket{Size: 1 << 20, RefillTime: 100}}, IOEngine: IOSync}},
				BootSource:        &BootSource{KernelImagePath: "k", BootArgs: new("x")},
				MachineConfig:     &MachineConfig{VCPUCount: 1, MemSizeMiB: 128, HugePages: HugePagesNone},
				MMDSConfig:        &MMDSConfig{Version: MMDSV2, NetworkInterfaces: []string{"eth0"}},
				NetworkInterfaces: []NetworkInterface{{IfaceID: "eth0", HostDevName: "tap0", GuestMAC: "aa:fc:00:00:00:01", MTU: 1400}},
				Vsock:             &Vsock{GuestCID: 3, UDSPath: "v.sock"}, Entropy: &EntropyDevice{},
				Pmem:          []Pmem{{ID: "p1", PathOnHost: "pm", ReadOnly: true}},
				MemoryHotplug: &MemoryHotplug{1024, 128, 2},
			}),
	}
}

// TestEveryMethodSendsItsRequest also holds the golden JSON of every type, with
// all fields and with the fewest.
func TestEveryMethodSendsItsRequest(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got received
	var reply string
	f := newFake(t, func(r received, w net.Conn) error {
		mu.Lock()
		defer mu.Unlock()
		got = r
		_, err := io.WriteString(w, reply)
		return err
	})
	c := newClient(t, f)
	for _, tt := range calls() {
		mu.Lock()
		reply = noContent
		if tt.answer != "" {
			reply = answer(200, tt.answer)
		}
		mu.Unlock()
		v, err := tt.do(t.Context(), c)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		mu.Lock()
		sent := got
		mu.Unlock()
		if wire := sent.method + " " + sent.path + " " + sent.body; wire != tt.wire {
			t.Errorf("%s sent\n%s\nwant\n%s", tt.name, wire, tt.wire)
		}
		if diff := cmp.Diff(tt.want, v); diff != "" {
			t.Errorf("%s: answer (-want +got):\n%s", tt.name, diff)
		}
		if tt.request != nil {
			msg, err := tt.request.encode()
			if err != nil || string(msg) != sent.head+sent.body {
				t.Errorf("%s: the constructed request differs from the one sent: %q, %v", tt.name, msg, err)
			}
		}
	}
	if n := f.conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestEveryEndpointHasItsMethod compares with the paths and verbs of
// firecracker.yaml, and the DELETE verbs that it leaves out.
func TestEveryEndpointHasItsMethod(t *testing.T) {
	t.Parallel()
	want := []string{
		"GET /", "PUT /actions", "GET /balloon", "PUT /balloon", "PATCH /balloon", "GET /balloon/statistics", "PATCH /balloon/statistics",
		"PATCH /balloon/hinting/start", "GET /balloon/hinting/status", "PATCH /balloon/hinting/stop", "PUT /boot-source", "PUT /cpu-config",
		"PUT /drives/*", "PATCH /drives/*", "DELETE /drives/*", "PUT /pmem/*", "PATCH /pmem/*", "DELETE /pmem/*", "PUT /logger",
		"GET /machine-config", "PUT /machine-config", "PATCH /machine-config", "PUT /metrics", "PUT /mmds", "PATCH /mmds", "GET /mmds",
		"PUT /mmds/config", "PUT /entropy", "PUT /serial", "PUT /hotplug/memory", "PATCH /hotplug/memory", "GET /hotplug/memory",
		"PUT /network-interfaces/*", "PATCH /network-interfaces/*", "DELETE /network-interfaces/*", "PUT /snapshot/create",
		"PUT /snapshot/load", "GET /version", "PATCH /vm", "GET /vm/config", "PUT /vsock",
	}
	slices.Sort(want)
	var got []string
	named := map[string]bool{}
	for _, tt := range calls() {
		name, _, _ := strings.Cut(tt.name, ",")
		named[name] = true
		parts := strings.SplitN(tt.wire, " ", 3)
		segments := strings.Split(parts[1], "/")
		switch segments[1] {
		case "drives", "pmem", "network-interfaces":
			segments[2] = "*"
		}
		got = append(got, parts[0]+" "+strings.Join(segments, "/"))
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
		t.Errorf("endpoints (-want +got):\n%s", diff)
	}
	for m := range reflect.TypeFor[*Client]().Methods() {
		if !named[m.Name] && m.Name != "Do" && m.Name != "DoAll" && m.Name != "Close" && m.Name != "CheckVersion" {
			t.Errorf("method %s is not in the table", m.Name)
		}
	}
}

// TestAllFieldsAreInTheGoldenTable sees to it that a new field gets a golden
// value: for each type, some request in the table sets every field.
func TestAllFieldsAreInTheGoldenTable(t *testing.T) {
	t.Parallel()
	full := map[reflect.Type]map[string]bool{}
	for _, tt := range calls() {
		if tt.request == nil || tt.request.Body == nil {
			continue
		}
		v := reflect.ValueOf(tt.request.Body)
		if v.Kind() != reflect.Struct {
			continue
		}
		if full[v.Type()] == nil {
			full[v.Type()] = map[string]bool{}
		}
		sentBody := tt.wire[strings.Index(tt.wire, "{"):]
		var sent map[string]json.RawMessage
		if err := json.Unmarshal([]byte(sentBody), &sent); err != nil {
			t.Fatal(err)
		}
		for name := range sent {
			full[v.Type()][name] = true
		}
	}
	for typ, sent := range full {
		for field := range typ.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if !sent[name] {
				t.Errorf("no request in the table sets %s.%s (%s)", typ.Name(), field.Name, name)
			}
		}
	}
}

func TestRequestBytesAreThoseThatFirecrackerReads(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		r    Request
		want string
	}{
		"GET": {Request{Method: "GET", Path: "/"},
			"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"},
		"DELETE": {DeleteDriveRequest("d"),
			"DELETE /drives/d HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"},
		"PUT": {PauseRequest(),
			"PATCH /vm HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n{\"state\":\"Paused\"}"},
		"PATCH without body": {StopBalloonHintingRequest(),
			"PATCH /balloon/hinting/stop HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\nContent-Length: 0\r\n\r\n"},
	}
	for name, tt := range tests {
		got, err := tt.r.encode()
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, tt.want)
		}
	}
}
