package microvm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strings"
)

// Limits that Firecracker has, from its swagger file, its sources and from what
// a real one answered.
const (
	MaxVCPUs       = 32
	MaxMemoryMiB   = 16 << 20
	MaxBootArgs    = 2047 // bytes
	MaxDrives      = 16   // beside the root disk: an MMIO guest has 19 interrupts for all devices
	MaxMMDSBytes   = 51200
	MaxSocketPath  = 107 // bytes, sun_path of unix(7) without its NUL
	maxLabels      = 64
	maxLabelKey    = 128
	maxLabelValue  = 1024
	maxDeviceIDLen = 64
)

var deviceID = regexp.MustCompile(`^[A-Za-z0-9_]{1,64}$`)

// RootDriveID is the id that the root disk has in the VMM.
const RootDriveID = "rootfs"

// Validate returns every fault of the spec at once, joined: nil when there is
// none. Each is a *FieldError, and the whole is ErrInvalidSpec. It looks at the
// spec alone, not at the host: whether files exist is the provider's to check.
func (s Spec) Validate() error {
	v := &faults{}
	if s.RestoreFrom != nil {
		s.RestoreFrom.validate(v)
		if s.Network != nil {
			s.Network.validate(v, nil)
		}
	} else {
		s.validateMachine(v)
		s.validateDisks(v)
		s.validateNetwork(v)
		if s.Network != nil {
			s.Network.validate(v, s.NetworkInterfaces)
		}
		s.validateDevices(v)
	}
	switch s.StopMode {
	case "", StopModePause, StopModeHibernate, StopModeShutdown:
	default:
		v.add("stop_mode", s.StopMode, `"pause", "hibernate" or "shutdown"`)
	}
	s.validateLabels(v)
	return errors.Join(v.errs...)
}

// faults collects what is wrong.
type faults struct{ errs []error }

func (v *faults) add(field string, value any, rule string) {
	text := fmt.Sprintf("%v", value)
	if t := fmt.Sprintf("%T", value); t == "string" || strings.HasPrefix(t, "microvm.") {
		text = fmt.Sprintf("%.80q", value)
	}
	v.errs = append(v.errs, &FieldError{Field: fmt.Sprintf("%.200s", field), Value: text, Rule: rule})
}

func (v *faults) oneOf(field, value string, allowed ...string) {
	if value == "" {
		return
	}
	for _, a := range allowed {
		if value == a {
			return
		}
	}
	v.add(field, value, "one of "+strings.Join(allowed, ", "))
}

func (v *faults) path(field, p string, required bool) {
	switch {
	case p == "" && required:
		v.add(field, p, "the path of a file")
	case strings.ContainsRune(p, 0):
		v.add(field, p, "a path without NUL bytes")
	case len(p) > 4095:
		v.add(field, p, "a path of at most 4,095 bytes")
	}
}

func (v *faults) bucket(field string, b *TokenBucket) {
	if b != nil && b.Size == 0 {
		v.add(field+".size", 0, "at least 1; leave the bucket out for no limit")
	}
}

func (v *faults) rate(field string, r *RateLimit) {
	if r != nil {
		v.bucket(field+".bandwidth", r.Bandwidth)
		v.bucket(field+".ops", r.Ops)
	}
}

func (s Spec) validateMachine(v *faults) {
	v.path("kernel", s.Kernel, false)
	v.path("initrd", s.Initrd, false)
	if len(s.BootArgs) > MaxBootArgs {
		v.add("boot_args", fmt.Sprintf("%d bytes", len(s.BootArgs)), fmt.Sprintf("at most %d bytes", MaxBootArgs))
	}
	if i := strings.IndexFunc(s.BootArgs, func(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f }); i >= 0 {
		v.add("boot_args", s.BootArgs, "printable ASCII on one line")
	}
	if s.VCPUs < 0 || s.VCPUs > MaxVCPUs {
		v.add("vcpus", s.VCPUs, fmt.Sprintf("1 to %d", MaxVCPUs))
	}
	if s.SMT != nil && *s.SMT && s.VCPUs > 1 && s.VCPUs%2 == 1 {
		v.add("vcpus", s.VCPUs, "1 or an even number, with smt")
	}
	if s.MemoryMiB < 0 || s.MemoryMiB > MaxMemoryMiB {
		v.add("memory_mib", s.MemoryMiB, fmt.Sprintf("1 to %d MiB", MaxMemoryMiB))
	}
	v.oneOf("cpu_template", s.CPUTemplate, "C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "None")
	v.oneOf("huge_pages", s.HugePages, "None", "2M")
	if s.HugePages == "2M" && s.MemoryMiB%2 == 1 {
		v.add("memory_mib", s.MemoryMiB, "an even number of MiB, with huge_pages 2M")
	}
}

func (s Spec) validateDisks(v *faults) {
	if r := s.Rootfs; r != nil {
		if s.NoRootfs {
			v.add("no_rootfs", true, "false beside a rootfs")
		}
		v.path("rootfs.path", r.Path, false)
		v.oneOf("rootfs.cache_type", r.CacheType, "Unsafe", "Writeback")
		v.oneOf("rootfs.io_engine", r.IOEngine, "Sync", "Async")
		v.rate("rootfs.rate_limit", r.RateLimit)
	}
	if len(s.Drives) > MaxDrives {
		v.add("drives", len(s.Drives), fmt.Sprintf("at most %d", MaxDrives))
	}
	seen := map[string]bool{RootDriveID: true}
	for i, d := range s.Drives {
		f := fmt.Sprintf("drives[%d]", i)
		v.deviceID(f+".id", d.ID, seen)
		v.path(f+".path", d.Path, true)
		v.oneOf(f+".cache_type", d.CacheType, "Unsafe", "Writeback")
		v.oneOf(f+".io_engine", d.IOEngine, "Sync", "Async")
		v.rate(f+".rate_limit", d.RateLimit)
	}
}

func (v *faults) deviceID(field, id string, seen map[string]bool) {
	switch {
	case !deviceID.MatchString(id) || strings.HasSuffix(id, "\n"):
		v.add(field, id, fmt.Sprintf("1 to %d of letters, digits and '_'", maxDeviceIDLen))
	case seen[id]:
		v.add(field, id, "an id that no other device has")
	}
	seen[id] = true
}

func (v *faults) hostDevice(field, name string) {
	if name == "" || len(name) > 15 || name == "." || name == ".." || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' || r == ':' || r == '%' }) {
		v.add(field, name, "the name of a TAP: 1 to 15 bytes without blanks, '/', ':' and '%'")
	}
}

func (s Spec) validateNetwork(v *faults) {
	ids, macs, taps := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i, n := range s.NetworkInterfaces {
		f := fmt.Sprintf("network_interfaces[%d]", i)
		v.deviceID(f+".id", n.ID, ids)
		v.hostDevice(f+".host_device", n.HostDevName)
		if n.HostDevName != "" && taps[n.HostDevName] {
			v.add(f+".host_device", n.HostDevName, "a TAP that no other interface has")
		}
		taps[n.HostDevName] = true
		if n.MAC != "" {
			mac, err := net.ParseMAC(n.MAC)
			switch {
			case err != nil || len(mac) != 6 || strings.Count(n.MAC, ":") != 5 || mac[0]&1 == 1:
				v.add(f+".mac", n.MAC, "six hex pairs with ':' between them, the first one even (unicast)")
			case macs[mac.String()]:
				v.add(f+".mac", n.MAC, "a MAC that no other interface has")
			default:
				macs[mac.String()] = true
			}
		}
		if n.MTU != 0 && (n.MTU < 68 || n.MTU > 65535) {
			v.add(f+".mtu", n.MTU, "68 to 65535")
		}
		v.rate(f+".rx_rate_limit", n.RxRateLimit)
		v.rate(f+".tx_rate_limit", n.TxRateLimit)
	}
	if m := s.MMDS; m != nil {
		m.validate(v, ids)
	}
}

func (m *MMDS) validate(v *faults, interfaces map[string]bool) {
	v.oneOf("mmds.version", m.Version, "V1", "V2")
	if m.Address != "" {
		a, err := netip.ParseAddr(m.Address)
		if err != nil || !a.Is4() || !a.IsLinkLocalUnicast() {
			v.add("mmds.address", m.Address, "an address of 169.254.0.0/16")
		}
	}
	if len(m.Interfaces) == 0 {
		v.add("mmds.interfaces", "[]", "the id of at least one network interface")
	}
	for i, id := range m.Interfaces {
		if !interfaces[id] {
			v.add(fmt.Sprintf("mmds.interfaces[%d]", i), id, "the id of one of network_interfaces")
		}
	}
	if len(m.Contents) > 0 {
		if len(m.Contents) > MaxMMDSBytes {
			v.add("mmds.contents", fmt.Sprintf("%d bytes", len(m.Contents)), fmt.Sprintf("at most %d bytes", MaxMMDSBytes))
		} else if c := bytes.TrimSpace(m.Contents); !json.Valid(c) || c[0] != '{' {
			v.add("mmds.contents", string(c), "a JSON object")
		}
	}
}

func (s Spec) validateDevices(v *faults) {
	if k := s.Vsock; k != nil {
		if k.CID != 0 && (k.CID < 3 || k.CID == 1<<32-1) {
			v.add("vsock.cid", k.CID, "3 to 4294967294")
		}
		v.socketPath("vsock.path", k.Path)
	}
	if b := s.Balloon; b != nil {
		if b.TargetMiB < 0 || s.MemoryMiB > 0 && b.TargetMiB > s.MemoryMiB {
			v.add("balloon.target_mib", b.TargetMiB, "0 to memory_mib")
		}
		if b.StatsIntervalS < 0 || b.StatsIntervalS > 65535 {
			v.add("balloon.stats_interval_s", b.StatsIntervalS, "0 to 65535 seconds")
		}
	}
	if e := s.Entropy; e != nil {
		v.rate("entropy.rate_limit", e.RateLimit)
	}
	if c := s.Serial; c != nil {
		v.bucket("serial.rate_limit", c.RateLimit)
	}
}

func (v *faults) socketPath(field, p string) {
	v.path(field, p, false)
	if p != "" && (!strings.HasPrefix(p, "/") || len(p) > MaxSocketPath) {
		v.add(field, p, fmt.Sprintf("an absolute path of at most %d bytes", MaxSocketPath))
	}
}

func (r *RestoreFrom) validate(v *faults) {
	if err := ValidateID(r.VMID); err != nil {
		v.add("restore_from.vm_id", r.VMID, idRule)
	}
	if err := ValidateSnapshotID(r.SnapshotID); err != nil {
		v.add("restore_from.snapshot_id", r.SnapshotID, idRule)
	}
	seen := map[string]bool{}
	for i, o := range r.NetworkOverrides {
		f := fmt.Sprintf("restore_from.network_overrides[%d]", i)
		v.deviceID(f+".interface_id", o.InterfaceID, seen)
		v.hostDevice(f+".host_device", o.HostDevName)
	}
	v.socketPath("restore_from.vsock_path", r.VsockPath)
}

func (s Spec) validateLabels(v *faults) {
	if len(s.Labels) > maxLabels {
		v.add("labels", len(s.Labels), fmt.Sprintf("at most %d", maxLabels))
	}
	for k, val := range s.Labels {
		if k == "" || len(k) > maxLabelKey || strings.ContainsFunc(k, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '=' }) {
			v.add("labels", k, fmt.Sprintf("keys of 1 to %d bytes without blanks and '='", maxLabelKey))
		}
		if len(val) > maxLabelValue {
			v.add(fmt.Sprintf("labels[%s]", k), fmt.Sprintf("%d bytes", len(val)), fmt.Sprintf("at most %d bytes", maxLabelValue))
		}
	}
}
