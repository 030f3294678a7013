//go:build linux

package qemuengine

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tangle-network/microvm/fcemu"
)

const (
	hostIP  = "172.16.0.1"
	guestIP = "172.16.0.2"
)

// A boot is what costs time here, so one guest serves many questions, and its
// clones the rest.
func TestLinuxGuest(t *testing.T) {
	t.Parallel()
	files := guestFiles(t)
	g := newGuest(t)
	g.boot(deviceConfig(t, files, g))

	t.Run("PauseStopsItsClock", g.in(testPause))
	t.Run("ItsDriveTakesAnotherFileAndAnotherLimit", g.in(testPatchDrive))
	t.Run("ItsBalloonGrowsAndTellsOfItself", g.in(testBalloon))
	t.Run("ItHasEntropy", g.in(func(g *guest) {
		g.shell("cat /sys/class/misc/hw_random/rng_current", "virtio_rng.0")
		g.shell("head -c 16 /dev/hwrng | wc -c | sed s/^/bytes:/", "bytes:16")
	}))
	t.Run("ItReachesTheHost", g.in(testPing))
	t.Run("ItIsCounted", g.in(testCounters))
	if t.Failed() {
		return
	}
	s := takeGolden(g)
	if t.Failed() {
		return
	}
	t.Run("Clones", func(t *testing.T) { testClones(t, s) })
	t.Run("End", func(t *testing.T) { testEnds(t, s) })
	t.Run("BadSnapshots", func(t *testing.T) { testBadSnapshots(t, s) })
	s.checkUntouched(t)
}

// in makes a subtest of a test on a shared guest.
func (g *guest) in(f func(g *guest)) func(*testing.T) {
	return func(t *testing.T) {
		inner := *g
		inner.t = t
		f(&inner)
	}
}

// deviceConfig has one of each device but vsock, whose program may be missing.
func deviceConfig(t *testing.T, files string, g *guest) *fcemu.Config {
	cfg := bootConfig(t, files, g.dir)
	data := filepath.Join(g.dir, "data")
	if err := os.WriteFile(data, bytes.Repeat([]byte("first..\n"), 64<<10/8), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Drives = append(cfg.Drives, fcemu.Drive{DriveID: "data", PathOnHost: &data, CacheType: "Writeback"})
	cfg.Balloon = &fcemu.Balloon{StatsPollingIntervalS: 1, DeflateOnOOM: true}
	cfg.Entropy = &fcemu.Entropy{}
	var err error
	if g.net, err = newNamespace(t); err != nil {
		t.Logf("no network interface is tested, it needs a network namespace: %v", err)
		return cfg
	}
	cfg.NetworkInterfaces = []fcemu.NetworkInterface{{IfaceID: "eth0", HostDevName: "tap0", MTU: ptr(1400)}}
	cfg.BootSource.BootArgs = ptr(*cfg.BootSource.BootArgs + " ip=" + guestIP + "::" + hostIP + ":255.255.255.252::eth0:off")
	return cfg
}

// testPause: a guest that runs prints five lines a second.
func testPause(g *guest) {
	g.nextTick()
	g.mustPause()
	g.mustPause()
	// What was printed before the pause may still be on its way.
	for silent, patience := false, time.After(10*time.Second); !silent; {
		select {
		case <-g.console.grown:
		case <-time.After(700 * time.Millisecond):
			silent = true
		case <-patience:
			g.t.Fatal("a paused guest goes on printing")
		}
	}
	g.mustResume()
	g.mustResume()
	g.nextTick()
}

func testPatchDrive(g *guest) {
	g.shell("head -c 5 /dev/vdb | sed s/^/it-is-/", "it-is-first")
	other := filepath.Join(g.dir, "other")
	if err := os.WriteFile(other, bytes.Repeat([]byte("second.\n"), 768<<10/8), 0o600); err != nil {
		g.t.Fatal(err)
	}
	// Another file, and 256 KiB a second from now on.
	d := &g.cfg.Drives[1]
	d.PathOnHost = &other
	d.RateLimiter = &fcemu.RateLimiter{Bandwidth: &fcemu.TokenBucket{Size: 256 << 10, RefillTime: 1000}}
	if err := g.Update(testContext(g.t), g.cfg, "drives", "data"); err != nil {
		g.t.Fatal(err)
	}
	g.shell("until [ $(cat /sys/block/vdb/size) = 1536 ]; do :; done; echo 3 > /proc/sys/vm/drop_caches; echo re''sized", "resized")
	began := time.Now()
	g.shell("tail -c 8 /dev/vdb | sed s/^/it-is-/; cat /dev/vdb > /dev/null; echo re''ad", "it-is-second")
	g.expect("read")
	// Above the bucket QEMU lets one more request through, of 128 KiB at most.
	if took := time.Since(began); took < time.Second {
		g.t.Errorf("768 KiB at 256 KiB/s and as much in the bucket took %v, want 1.5 s or more", took)
	}
	d.RateLimiter = nil
	if err := g.Update(testContext(g.t), g.cfg, "drives", "data"); err != nil {
		g.t.Fatal(err)
	}
	missing := *g.cfg
	missing.Drives = []fcemu.Drive{*d}
	missing.Drives[0].PathOnHost = ptr(filepath.Join(g.dir, "missing"))
	if err := g.Update(testContext(g.t), &missing, "drives", "data"); err == nil {
		g.t.Error("a missing file was taken")
	}
	g.shell("echo third > /dev/vdb && sync && echo wri''tten", "written")
	if b, err := os.ReadFile(other); err != nil || !strings.HasPrefix(string(b), "third\n") {
		g.t.Errorf("the file has %.20q, %v", b, err)
	}
}

func testBalloon(g *guest) {
	ctx := testContext(g.t)
	g.cfg.Balloon.AmountMiB = 16
	if err := g.Update(ctx, g.cfg, "balloon", ""); err != nil {
		g.t.Fatal(err)
	}
	until(g, "the balloon has 16 MiB and statistics", func() bool {
		s, err := g.BalloonStats(ctx)
		if err != nil {
			g.t.Fatal(err)
		}
		return s.ActualMiB == 16 && s.TargetMiB == 16 && s.TargetPages == 4096 && s.Guest["total_memory"] > 0
	})
	g.cfg.Balloon.AmountMiB = 128
	if err := g.Update(ctx, g.cfg, "balloon", ""); err == nil {
		g.t.Error("a balloon of all memory was taken")
	}
	g.cfg.Balloon.AmountMiB = 0
	if err := g.Update(ctx, g.cfg, "balloon", ""); err != nil {
		g.t.Error(err)
	}
	g.cfg.Balloon.StatsPollingIntervalS = 2
	if err := g.Update(ctx, g.cfg, "balloon/statistics", ""); err != nil {
		g.t.Error(err)
	}
}

// until polls what no event announces.
func until(g *guest, what string, done func() bool) {
	g.t.Helper()
	ctx := testContext(g.t)
	for !done() {
		select {
		case <-ctx.Done():
			g.t.Fatalf("never: %s; console:\n%s", what, g.console.text())
		case end := <-g.Ended():
			g.t.Fatalf("before %s the guest ended: %+v", what, end)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func testPing(g *guest) {
	if g.net == nil {
		g.t.Skip("this user may not make a network namespace")
	}
	if err := g.net.address("tap0", [4]byte{172, 16, 0, 1}); err != nil {
		g.t.Fatal(err)
	}
	// The TAP of a clone has another address than the guest remembers.
	g.shell("arp -d "+hostIP+"; ping -c 1 -W 10 "+hostIP+" > /dev/null && echo host-ans''wers", "host-answers")
	g.shell("cat /sys/class/net/eth0/mtu | sed s/^/mtu:/", "mtu:1400")
}

func testCounters(g *guest) {
	c := g.Counters()
	for _, name := range []string{"block.read_bytes", "block_rootfs.read_count", "block_data.write_bytes", "uart.write_count", "uart.read_count"} {
		if c[name] == 0 {
			g.t.Errorf("counter %s is 0", name)
		}
	}
}

// testEnds ends clones in every way.
func testEnds(t *testing.T, s *golden) {
	ends := []struct {
		name, command, console string
		code                   int
	}{
		{"RebootIsCodeZero", "echo 3 > /proc/sys/vm/drop_caches; cat /dev/vdb > /dev/null; reboot -f", "", 0},
		{"PowerOffOfOurImagesIsCodeZero", "poweroff", "", 0},
		{"PanicIsCodeZero", "echo c > /proc/sysrq-trigger", "Kernel panic", 0},
		{"TripleFaultIsCodeOne", "echo triple > /sys/kernel/reboot/type; echo b > /proc/sysrq-trigger", "", 1},
	}
	for _, e := range ends {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			g := s.clone(t)
			if e.code != 0 && g.accel.name != "tcg" {
				t.Skip("QEMU tells a triple fault from a reset under TCG only")
			}
			g.mustResume()
			g.typeLine(e.command)
			if end := g.end(); end.ExitCode != e.code {
				t.Errorf("end = %+v, want exit code %d", end, e.code)
			}
			if !strings.Contains(g.console.text(), e.console) {
				t.Errorf("no %q on the console:\n%s", e.console, g.console.text())
			}
			if strings.Contains(e.command, "vdb") && g.Counters()["block_data.read_bytes"] == 0 {
				t.Error("the counters ended with the guest")
			}
		})
	}
	t.Run("PowerOffOfTheMachineIsNone", func(t *testing.T) { t.Parallel(); testPowerOff(s.clone(t)) })
	t.Run("CtrlAltDelReboots", func(t *testing.T) { t.Parallel(); testCtrlAltDel(s.clone(t)) })
	t.Run("DeathOfQEMUIsCodeOne", func(t *testing.T) {
		t.Parallel()
		g := s.clone(t)
		if err := g.vm.child.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if end := g.end(); end.ExitCode != 1 || !strings.Contains(end.Reason, "QEMU") {
			t.Errorf("end = %+v, want exit code 1 and QEMU in the reason", end)
		}
		if err := g.Resume(testContext(t)); err == nil {
			t.Error("a dead guest was resumed")
		}
	})
}

// A power-off leaves the VMM running, and pausing, resuming and keys are no
// errors then.
func testPowerOff(g *guest) {
	g.mustResume()
	g.typeLine("echo o > /proc/sysrq-trigger")
	until(g, "the power is off", g.vm.isHalted)
	ctx := testContext(g.t)
	for _, step := range []func(context.Context) error{g.CtrlAltDel, g.Resume, g.Pause, g.Pause} {
		if err := step(ctx); err != nil {
			g.t.Error(err)
		}
	}
	snap := g.snapshot("Full", g.t.TempDir())
	if err := g.Resume(ctx); err != nil {
		g.t.Error(err)
	}
	g.close()
	select {
	case end := <-g.Ended():
		g.t.Errorf("the guest ended: %+v", end)
	default:
	}
	c := restore(g.t, snap, "")
	if err := c.Resume(ctx); err != nil {
		g.t.Error(err)
	}
	if !c.vm.isHalted() {
		g.t.Error("a clone of a guest without power runs")
	}
}

// Pressed while the guest stands still, seen when it goes on.
func testCtrlAltDel(g *guest) {
	if err := g.CtrlAltDel(testContext(g.t)); err != nil {
		g.t.Fatal(err)
	}
	g.mustResume()
	if end := g.end(); end.ExitCode != 0 {
		g.t.Errorf("end = %+v, want exit code 0", end)
	}
}
