package firecracker

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/console"
	"github.com/tangle-network/microvm/fcapi"
)

// Field case 50: what has gone through a disk is there at once, a reader that
// comes late has all of it, and a VMM that is started again counts anew.
func TestDiskTrafficIsReadAtOnce(t *testing.T) {
	t.Parallel()
	if under.real {
		t.Skip("the tiny guest uses no disk, and MICROVM_TEST_FIRECRACKER is set")
	}
	r := open(t, testConfig(t))
	data := filepath.Join(t.TempDir(), "data")
	must(t, os.WriteFile(data, make([]byte, 1<<20), 0o600))
	spec := microvm.Spec{
		BootArgs: r.cfg.BootArgs + " fcemu.disk_writer=data fcemu.tick=5ms",
		Drives:   []microvm.Drive{{ID: "data", Path: data}},
	}
	start(t, r, "a", spec)
	var m microvm.Metrics
	eventually(t, "the guest writes to its disk", func() bool {
		last := m
		m = mustRead(t, r, "a")
		if last.Run != "" {
			notLess(t, last, m)
		}
		return m.Block.WriteBytes > 8192
	})
	typed := fcapi.Totals{Counts: m.Counters, Values: m.Gauges}.Typed()
	if d := typed.Drives["data"]; d.WriteBytes != m.Block.WriteBytes || d.WriteCount != m.Block.Writes || typed.Drives["rootfs"].WriteBytes != 0 {
		t.Errorf("the drives have %+v, all of them %+v", typed.Drives, m.Block)
	}
	must(t, r.StopVMMode(bg, "a", microvm.StopModeHibernate))
	must(t, r.StartVM(bg, "a"))
	again := mustRead(t, r, "a")
	// This process was told to load a snapshot, not to boot a kernel.
	if boots := "put_api_requests.boot_source_count"; again.Run == m.Run || m.Counters[boots] != 1 || again.Counters[boots] != 0 {
		t.Errorf("%s: %d, and after a new start %s: %d", m.Run, m.Counters[boots], again.Run, again.Counters[boots])
	}
}

// Field case 34: nobody reads the console of a guest that prints a lot at its boot.
// Every byte is there, and the counter agrees.
func TestEveryByteOfAnUnreadConsoleIsThere(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.ConsoleBytes, c.SerialBytesPerSecond = 8<<20, -1
	r := open(t, c)
	start(t, r, "a", microvm.Spec{BootArgs: "reboot=k panic=1 fcemu.console=lines:50000:0"})
	path := filepath.Join(r.store.Dir("a"), consoleFile)
	enough := int64(1 << 20)
	if under.real {
		enough = 1 << 10 // each byte is an exit of the guest
	}
	eventually(t, "the guest has printed", func() bool {
		st, err := os.Stat(path)
		must(t, err)
		return st.Size() >= enough
	})
	must(t, r.StopVM(bg, "a"))
	st, err := os.Stat(path)
	must(t, err)
	m := mustRead(t, r, "a")
	if n := m.Counters["uart.write_count"]; n != uint64(st.Size()) || m.Counters["uart.missed_write_count"] != 0 {
		t.Errorf("the guest has written %d bytes, %d were lost, %d are there", n, m.Counters["uart.missed_write_count"], st.Size())
	}
	var lines lineCheck
	b, err := r.ConsoleTail(bg, "a", -1)
	must(t, err)
	if int64(len(b)) != st.Size() {
		t.Errorf("%d bytes of %d", len(b), st.Size())
	}
	if !under.real { // which prints every eighth count here
		lines.add(t, console.Chunk{Data: b})
	}
}
