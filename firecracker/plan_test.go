package firecracker

import (
	"encoding/json"
	"errors"
	"runtime"
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

var newest = fc(1, 16, 1)

// fc is a release of Firecracker.
func fc(major, minor, patch int) release {
	v := fcapi.Version{Major: major, Minor: minor, Patch: patch}
	format, _ := fcapi.SnapshotFormat(v)
	return release{Version: v, name: nameFirecracker, text: v.String(), format: format}
}

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
	if diff := cmp.Diff(want, lines(t, bootRequests(recordOf(s), newest, nil, 1<<20)...)); diff != "" {
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
	if diff := cmp.Diff(want, lines(t, bootRequests(recordOf(s), newest, nil, 1<<20)...)); diff != "" {
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
	for _, q := range bootRequests(recordOf(microvm.Spec{BootArgs: args}), newest, nil, -1) {
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
	for _, q := range bootRequests(recordOf(microvm.Spec{Initrd: "/i", NoRootfs: true}), newest, nil, -1) {
		if strings.HasPrefix(q.Path, "/drives") {
			t.Errorf("sent: %s", q)
		}
	}
}

func TestOldReleasesAreSpared(t *testing.T) {
	t.Parallel()
	r := &Runtime{cfg: Config{SerialBytesPerSecond: 1 << 20}}
	sent := lines(t, bootRequests(recordOf(microvm.Spec{Rootfs: &microvm.Rootfs{Path: "/r"}}), fc(1, 15, 1), nil, 1<<20)...)
	if strings.Contains(sent, "/serial") {
		t.Errorf("1.15 has no serial rate limit:\n%s", sent)
	}
	for name, c := range map[string]struct {
		spec microvm.Spec
		l    release
		says string // empty: planned
	}{
		"mtu on 1.15":            {microvm.Spec{NetworkInterfaces: []microvm.NetworkInterface{{ID: "eth0", MTU: 1400}}}, fc(1, 15, 1), `PUT /network-interfaces/eth0: field "mtu": not supported by Firecracker 1.15.1: it needs 1.16.0 or newer`},
		"mtu on 1.16":            {microvm.Spec{NetworkInterfaces: []microvm.NetworkInterface{{ID: "eth0", MTU: 1400}}}, fc(1, 16, 0), ""},
		"hinting on 1.13":        {microvm.Spec{Balloon: &microvm.Balloon{FreePageHinting: true}}, fc(1, 13, 2), `"free_page_hinting": not supported by Firecracker 1.13.2: it needs 1.14.0`},
		"serial limit on 1.15":   {microvm.Spec{Serial: &microvm.Serial{RateLimit: microvm.PerSecond(1)}}, fc(1, 15, 1), `"rate_limiter": not supported by Firecracker 1.15.1: it needs 1.16.0`},
		"serial limit on 1.13":   {microvm.Spec{Serial: &microvm.Serial{RateLimit: microvm.PerSecond(1)}}, fc(1, 13, 0), `PUT /serial: field "rate_limiter": not supported by Firecracker 1.13.0: it needs 1.16.0`},
		"imds_compat on 1.12":    {microvm.Spec{MMDS: &microvm.MMDS{IMDSCompat: true}}, fc(1, 12, 1), `"imds_compat": not supported by Firecracker 1.12.1: it needs 1.13.0`},
		"nothing special on 1.7": {microvm.Spec{}, fc(1, 7, 0), ""},
		"anything on 1.6":        {microvm.Spec{}, fc(1, 6, 0), "not supported by Firecracker 1.6.0: it needs 1.7.0"},
		"hibernate with vsock on 1.16.0": {microvm.Spec{StopMode: microvm.StopModeHibernate, Vsock: &microvm.Vsock{CID: 3}}, fc(1, 16, 0),
			"vsock: not supported: firecracker 1.16.0 has the defect vsock-dead-on-restore"},
		"hibernate with vsock on 1.16.1": {microvm.Spec{StopMode: microvm.StopModeHibernate, Vsock: &microvm.Vsock{CID: 3}}, fc(1, 16, 1), ""},
	} {
		err := r.checkCreate(c.spec, c.l)
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, microvm.ErrUnsupported) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, it should say %s", name, err, c.says)
		}
	}
}

func TestALoadSaysOnlyWhatTheReleaseKnows(t *testing.T) {
	t.Parallel()
	r := &Runtime{cfg: Config{SerialBytesPerSecond: 1 << 20}}
	overrides := &microvm.RestoreFrom{NetworkOverrides: []microvm.NetworkOverride{{InterfaceID: "eth0", HostDevName: "tap1"}}}
	path := &microvm.RestoreFrom{VsockPath: "/run/x.sock"}
	tracked := microvm.Spec{TrackDirtyPages: yes()}
	const plain = `"snapshot_path":"vmstate","mem_backend":{"backend_type":"File","backend_path":"memory"}`
	for name, c := range map[string]struct {
		spec microvm.Spec
		from *microvm.RestoreFrom
		l    release
		want string // empty: refused
	}{
		"plain on 1.7":      {microvm.Spec{}, &microvm.RestoreFrom{}, fc(1, 7, 0), `{` + plain + `}`},
		"overrides on 1.11": {microvm.Spec{}, overrides, fc(1, 11, 0), ""},
		"overrides on 1.12": {microvm.Spec{}, overrides, fc(1, 12, 0), `{` + plain + `,"network_overrides":[{"iface_id":"eth0","host_dev_name":"tap1"}]}`},
		"vsock on 1.15":     {microvm.Spec{}, path, fc(1, 15, 1), ""},
		"vsock on 1.16":     {microvm.Spec{}, path, fc(1, 16, 1), `{` + plain + `,"vsock_override":{"uds_path":"/run/x.sock"}}`},
		"tracked on 1.12":   {tracked, nil, fc(1, 12, 0), `{` + plain + `,"enable_diff_snapshots":true}`},
		"tracked on 1.13":   {tracked, nil, fc(1, 13, 0), `{` + plain + `,"track_dirty_pages":true}`},
	} {
		err := r.checkLoad(c.spec, c.from, c.l, program{path: "/bin/firecracker", release: c.l})
		if c.want == "" {
			if !errors.Is(err, microvm.ErrUnsupported) || !strings.Contains(err.Error(), c.l.Version.String()) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff("PUT /snapshot/load "+c.want+"\n", lines(t, loadRequest(c.spec, c.from, c.l))); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestASnapshotOfAnotherFormatIsRefused(t *testing.T) {
	t.Parallel()
	emulator := fc(1, 16, 1)
	emulator.name, emulator.text, emulator.sound = nameEmulator, "1.16.1-fcemu", true
	later := fc(1, 18, 0)
	for name, c := range map[string]struct {
		own, wrote release
		says       []string // nil: loads
	}{
		"the same release":                    {fc(1, 16, 1), fc(1, 16, 1), nil},
		"the same format":                     {fc(1, 14, 4), fc(1, 13, 0), nil},
		"an older format":                     {fc(1, 17, 0), fc(1, 14, 1), []string{"firecracker 1.14.1 (snapshot format 8.0.0)", "firecracker 1.17.0 (snapshot format 11.0.0)"}},
		"a newer format":                      {fc(1, 15, 1), fc(1, 16, 1), []string{"1.16.1", "1.15.1"}},
		"another VMM":                         {fc(1, 16, 1), emulator, []string{"fcemu 1.16.1-fcemu", "firecracker 1.16.1"}},
		"an unknown format: the VMM decides":  {later, fc(1, 16, 1), nil},
		"what 1.10.0 calls the format of 1.9": {fc(1, 9, 1), fc(1, 10, 0), []string{"1.10.0", "1.9.1"}},
		"what 1.10.0 calls its own":           {fc(1, 10, 0), fc(1, 10, 0), nil},
	} {
		err := loads(c.own, c.wrote)
		if c.says == nil {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if retry, _ := advice(err); retry || !errors.Is(err, microvm.ErrUnsupported) {
			t.Errorf("%s: %v, retry %v", name, err, retry)
		}
		for _, s := range c.says {
			if err == nil || !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %v does not say %s", name, err, s)
			}
		}
	}
	if _, err := (&Runtime{}).writer("", "", ""); !errors.Is(err, microvm.ErrUnsupported) {
		t.Errorf("memory that nobody has signed: %v", err)
	}
}

func TestRestoresThatTheReleaseBreaksAreRefused(t *testing.T) {
	t.Parallel()
	vsock := microvm.Spec{Vsock: &microvm.Vsock{CID: 3}}
	net := microvm.Spec{NetworkInterfaces: []microvm.NetworkInterface{{ID: "eth0"}}}
	for name, c := range map[string]struct {
		spec microvm.Spec
		l    release
		says string
	}{
		"vsock on 1.16.0":   {vsock, fc(1, 16, 0), "1.16.1"},
		"vsock on 1.16.1":   {vsock, fc(1, 16, 1), ""},
		"network on 1.16.0": {net, fc(1, 16, 0), ""},
		"network on 1.9.0":  {net, fc(1, 9, 0), "1.9.1"},
		"neither on 1.9.0":  {microvm.Spec{}, fc(1, 9, 0), ""},
	} {
		err := checkRestored(c.spec, c.l)
		if (err == nil) != (c.says == "") || err != nil && (!errors.Is(err, microvm.ErrUnsupported) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHugePagesAreRefusedWithWhatAReleaseDoesNotPutThemTogether(t *testing.T) {
	t.Parallel()
	initrd, balloon := microvm.Spec{HugePages: "2M", Initrd: "/i"}, microvm.Spec{HugePages: "2M", Balloon: &microvm.Balloon{}}
	small := microvm.Spec{HugePages: "None", Initrd: "/i", Balloon: &microvm.Balloon{}}
	r := &Runtime{}
	for name, c := range map[string]struct {
		spec microvm.Spec
		l    release
		says string
	}{
		"initrd on 1.10.1":        {initrd, fc(1, 10, 1), "initrd: not supported by firecracker 1.10.1: it needs 1.11.0 or newer"},
		"initrd on 1.11.0":        {initrd, fc(1, 11, 0), ""},
		"balloon on 1.13.2":       {balloon, fc(1, 13, 2), "balloon: not supported by firecracker 1.13.2: it needs 1.14.0 or newer"},
		"balloon on 1.14.0":       {balloon, fc(1, 14, 0), ""},
		"no huge pages on 1.7.0":  {small, fc(1, 7, 0), ""},
		"nothing else, on 1.10.1": {microvm.Spec{HugePages: "2M"}, fc(1, 10, 1), ""},
	} {
		err := r.checkBoot(c.spec, c.l)
		if (err == nil) != (c.says == "") || err != nil && (!errors.Is(err, microvm.ErrUnsupported) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDiffsThatWouldBeCorruptAreNotTaken(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		l    release
		mib  int
		want bool
	}{
		"3 GiB on 1.14.1":      {fc(1, 14, 1), 3072, false},
		"over 3 GiB on 1.14.1": {fc(1, 14, 1), 3073, runtime.GOARCH == "amd64"},
		"over 3 GiB on 1.14.2": {fc(1, 14, 2), 3073, false},
		"over 3 GiB on 1.13.2": {fc(1, 13, 2), 3073, false},
	} {
		if got := corruptsDiffs(c.l, c.mib); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
