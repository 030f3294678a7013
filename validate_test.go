package microvm_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tangle-network/microvm"
)

// faultsOf are the FieldErrors of an error's tree, in order.
func faultsOf(err error) []*microvm.FieldError {
	if err == nil {
		return nil
	}
	if f, ok := err.(*microvm.FieldError); ok { //nolint:errorlint // each node of the tree is looked at
		return []*microvm.FieldError{f}
	}
	var all []*microvm.FieldError
	switch e := err.(type) { //nolint:errorlint // likewise
	case interface{ Unwrap() error }:
		all = faultsOf(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range e.Unwrap() {
			all = append(all, faultsOf(err)...)
		}
	}
	return all
}

func ptr[T any](v T) *T { return &v }

func long(n int) string { return strings.Repeat("x", n) }

func nic(change func(*microvm.NetworkInterface)) microvm.Spec {
	n := microvm.NetworkInterface{ID: "eth0", HostDevName: "tap0"}
	change(&n)
	return microvm.Spec{NetworkInterfaces: []microvm.NetworkInterface{n}}
}

func mmds(change func(*microvm.MMDS)) microvm.Spec {
	m := &microvm.MMDS{Interfaces: []string{"eth0"}}
	change(m)
	s := nic(func(*microvm.NetworkInterface) {})
	s.MMDS = m
	return s
}

func drive(change func(*microvm.Drive)) microvm.Spec {
	d := microvm.Drive{ID: "data", Path: "/data.img"}
	change(&d)
	return microvm.Spec{Drives: []microvm.Drive{d}}
}

func drives(n int) (all []microvm.Drive) {
	for i := range n {
		all = append(all, microvm.Drive{ID: fmt.Sprintf("d%d", i), Path: "/d"})
	}
	return all
}

func labels(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprint(i)] = ""
	}
	return m
}

func restore(change func(*microvm.RestoreFrom)) microvm.Spec {
	r := &microvm.RestoreFrom{VMID: "a", SnapshotID: "s"}
	change(r)
	return microvm.Spec{RestoreFrom: r}
}

// Each row is a field with the values at its bounds that are good, and those
// just beyond that are not.
var bounds = []struct {
	field     string
	good, bad []microvm.Spec
}{
	{"kernel", []microvm.Spec{{}, {Kernel: "/" + long(4094)}}, []microvm.Spec{{Kernel: "/" + long(4095)}, {Kernel: "a\x00b"}}},
	{"initrd", []microvm.Spec{{Initrd: long(4095)}}, []microvm.Spec{{Initrd: long(4096)}, {Initrd: "\x00"}}},
	{"boot_args", []microvm.Spec{{BootArgs: long(2047)}, {BootArgs: "a\tb -- c \"d  e\""}}, []microvm.Spec{{BootArgs: long(2048)}, {BootArgs: "a\nb"}, {BootArgs: "ü"}, {BootArgs: "\x7f"}}},
	{"vcpus", []microvm.Spec{{VCPUs: 0}, {VCPUs: 1}, {VCPUs: 32}, {VCPUs: 1, SMT: ptr(true)}, {VCPUs: 2, SMT: ptr(true)}, {VCPUs: 3, SMT: ptr(false)}}, []microvm.Spec{{VCPUs: -1}, {VCPUs: 33}, {VCPUs: 256}, {VCPUs: 3, SMT: ptr(true)}, {VCPUs: 31, SMT: ptr(true)}}},
	{"memory_mib", []microvm.Spec{{MemoryMiB: 1}, {MemoryMiB: 16 << 20}, {MemoryMiB: 2, HugePages: "2M"}, {MemoryMiB: 3, HugePages: "None"}}, []microvm.Spec{{MemoryMiB: -1}, {MemoryMiB: 16<<20 + 1}, {MemoryMiB: 3, HugePages: "2M"}}},
	{"cpu_template", []microvm.Spec{{CPUTemplate: "C3"}, {CPUTemplate: "T2"}, {CPUTemplate: "T2S"}, {CPUTemplate: "T2CL"}, {CPUTemplate: "T2A"}, {CPUTemplate: "V1N1"}, {CPUTemplate: "None"}}, []microvm.Spec{{CPUTemplate: "t2"}, {CPUTemplate: "T3"}}},
	{"huge_pages", []microvm.Spec{{HugePages: "2M"}, {HugePages: "None"}}, []microvm.Spec{{HugePages: "1G"}, {HugePages: "2m"}}},
	{"stop_mode", []microvm.Spec{{StopMode: "pause"}, {StopMode: "hibernate"}, {StopMode: "shutdown"}}, []microvm.Spec{{StopMode: "kill"}, {StopMode: "Pause"}}},
	{"no_rootfs", []microvm.Spec{{NoRootfs: true}}, []microvm.Spec{{NoRootfs: true, Rootfs: &microvm.Rootfs{}}}},
	{"rootfs.path", []microvm.Spec{{Rootfs: &microvm.Rootfs{}}, {Rootfs: &microvm.Rootfs{Path: "a"}}}, []microvm.Spec{{Rootfs: &microvm.Rootfs{Path: "\x00"}}}},
	{"rootfs.cache_type", []microvm.Spec{{Rootfs: &microvm.Rootfs{CacheType: "Unsafe"}}, {Rootfs: &microvm.Rootfs{CacheType: "Writeback"}}}, []microvm.Spec{{Rootfs: &microvm.Rootfs{CacheType: "none"}}}},
	{"rootfs.io_engine", []microvm.Spec{{Rootfs: &microvm.Rootfs{IOEngine: "Sync"}}, {Rootfs: &microvm.Rootfs{IOEngine: "Async"}}}, []microvm.Spec{{Rootfs: &microvm.Rootfs{IOEngine: "io_uring"}}}},
	{"rootfs.rate_limit.bandwidth.size", []microvm.Spec{{Rootfs: &microvm.Rootfs{RateLimit: &microvm.RateLimit{}}}, {Rootfs: &microvm.Rootfs{RateLimit: &microvm.RateLimit{Bandwidth: microvm.PerSecond(1)}}}}, []microvm.Spec{{Rootfs: &microvm.Rootfs{RateLimit: &microvm.RateLimit{Bandwidth: &microvm.TokenBucket{OneTimeBurst: 5}}}}}},
	{"rootfs.rate_limit.ops.size", nil, []microvm.Spec{{Rootfs: &microvm.Rootfs{RateLimit: &microvm.RateLimit{Ops: &microvm.TokenBucket{}}}}}},
	{"drives", []microvm.Spec{{Drives: drives(16)}}, []microvm.Spec{{Drives: drives(17)}}},
	{"drives[0].id", []microvm.Spec{drive(func(d *microvm.Drive) { d.ID = long(64) }), drive(func(d *microvm.Drive) { d.ID = "_A9" })}, []microvm.Spec{
		drive(func(d *microvm.Drive) { d.ID = "" }), drive(func(d *microvm.Drive) { d.ID = long(65) }), drive(func(d *microvm.Drive) { d.ID = "a-b" }),
		drive(func(d *microvm.Drive) { d.ID = "../a" }), drive(func(d *microvm.Drive) { d.ID = "a\n" }), drive(func(d *microvm.Drive) { d.ID = "rootfs" })}},
	{"drives[1].id", nil, []microvm.Spec{{Drives: []microvm.Drive{{ID: "a", Path: "/1"}, {ID: "a", Path: "/2"}}}}},
	{"drives[0].path", nil, []microvm.Spec{drive(func(d *microvm.Drive) { d.Path = "" }), drive(func(d *microvm.Drive) { d.Path = long(4096) })}},
	{"drives[0].cache_type", nil, []microvm.Spec{drive(func(d *microvm.Drive) { d.CacheType = "x" })}},
	{"drives[0].io_engine", nil, []microvm.Spec{drive(func(d *microvm.Drive) { d.IOEngine = "x" })}},
	{"drives[0].rate_limit.ops.size", nil, []microvm.Spec{drive(func(d *microvm.Drive) { d.RateLimit = &microvm.RateLimit{Ops: &microvm.TokenBucket{}} })}},
	{"network_interfaces[0].id", []microvm.Spec{nic(func(*microvm.NetworkInterface) {})}, []microvm.Spec{nic(func(n *microvm.NetworkInterface) { n.ID = "" }), nic(func(n *microvm.NetworkInterface) { n.ID = "e/0" })}},
	{"network_interfaces[0].host_device", []microvm.Spec{nic(func(n *microvm.NetworkInterface) { n.HostDevName = long(15) })}, []microvm.Spec{
		nic(func(n *microvm.NetworkInterface) { n.HostDevName = "" }), nic(func(n *microvm.NetworkInterface) { n.HostDevName = long(16) }), nic(func(n *microvm.NetworkInterface) { n.HostDevName = ".." }),
		nic(func(n *microvm.NetworkInterface) { n.HostDevName = "a b" }), nic(func(n *microvm.NetworkInterface) { n.HostDevName = "a/b" }), nic(func(n *microvm.NetworkInterface) { n.HostDevName = "tap%d" })}},
	{"network_interfaces[1].host_device", nil, []microvm.Spec{{NetworkInterfaces: []microvm.NetworkInterface{{ID: "a", HostDevName: "tap0"}, {ID: "b", HostDevName: "tap0"}}}}},
	{"network_interfaces[0].mac", []microvm.Spec{nic(func(n *microvm.NetworkInterface) { n.MAC = "06:00:AC:10:00:02" })}, []microvm.Spec{
		nic(func(n *microvm.NetworkInterface) { n.MAC = "07:00:ac:10:00:02" }), nic(func(n *microvm.NetworkInterface) { n.MAC = "06-00-ac-10-00-02" }), nic(func(n *microvm.NetworkInterface) { n.MAC = "06:00:ac:10:00" }),
		nic(func(n *microvm.NetworkInterface) { n.MAC = "06:00:ac:10:00:02:01:01" })}},
	{"network_interfaces[1].mac", nil, []microvm.Spec{{NetworkInterfaces: []microvm.NetworkInterface{{ID: "a", HostDevName: "t0", MAC: "06:00:ac:10:00:02"}, {ID: "b", HostDevName: "t1", MAC: "06:00:AC:10:00:02"}}}}},
	{"network_interfaces[0].mtu", []microvm.Spec{nic(func(n *microvm.NetworkInterface) { n.MTU = 68 }), nic(func(n *microvm.NetworkInterface) { n.MTU = 65535 })}, []microvm.Spec{nic(func(n *microvm.NetworkInterface) { n.MTU = 67 }), nic(func(n *microvm.NetworkInterface) { n.MTU = 65536 }), nic(func(n *microvm.NetworkInterface) { n.MTU = -1 })}},
	{"network_interfaces[0].rx_rate_limit.ops.size", nil, []microvm.Spec{nic(func(n *microvm.NetworkInterface) { n.RxRateLimit = &microvm.RateLimit{Ops: &microvm.TokenBucket{}} })}},
	{"network_interfaces[0].tx_rate_limit.bandwidth.size", nil, []microvm.Spec{nic(func(n *microvm.NetworkInterface) {
		n.TxRateLimit = &microvm.RateLimit{Bandwidth: &microvm.TokenBucket{}}
	})}},
	{"mmds.version", []microvm.Spec{mmds(func(m *microvm.MMDS) { m.Version = "V1" }), mmds(func(m *microvm.MMDS) { m.Version = "V2" })}, []microvm.Spec{mmds(func(m *microvm.MMDS) { m.Version = "V3" })}},
	{"mmds.address", []microvm.Spec{mmds(func(m *microvm.MMDS) { m.Address = "169.254.0.1" })}, []microvm.Spec{mmds(func(m *microvm.MMDS) { m.Address = "169.255.0.1" }), mmds(func(m *microvm.MMDS) { m.Address = "fe80::1" }), mmds(func(m *microvm.MMDS) { m.Address = "x" })}},
	{"mmds.interfaces", nil, []microvm.Spec{mmds(func(m *microvm.MMDS) { m.Interfaces = nil })}},
	{"mmds.interfaces[1]", nil, []microvm.Spec{mmds(func(m *microvm.MMDS) { m.Interfaces = []string{"eth0", "eth1"} })}},
	{"mmds.contents", []microvm.Spec{mmds(func(m *microvm.MMDS) { m.Contents = json.RawMessage(` {"a": 1} `) }), mmds(func(m *microvm.MMDS) { m.Contents = json.RawMessage(`{"a":"` + long(51200-8) + `"}`) })}, []microvm.Spec{
		mmds(func(m *microvm.MMDS) { m.Contents = json.RawMessage(`{"a":"` + long(51200-7) + `"}`) }), mmds(func(m *microvm.MMDS) { m.Contents = json.RawMessage(`[1]`) }),
		mmds(func(m *microvm.MMDS) { m.Contents = json.RawMessage(`{`) }), mmds(func(m *microvm.MMDS) { m.Contents = json.RawMessage("  ") })}},
	{"vsock.cid", []microvm.Spec{{Vsock: &microvm.Vsock{}}, {Vsock: &microvm.Vsock{CID: 3}}, {Vsock: &microvm.Vsock{CID: 1<<32 - 2}}}, []microvm.Spec{{Vsock: &microvm.Vsock{CID: 2}}, {Vsock: &microvm.Vsock{CID: 1}}, {Vsock: &microvm.Vsock{CID: 1<<32 - 1}}}},
	{"vsock.path", []microvm.Spec{{Vsock: &microvm.Vsock{Path: "/" + long(106)}}}, []microvm.Spec{{Vsock: &microvm.Vsock{Path: "/" + long(107)}}, {Vsock: &microvm.Vsock{Path: "v.sock"}}}},
	{"balloon.target_mib", []microvm.Spec{{Balloon: &microvm.Balloon{}}, {MemoryMiB: 64, Balloon: &microvm.Balloon{TargetMiB: 64}}}, []microvm.Spec{{Balloon: &microvm.Balloon{TargetMiB: -1}}, {MemoryMiB: 64, Balloon: &microvm.Balloon{TargetMiB: 65}}}},
	{"balloon.stats_interval_s", []microvm.Spec{{Balloon: &microvm.Balloon{StatsIntervalS: 65535}}}, []microvm.Spec{{Balloon: &microvm.Balloon{StatsIntervalS: 65536}}, {Balloon: &microvm.Balloon{StatsIntervalS: -1}}}},
	{"entropy.rate_limit.bandwidth.size", []microvm.Spec{{Entropy: &microvm.Entropy{}}}, []microvm.Spec{{Entropy: &microvm.Entropy{RateLimit: &microvm.RateLimit{Bandwidth: &microvm.TokenBucket{}}}}}},
	{"serial.rate_limit.size", []microvm.Spec{{Serial: &microvm.Serial{RateLimit: microvm.PerSecond(1)}}}, []microvm.Spec{{Serial: &microvm.Serial{RateLimit: &microvm.TokenBucket{}}}}},
	{"labels", []microvm.Spec{{Labels: labels(64)}, {Labels: map[string]string{long(128): "é\n"}}}, []microvm.Spec{{Labels: labels(65)}, {Labels: map[string]string{"": ""}}, {Labels: map[string]string{long(129): ""}}, {Labels: map[string]string{"a=b": ""}}, {Labels: map[string]string{"a b": ""}}}},
	{"labels[k]", []microvm.Spec{{Labels: map[string]string{"k": long(1024)}}}, []microvm.Spec{{Labels: map[string]string{"k": long(1025)}}}},
	{"restore_from.vm_id", []microvm.Spec{restore(func(r *microvm.RestoreFrom) { r.VMID = long(64) })}, []microvm.Spec{restore(func(r *microvm.RestoreFrom) { r.VMID = "" }), restore(func(r *microvm.RestoreFrom) { r.VMID = "../a" }), restore(func(r *microvm.RestoreFrom) { r.VMID = long(65) })}},
	{"restore_from.snapshot_id", []microvm.Spec{restore(func(r *microvm.RestoreFrom) { r.SnapshotID = "S.1" })}, []microvm.Spec{restore(func(r *microvm.RestoreFrom) { r.SnapshotID = "" }), restore(func(r *microvm.RestoreFrom) { r.SnapshotID = "a..b" })}},
	{"restore_from.network_overrides[0].interface_id", nil, []microvm.Spec{restore(func(r *microvm.RestoreFrom) {
		r.NetworkOverrides = []microvm.NetworkOverride{{InterfaceID: "", HostDevName: "tap0"}}
	})}},
	{"restore_from.network_overrides[0].host_device", nil, []microvm.Spec{restore(func(r *microvm.RestoreFrom) {
		r.NetworkOverrides = []microvm.NetworkOverride{{InterfaceID: "a", HostDevName: long(16)}}
	})}},
	{"restore_from.network_overrides[1].interface_id", nil, []microvm.Spec{restore(func(r *microvm.RestoreFrom) {
		r.NetworkOverrides = []microvm.NetworkOverride{{InterfaceID: "a", HostDevName: "t0"}, {InterfaceID: "a", HostDevName: "t1"}}
	})}},
	{"restore_from.vsock_path", []microvm.Spec{restore(func(r *microvm.RestoreFrom) { r.VsockPath = "/v" })}, []microvm.Spec{restore(func(r *microvm.RestoreFrom) { r.VsockPath = "v" })}},
}

func TestValidateHoldsEachFieldToItsBounds(t *testing.T) {
	t.Parallel()
	for _, row := range bounds {
		t.Run(row.field, func(t *testing.T) {
			t.Parallel()
			for _, s := range row.good {
				if err := s.Validate(); err != nil {
					t.Errorf("%+.200v: %v", s, err)
				}
			}
			for _, s := range row.bad {
				err := s.Validate()
				found := faultsOf(err)
				if len(found) != 1 || found[0].Field != row.field || !errors.Is(err, microvm.ErrInvalidSpec) {
					t.Errorf("%.200v: want one fault in %s, have: %v", s, row.field, err)
					continue
				}
				f := found[0]
				text := err.Error()
				if f.Rule == "" || !strings.Contains(text, f.Field) || !strings.Contains(text, f.Value) || !strings.Contains(text, f.Rule) || len(text) > 600 {
					t.Errorf("the text lacks field, value or rule, or is long: %s", text)
				}
			}
		})
	}
}

func TestValidateFindsEveryFaultAtOnce(t *testing.T) {
	t.Parallel()
	s := microvm.Spec{
		Kernel: "\x00", VCPUs: 33, MemoryMiB: -1, StopMode: "nap", CPUTemplate: "T9",
		Drives: []microvm.Drive{{ID: "a-b"}},
		Vsock:  &microvm.Vsock{CID: 1},
		Labels: map[string]string{"": ""},
	}
	var fields []string
	for _, f := range faultsOf(s.Validate()) {
		fields = append(fields, f.Field)
	}
	want := []string{"kernel", "vcpus", "memory_mib", "cpu_template", "drives[0].id", "drives[0].path", "vsock.cid", "stop_mode", "labels"}
	if !slices.Equal(fields, want) {
		t.Errorf("faults in %q; want %q", fields, want)
	}
}

func TestValidateLooksOnlyAtWhatARestoreUses(t *testing.T) {
	t.Parallel()
	s := restore(func(*microvm.RestoreFrom) {})
	s.VCPUs = 99 // ignored, as the contract says
	if err := s.Validate(); err != nil {
		t.Error(err)
	}
	s.StopMode, s.Labels = "nap", map[string]string{"": ""}
	if found := faultsOf(s.Validate()); len(found) != 2 {
		t.Errorf("faults: %v; want stop_mode and labels", found)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	t.Parallel()
	s := mmds(func(m *microvm.MMDS) { m.Contents = json.RawMessage(`{"a":1}`) })
	s.SMT, s.Labels = ptr(true), map[string]string{"k": "v"}
	s.Drives = drives(2)
	digest := s.Digest()
	c := s.Clone()
	if c.Digest() != digest {
		t.Fatal("the clone differs")
	}
	*c.SMT, c.Labels["k"], c.Drives[0].ID, c.MMDS.Contents[2], c.NetworkInterfaces[0].MTU = false, "w", "z", 'b', 1500
	if s.Digest() != digest {
		t.Error("a change of the clone changed the spec")
	}
	if len(digest) != 64 || c.Digest() == digest {
		t.Errorf("digest %q does not tell specs apart", digest)
	}
}
