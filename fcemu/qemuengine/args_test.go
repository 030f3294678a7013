package qemuengine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tangle-network/microvm/fcemu"
)

func ptr[T any](v T) *T { return &v }

// fullMachine has one of everything; the root drive comes first.
func fullMachine() *machine {
	cfg := &fcemu.Config{
		Machine: fcemu.MachineConfig{VCPUCount: 4, MemSizeMiB: 256, SMT: true},
		Balloon: &fcemu.Balloon{DeflateOnOOM: true, FreePageReporting: true},
		Entropy: &fcemu.Entropy{RateLimiter: &fcemu.RateLimiter{Bandwidth: &fcemu.TokenBucket{Size: 4096, RefillTime: 100}}},
	}
	return &machine{
		accel: "tcg", config: cfg, memory: "/mem", kernel: "/kernel", initrd: "/initrd", bootArgs: "console=ttyS0 a,b=\"c d\"",
		drives: []driveBackend{
			{drive: fcemu.Drive{DriveID: "x,y", IsRootDevice: true, CacheType: "Writeback"}, file: "/root,disk"},
			{drive: fcemu.Drive{DriveID: "data", IsReadOnly: ptr(true), CacheType: "Unsafe"}, file: "/dev/disk", isDevice: true},
		},
		nics:  []nicBackend{{nic: fcemu.NetworkInterface{IfaceID: "e", MTU: ptr(1400)}, fd: 5, mac: "02:00:00:00:00:01"}},
		qmpFD: 3, vsockFD: 4, logFile: "/log",
	}
}

// The whole command line is compared with a file: a change of it changes the
// machine, and a snapshot fits only the machine that it was taken of.
func TestCommandLineIsTheOneInTestdata(t *testing.T) {
	t.Parallel()
	args, err := fullMachine().args()
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, a := range args {
		if strings.HasPrefix(a, "-") {
			fmt.Fprintf(&got, "\n%s", a)
		} else {
			fmt.Fprintf(&got, " %s", a)
		}
	}
	path := filepath.Join("testdata", "args.txt")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got.String()[1:]+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()[1:]+"\n"); diff != "" {
		t.Errorf("command line (-want +got):\n%s", diff)
	}
}

func TestARestoredMachineDiffersInNoDevice(t *testing.T) {
	t.Parallel()
	booted, restored := fullMachine(), fullMachine()
	restored.kernel, restored.initrd, restored.bootArgs, restored.incoming = "", "", "", true
	restored.memory = "/other"
	a, err := booted.args()
	if err != nil {
		t.Fatal(err)
	}
	b, err := restored.args()
	if err != nil {
		t.Fatal(err)
	}
	devices := func(args []string) (d []string) {
		for i, s := range args {
			if s == "-device" || s == "-M" || s == "-smp" || s == "-m" {
				d = append(d, args[i+1])
			}
		}
		return d
	}
	if diff := cmp.Diff(devices(a), devices(b)); diff != "" {
		t.Errorf("devices (-booted +restored):\n%s", diff)
	}
	if !slices.Contains(b, "-incoming") || slices.Contains(b, "-kernel") {
		t.Errorf("a restored guest is started as %q", b)
	}
}

func TestTooManyDevicesAreAnError(t *testing.T) {
	t.Parallel()
	m := &machine{config: &fcemu.Config{Machine: fcemu.MachineConfig{VCPUCount: 1, MemSizeMiB: 128}}}
	for range maxSlots {
		m.drives = append(m.drives, driveBackend{file: "/x"})
	}
	if _, err := m.args(); err != nil {
		t.Errorf("%d drives: %v", maxSlots, err)
	}
	m.drives = append(m.drives, driveBackend{file: "/x"})
	if _, err := m.args(); err == nil {
		t.Errorf("%d drives have no place and were taken", len(m.drives))
	}
}

func TestThrottleTranslatesTokenBuckets(t *testing.T) {
	t.Parallel()
	bucket := func(size, ms uint64, burst *uint64) *fcemu.RateLimiter {
		return &fcemu.RateLimiter{Bandwidth: &fcemu.TokenBucket{Size: size, RefillTime: ms, OneTimeBurst: burst}}
	}
	for _, c := range []struct {
		name  string
		limit *fcemu.RateLimiter
		want  throttleLimits
	}{
		{"none", nil, throttleLimits{}},
		{"empty", &fcemu.RateLimiter{}, throttleLimits{}},
		{"size 0 is no limit", bucket(0, 100, nil), throttleLimits{}},
		{"time 0 is no limit", bucket(100, 0, nil), throttleLimits{}},
		{"a second's worth", bucket(1000, 1000, nil), throttleLimits{BPSTotal: 1000, BPSTotalMax: 1000}},
		{"a small bucket", bucket(1000, 100, nil), throttleLimits{BPSTotal: 10000}},
		{"a large bucket", bucket(10000, 10000, nil), throttleLimits{BPSTotal: 1000, BPSTotalMax: 10000}},
		{"a burst", bucket(1000, 1000, ptr(uint64(500))), throttleLimits{BPSTotal: 1000, BPSTotalMax: 1500}},
		{"slower than one a second", bucket(1, 1<<40, nil), throttleLimits{BPSTotal: 1, BPSTotalMax: 1}},
		{"no overflow", bucket(1<<63, 1, ptr(uint64(1<<63))), throttleLimits{BPSTotal: throttleMax, BPSTotalMax: throttleMax}},
		{"operations", &fcemu.RateLimiter{Ops: &fcemu.TokenBucket{Size: 10, RefillTime: 1000}}, throttleLimits{IOPSTotal: 10, IOPSTotalMax: 10}},
	} {
		if got := throttle(c.limit); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestNothingOfTheUsersIsParsedByQEMU(t *testing.T) {
	t.Parallel()
	m := fullMachine()
	m.bootArgs = "quiet"
	args, err := m.args()
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range args {
		if strings.Contains(a, "x,y") {
			t.Errorf("the drive's id is in %q", a)
		}
		if strings.Contains(a, "root,disk") && (args[i-1] != "-blockdev" || !json.Valid([]byte(a))) {
			t.Errorf("a path with a comma is in %s %q", args[i-1], a)
		}
	}
}
