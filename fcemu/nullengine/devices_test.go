package nullengine_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/tangle-network/microvm/fcemu"
	"github.com/tangle-network/microvm/fcemu/nullengine"
	"golang.org/x/sys/unix"
)

func TestATerminalIsRawWhileTheGuestLives(t *testing.T) {
	t.Parallel()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	defer master.Close()
	r := newRig(t, "fcemu.echo", nullengine.Options{})
	r.ok(unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	r.ok(err)
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	defer tty.Close()
	canonical := func() bool {
		tio, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		r.ok(err)
		return tio.Lflag&unix.ICANON != 0
	}
	r.open(nullengine.Options{EngineOptions: fcemu.EngineOptions{Stdin: int(tty.Fd()), Stdout: -1}})
	r.start()
	if canonical() {
		t.Error("the terminal is not raw while the guest lives")
	}
	r.ok(r.Engine.Close())
	if !canonical() {
		t.Error("the terminal stays raw after the end")
	}
}

func TestATapIsHeldUntilTheEngineEnds(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("making a TAP needs root")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("no TAPs here: %v", err)
	}
	name := fmt.Sprintf("fcet%d", os.Getpid()%1000000)
	r := newRig(t, "", nullengine.Options{})
	r.cfg.NetworkInterfaces = []fcemu.NetworkInterface{{IfaceID: "e", HostDevName: name}}
	r.attach("network-interfaces", "e")
	if _, err := net.InterfaceByName(name); err != nil {
		t.Errorf("the TAP is not there: %v", err)
	}
	other := newRig(t, "", nullengine.Options{})
	other.cfg.NetworkInterfaces = r.cfg.NetworkInterfaces
	if err := other.Attach(t.Context(), other.cfg, "network-interfaces", "e"); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a TAP in use: %v, want EBUSY", err)
	}
	r.ok(r.Engine.Close())
	if _, err := net.InterfaceByName(name); err == nil {
		t.Error("the TAP that was made for the guest outlives it")
	}
	// A name that the kernel chooses is put into the configuration.
	other.cfg.NetworkInterfaces[0].HostDevName = ""
	other.attach("network-interfaces", "e")
	if got := other.cfg.NetworkInterfaces[0].HostDevName; !strings.HasPrefix(got, "tap") {
		t.Errorf("host_dev_name %q", got)
	}
}

func TestWhatIsNotEmulatedIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", nullengine.Options{})
	r.cfg.Balloon = &fcemu.Balloon{FreePageHinting: true}
	for _, section := range []string{"balloon", "something new"} {
		if err := r.Attach(t.Context(), r.cfg, section, ""); err == nil || !strings.Contains(err.Error(), "does not emulate") {
			t.Errorf("%s: %v", section, err)
		}
	}
}

func TestHotpluggedMemoryIsThereAtOnceAndKeptInASnapshot(t *testing.T) {
	t.Parallel()
	r := newRig(t, "", nullengine.Options{})
	r.start()
	r.ok(r.RequestMemory(t.Context(), 256))
	r.ok(r.Pause(t.Context()))
	r.snapshot("Full", "s")
	c, err := r.clone("s", fcemu.MemBackend{})
	r.ok(err)
	if plugged, requested, err := c.PluggedMemory(t.Context()); plugged != 256 || requested != 256 || err != nil {
		t.Errorf("%d, %d, %v", plugged, requested, err)
	}
}

func TestIgnoredKeysDoNotEndTheGuest(t *testing.T) {
	t.Parallel()
	r := newRig(t, "fcemu.ignore_cad fcemu.reboot_after=30ms", nullengine.Options{})
	r.start()
	r.ok(r.CtrlAltDel(t.Context()))
	if g := r.ended(); g.ExitCode != 0 {
		t.Errorf("end %+v", g)
	}
	r.ok(r.Pause(t.Context()))
	r.snapshot("Full", "s")
	if g := r.verify("s"); g.Uptime < 30e6 {
		t.Errorf("the keys ended the guest after %d ns", g.Uptime)
	}
}

func TestAKernelOfAnotherKindIsRefusedAtTheStart(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"empty": "", "text": "hello", "cut ELF": "\x7fELF\x02\x01\x01"} {
		r := newRig(t, "", nullengine.Options{})
		r.ok(os.WriteFile(r.path("k"), []byte(content), 0o644))
		r.cfg.BootSource.KernelImagePath = r.path("k")
		r.attach("boot-source", "")
		if err := r.Start(t.Context(), r.cfg); err == nil || !strings.Contains(err.Error(), "kernel_image_path") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A FIFO must not hold anybody up.
	r := newRig(t, "", nullengine.Options{})
	r.ok(unix.Mkfifo(r.path("fifo"), 0o600))
	r.cfg.BootSource.KernelImagePath = r.path("fifo")
	r.attach("boot-source", "")
	if err := r.Start(t.Context(), r.cfg); err == nil {
		t.Error("a FIFO was taken for a kernel")
	}
}
