package firecracker

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/record"
)

func yes() *bool { b := true; return &b }
func no() *bool  { b := false; return &b }

// lines shows requests as they go out.
func lines(t *testing.T, reqs ...fcapi.Request) string {
	t.Helper()
	var b strings.Builder
	for _, q := range reqs {
		body, err := json.Marshal(q.Body)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(q.String() + " " + string(body) + "\n")
	}
	return b.String()
}

func recordOf(s microvm.Spec) *record.Record {
	return &record.Record{Spec: s, Disks: plannedDisks(s)}
}

var newest = version{1, 16}

func TestThePlanOfASmallVM(t *testing.T) {
	t.Parallel()
	s := microvm.Spec{
		Kernel: "/images/vmlinux", BootArgs: "console=ttyS0", VCPUs: 2, MemoryMiB: 128,
		Rootfs: &microvm.Rootfs{Path: "/images/rootfs.ext4"},
	}
	want := `PUT /metrics {"metrics_path":"metrics.json"}
PUT /serial {"rate_limiter":{"size":1048576,"refill_time":1000}}
PUT /machine-config {"vcpu_count":2,"mem_size_mib":128}
PUT /boot-source {"kernel_image_path":"vmlinux","boot_args":"console=ttyS0"}
PUT /drives/rootfs {"drive_id":"rootfs","is_root_device":true,"path_on_host":"rootfs.ext4"}
`
	if diff := cmp.Diff(want, lines(t, bootRequests(recordOf(s), newest, 1<<20)...)); diff != "" {
		t.Error(diff)
	}
}

func TestThePlanOfAVMWithEverything(t *testing.T) {
	t.Parallel()
	s := microvm.Spec{
		Kernel: "/k", Initrd: "/i", BootArgs: "a", VCPUs: 4, MemoryMiB: 512, SMT: yes(), CPUTemplate: "T2", HugePages: "2M", TrackDirtyPages: yes(),
		Rootfs: &microvm.Rootfs{Path: "/r", ReadOnly: yes(), CacheType: "Writeback", IOEngine: "Async", RateLimit: &microvm.RateLimit{Bandwidth: microvm.PerSecond(5), Ops: &microvm.TokenBucket{Size: 1, OneTimeBurst: 2, RefillMS: 3}}},
		Drives: []microvm.Drive{{ID: "data", Path: "/d", InPlace: true}},
		NetworkInterfaces: []microvm.NetworkInterface{{ID: "eth0", HostDevName: "tap0", MAC: "06:00:00:00:00:01", MTU: 1400,
			RxRateLimit: &microvm.RateLimit{Bandwidth: microvm.PerSecond(6)}, TxRateLimit: &microvm.RateLimit{Ops: microvm.PerSecond(7)}}},
		Vsock:   &microvm.Vsock{CID: 9},
		MMDS:    &microvm.MMDS{Version: "V2", Address: "169.254.169.254", Interfaces: []string{"eth0"}, Contents: json.RawMessage(`{"a":1}`), IMDSCompat: true},
		Balloon: &microvm.Balloon{TargetMiB: 64, DeflateOnOOM: true, StatsIntervalS: 1},
		Entropy: &microvm.Entropy{}, Serial: &microvm.Serial{RateLimit: microvm.PerSecond(8)}, Metrics: no(),
	}
	want := `PUT /serial {"rate_limiter":{"size":8,"refill_time":1000}}
PUT /machine-config {"vcpu_count":4,"mem_size_mib":512,"smt":true,"cpu_template":"T2","track_dirty_pages":true,"huge_pages":"2M"}
PUT /boot-source {"kernel_image_path":"vmlinux","initrd_path":"initrd","boot_args":"a"}
PUT /drives/rootfs {"drive_id":"rootfs","is_root_device":true,"cache_type":"Writeback","is_read_only":true,"path_on_host":"rootfs.ext4","rate_limiter":{"bandwidth":{"size":5,"refill_time":1000},"ops":{"size":1,"one_time_burst":2,"refill_time":3}},"io_engine":"Async"}
PUT /drives/data {"drive_id":"data","is_root_device":false,"path_on_host":"drive_data"}
PUT /network-interfaces/eth0 {"iface_id":"eth0","host_dev_name":"tap0","guest_mac":"06:00:00:00:00:01","mtu":1400,"rx_rate_limiter":{"bandwidth":{"size":6,"refill_time":1000}},"tx_rate_limiter":{"ops":{"size":7,"refill_time":1000}}}
PUT /vsock {"guest_cid":9,"uds_path":"vsock.sock"}
PUT /mmds/config {"version":"V2","network_interfaces":["eth0"],"ipv4_address":"169.254.169.254","imds_compat":true}
PUT /mmds {"a":1}
PUT /balloon {"amount_mib":64,"deflate_on_oom":true,"stats_polling_interval_s":1}
PUT /entropy {}
`
	if diff := cmp.Diff(want, lines(t, bootRequests(recordOf(s), newest, 1<<20)...)); diff != "" {
		t.Error(diff)
	}
}

func TestWhatTheVMMIsToldIsRelativeToItsDirectory(t *testing.T) {
	t.Parallel()
	cmd := launchCommand("/usr/bin/firecracker", "/state/vms/a/run", "00ff", []string{"PATH=/bin"})
	if cmd.Dir != "/state/vms/a/run" {
		t.Errorf("it works in %s", cmd.Dir)
	}
	for _, a := range cmd.Args {
		if strings.HasPrefix(a, "/") {
			t.Errorf("an absolute path among the arguments: %s", a)
		}
	}
	// The uid is letters and digits, whatever the VM is called.
	if cmd.Args[0] != "--id" || cmd.Args[1] != "00ff" {
		t.Errorf("arguments %q", cmd.Args)
	}
}

// A root= of the user's own must not meet a second one from Firecracker, and
// what stands behind "--" is init's.
func TestTheUsersRootArgumentWins(t *testing.T) {
	t.Parallel()
	for args, root := range map[string]bool{
		"console=ttyS0":                               true,
		"console=ttyS0 root=/dev/vdb":                 false,
		"root=PARTUUID=1 rw":                          false,
		"noroot=1 xroot=/dev/vdb":                     true,
		`init=/bin/sh -- -c "echo a  b" root=x`:       true,
		"console=ttyS0 console=tty0 root=/dev/vdb --": false,
		"foo --bar root=/dev/vdb":                     false,
	} {
		s := microvm.Spec{BootArgs: args, Rootfs: &microvm.Rootfs{Path: "/r"}}
		if got := drive(s, plannedDisks(s)[0]).IsRootDevice; got != root {
			t.Errorf("%q: root device %v", args, got)
		}
	}
}

func TestBootArgsGoThroughByteForByte(t *testing.T) {
	t.Parallel()
	const args = `console=ttyS0 console=tty0 panic=1  init=/bin/sh -- -c "echo a  b; reboot -f"`
	for _, q := range bootRequests(recordOf(microvm.Spec{BootArgs: args}), newest, -1) {
		if b, ok := q.Body.(fcapi.BootSource); ok {
			if *b.BootArgs != args {
				t.Errorf("sent: %q", *b.BootArgs)
			}
			return
		}
	}
	t.Error("no boot source was sent")
}

func TestAVMWithoutRootDiskHasNoDrive(t *testing.T) {
	t.Parallel()
	for _, q := range bootRequests(recordOf(microvm.Spec{Initrd: "/i", NoRootfs: true}), newest, -1) {
		if strings.HasPrefix(q.Path, "/drives") {
			t.Errorf("sent: %s", q)
		}
	}
}

func TestOldReleasesAreSpared(t *testing.T) {
	t.Parallel()
	sent := lines(t, bootRequests(recordOf(microvm.Spec{Rootfs: &microvm.Rootfs{Path: "/r"}}), version{1, 15}, 1<<20)...)
	if strings.Contains(sent, "/serial") {
		t.Errorf("1.15 has no serial rate limit:\n%s", sent)
	}
	for name, c := range map[string]struct {
		spec microvm.Spec
		v    version
		want bool
	}{
		"mtu on 1.15":            {microvm.Spec{NetworkInterfaces: []microvm.NetworkInterface{{MTU: 1400}}}, version{1, 15}, false},
		"mtu on 1.16":            {microvm.Spec{NetworkInterfaces: []microvm.NetworkInterface{{MTU: 1400}}}, version{1, 16}, true},
		"hinting on 1.13":        {microvm.Spec{Balloon: &microvm.Balloon{FreePageHinting: true}}, version{1, 13}, false},
		"serial limit on 1.15":   {microvm.Spec{Serial: &microvm.Serial{RateLimit: microvm.PerSecond(1)}}, version{1, 15}, false},
		"imds_compat on 1.12":    {microvm.Spec{MMDS: &microvm.MMDS{IMDSCompat: true}}, version{1, 12}, false},
		"nothing special on 1.7": {microvm.Spec{}, version{1, 7}, true},
	} {
		err := checkVersion(c.spec, c.v)
		if (err == nil) != c.want || err != nil && !errors.Is(err, microvm.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && !strings.Contains(err.Error(), c.v.String()) {
			t.Errorf("%s: the error does not name the version: %v", name, err)
		}
	}
}

func TestALoadSaysOnlyWhatTheReleaseKnows(t *testing.T) {
	t.Parallel()
	overrides := &microvm.RestoreFrom{NetworkOverrides: []microvm.NetworkOverride{{InterfaceID: "eth0", HostDevName: "tap1"}}}
	path := &microvm.RestoreFrom{VsockPath: "/run/x.sock"}
	tracked := microvm.Spec{TrackDirtyPages: yes()}
	const plain = `"snapshot_path":"vmstate","mem_backend":{"backend_type":"File","backend_path":"memory"}`
	for name, c := range map[string]struct {
		spec microvm.Spec
		from *microvm.RestoreFrom
		v    version
		want string // empty: refused
	}{
		"plain on 1.7":      {microvm.Spec{}, &microvm.RestoreFrom{}, version{1, 7}, `{` + plain + `}`},
		"overrides on 1.11": {microvm.Spec{}, overrides, version{1, 11}, ""},
		"overrides on 1.12": {microvm.Spec{}, overrides, version{1, 12}, `{` + plain + `,"network_overrides":[{"iface_id":"eth0","host_dev_name":"tap1"}]}`},
		"vsock on 1.15":     {microvm.Spec{}, path, version{1, 15}, ""},
		"vsock on 1.16":     {microvm.Spec{}, path, version{1, 16}, `{` + plain + `,"vsock_override":{"uds_path":"/run/x.sock"}}`},
		"tracked on 1.12":   {tracked, nil, version{1, 12}, `{` + plain + `,"enable_diff_snapshots":true}`},
		"tracked on 1.13":   {tracked, nil, version{1, 13}, `{` + plain + `,"track_dirty_pages":true}`},
	} {
		q, err := loadRequest(c.spec, c.from, c.v)
		if c.want == "" {
			if !errors.Is(err, microvm.ErrUnsupported) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff("PUT /snapshot/load "+c.want+"\n", lines(t, q)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestVersionsAreParsedOrRefused(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]version{
		"1.16.1": {1, 16}, "v1.7.0": {1, 7}, "1.17.0-dev": {1, 17}, "1.16.1-fcemu": {1, 16},
	} {
		if got, err := parseVersion(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "1", "1.2", "a.b.c", "-1.2.3", "1.x.3"} {
		if v, err := parseVersion(s); !errors.Is(err, microvm.ErrUnsupported) {
			t.Errorf("%q: %v, %v", s, v, err)
		}
	}
}
