//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTheCommandLineIsSplitAsTheKernelDoes(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		"console=ttyS0 console=tty0 quiet":   {"console=ttyS0", "console=tty0", "quiet"},
		`a="b c" "d=e f" "g h"`:              {"a=b c", "d=e f", "g h"},
		"root=UUID=1-2 x":                    {"root=UUID=1-2", "x"},
		"init=/bin/sh -- -c \"echo\" root=x": {"init=/bin/sh"},
		"foo --bar":                          {"foo", "--bar"},
		"  \t ":                              nil,
		"":                                   nil,
	} {
		var got []string
		for _, p := range splitCmdline(line) {
			if p.hasValue {
				p.key += "=" + p.value
			}
			got = append(got, p.key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func TestTheLastWordWinsAndUnknownOnesAreTold(t *testing.T) {
	t.Parallel()
	c := parseConfig("root=/dev/vda ro rw root=/dev/vdb rootfstype=ext4 rootflags=noatime rootwait init=/x ip=1.2.3.4 ip=off " +
		"microvm.overlay=tmpfs,size=1m microvm.init=supervise microvm.ip6=fd00::2/64 microvm.speed=9 microvm.init=what -- root=/dev/vdc")
	if c.root != "/dev/vdb" || c.readOnly || c.rootFSType != "ext4" || c.rootFlags != "noatime" || !c.waitForEver || c.init != "/x" {
		t.Errorf("%+v", c)
	}
	if c.overlay != "size=1m" || !c.supervise || len(c.ip) != 2 || c.ip6 != "fd00::2/64" || len(c.unknown) != 2 {
		t.Errorf("%+v", c)
	}
	if d := parseConfig(""); !d.readOnly || d.overlay != noOverlay {
		t.Errorf("without words: %+v", d)
	}
}

func TestModulesGetTheirParametersFromTheCommandLine(t *testing.T) {
	t.Parallel()
	params := splitCmdline(`virtio_mmio.device=4K@0xd0000000:5 virtio-mmio.device=4K@0xd0001000:6 other.x=1 virtio_mmio.flag virtio_mmio.t="a b" -- virtio_mmio.no=1`)
	if got, want := moduleParams("virtio_mmio", params), `device=4K@0xd0000000:5 device=4K@0xd0001000:6 flag t="a b"`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRootFormsAreUnderstoodOrRefused(t *testing.T) {
	t.Parallel()
	for _, root := range []string{"/dev/vda", "UUID=x", "LABEL=x", "PARTUUID=x", "254:0"} {
		if _, err := finderOf(root); err != nil {
			t.Errorf("%s: %v", root, err)
		}
	}
	for _, root := range []string{"vda", "NFS", "PARTLABEL=x", "ubi0"} {
		if _, err := finderOf(root); err == nil || !strings.Contains(err.Error(), "UUID=") {
			t.Errorf("%s: %v", root, err)
		}
	}
}

func TestIPWords(t *testing.T) {
	t.Parallel()
	c, err := parseIP("10.0.0.2::10.0.0.1:255.255.255.252:guest:eth0:off:1.1.1.1:8.8.8.8")
	if err != nil || c.address != netip.MustParsePrefix("10.0.0.2/30") || c.gateway != netip.MustParseAddr("10.0.0.1") ||
		c.hostname != "guest" || c.device != "eth0" || len(c.nameServers) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	for word, bits := range map[string]int{"10.0.0.2": 8, "172.16.0.2": 16, "192.168.0.2": 24, "10.0.0.2:::255.255.255.255": 32} {
		if c, err := parseIP(word); err != nil || c.address.Bits() != bits {
			t.Errorf("%s: %+v, %v", word, c, err)
		}
	}
	for _, word := range []string{"", "off", "none"} {
		if _, err := parseIP(word); !errors.Is(err, errNoAddress) {
			t.Errorf("%q: %v", word, err)
		}
	}
	for _, word := range []string{"dhcp", "fe80::1", "x", "10.0.0.2:::255.0.255.0", "10.0.0.2::x", "10.0.0.2::::::dhcp", "10.0.0.2:::::::dns"} {
		if _, err := parseIP(word); err == nil || errors.Is(err, errNoAddress) {
			t.Errorf("%q: %v", word, err)
		}
	}
}

func TestResolvConfReplacesASymlinkAndStaysInTheRoot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(n string) string { return filepath.Join(dir, n) }
	if err := errors.Join(os.MkdirAll(in("root/etc"), 0o755), os.WriteFile(in("host"), []byte("host"), 0o600), os.Symlink("../../host", in("root/etc/resolv.conf"))); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(in("root"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := writeResolvConf(root, []netip.Addr{netip.MustParseAddr("10.0.0.1")}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(in("root/etc/resolv.conf"))
	if host, _ := os.ReadFile(in("host")); err != nil || !strings.Contains(string(got), "nameserver 10.0.0.1\n") || string(host) != "host" {
		t.Errorf("resolv.conf %q, %v; the host's file %q", got, err, host)
	}
}

func TestInitIsTheFirstThatIsThere(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if _, err := findInit(root, ""); err == nil || !strings.Contains(err.Error(), "/sbin/init") {
		t.Errorf("no init: %v", err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "sbin/init"), 0o755), os.Mkdir(filepath.Join(root, "bin"), 0o755), os.Symlink("/nowhere", filepath.Join(root, "bin/init"))); err != nil {
		t.Fatal(err)
	}
	if got, err := findInit(root, ""); err != nil || got != "/bin/init" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := findInit(root, "/wanted"); err == nil {
		t.Error("init= fell back to another program")
	}
}

func TestDiskTypesPutExt4First(t *testing.T) {
	t.Parallel()
	got := diskTypes("nodev\tsysfs\n\text3\n\tsquashfs\nnodev\ttmpfs\n\text4\n\n")
	if !slices.Equal(got, []string{"ext4", "ext3", "squashfs"}) {
		t.Errorf("%v", got)
	}
}

func TestModuleOrderRefusesPaths(t *testing.T) {
	t.Parallel()
	if got, err := parseOrder("# c\nvirtio\n\n virtio_blk \n"); err != nil || !slices.Equal(got, []string{"virtio", "virtio_blk"}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := parseOrder("a\n../../x\n"); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("%v", err)
	}
}

func TestTheEndOfInitIsDescribed(t *testing.T) {
	t.Parallel()
	for status, want := range map[unix.WaitStatus]string{
		unix.WaitStatus(unix.SIGINT): "power-off or halt", unix.WaitStatus(unix.SIGHUP): "reboot",
		unix.WaitStatus(unix.SIGKILL): "killed by killed", 3 << 8: "exit code 3",
	} {
		if got := describe(status); got != want {
			t.Errorf("%#x: %q, want %q", int(status), got, want)
		}
	}
}

func extSuper() []byte {
	sb := make([]byte, 136)
	binary.LittleEndian.PutUint16(sb[56:], 0xef53)
	for i := range 16 {
		sb[104+i] = byte(i)
	}
	copy(sb[120:], "root")
	return sb
}

func TestSuperblocksAndPartitionTablesAreRead(t *testing.T) {
	t.Parallel()
	if uuid, label := parseExt(extSuper()); uuid != "00010203-0405-0607-0809-0a0b0c0d0e0f" || label != "root" {
		t.Errorf("%q %q", uuid, label)
	}
	mbr := make([]byte, 1024)
	mbr[510], mbr[511] = 0x55, 0xaa
	binary.LittleEndian.PutUint32(mbr[440:], 0x0eaa91a0)
	if got := parseMBR(mbr, 1); got != "0eaa91a0-01" {
		t.Errorf("%q", got)
	}
	mbr[450] = 0xee
	copy(mbr[512:], "EFI PART")
	mbr[512+72], mbr[512+84] = 2, 128
	if got := parseMBR(mbr, 1); got != "" {
		t.Errorf("a protective MBR gives %q", got)
	}
	if entries, size := parseGPTHeader(mbr); entries != 1024 || size != 128 {
		t.Errorf("%d %d", entries, size)
	}
	e := make([]byte, 128)
	copy(e[16:], "\x04\x03\x02\x01\x06\x05\x08\x07\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10")
	if got := parseGPTEntry(e); got != "01020304-0506-0708-090a-0b0c0d0e0f10" {
		t.Errorf("%q", got)
	}
}

func TestADiskThatIsThereIsFoundAtOnce(t *testing.T) {
	t.Parallel()
	names := blockDevices()
	if len(names) == 0 {
		t.Skip("no block devices here")
	}
	var st unix.Stat_t
	if unix.Stat("/dev/"+names[0], &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		t.Skipf("/dev/%s is not here", names[0])
	}
	start := time.Now()
	if got, err := waitForDisk("/dev/"+names[0], false); err != nil || got != "/dev/"+names[0] || time.Since(start) > diskBound/2 {
		t.Errorf("%q, %v after %s", got, err, time.Since(start))
	}
}

func TestAnIPv6AddressIsReadWithItsGateway(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{
		"fd00::2/64,fd00::1": "fd00::2/64 by fd00::1",
		"fd00::2/128":        "fd00::2/128 by invalid IP",
	} {
		c, err := parseIP6(word)
		if got := c.address.String() + " by " + c.gateway.String(); err != nil || got != want {
			t.Errorf("%s: %s, %v", word, got, err)
		}
	}
	for _, word := range []string{"", "fd00::2", "10.0.0.2/8", "fd00::2/64,", "fd00::2/64,10.0.0.1", "fd00::2/64,fe80::1%eth0", "fd00::2/129"} {
		if c, err := parseIP6(word); err == nil {
			t.Errorf("%q was read as %+v", word, c)
		}
	}
}

func FuzzSplitCmdline(f *testing.F) {
	f.Add(`a="b c" -- x ip=1.2.3.4:::255.255.255.0 microvm.overlay=tmpfs`)
	f.Add(`"`)
	f.Fuzz(func(t *testing.T, line string) {
		total := 0
		for _, p := range splitCmdline(line) {
			total += len(p.key) + len(p.value)
		}
		if total > len(line) {
			t.Errorf("%d bytes out of %d", total, len(line))
		}
		for _, word := range parseConfig(line).ip {
			if c, err := parseIP(word); err == nil && !c.address.IsValid() {
				t.Errorf("ip=%s: no address and no error", word)
			}
		}
	})
}

func FuzzSuperblocks(f *testing.F) {
	f.Add(extSuper())
	f.Add(append(make([]byte, 512), "EFI PART"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		parseExt(b)
		parseMBR(b, 1)
		parseGPTEntry(b)
		if entries, size := parseGPTHeader(b); entries < 0 || size < 0 || size > 4096 {
			t.Errorf("%d %d", entries, size)
		}
	})
}
