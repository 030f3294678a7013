package nullengine

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"github.com/tangle-network/microvm/fcemu"
)

// guest is the guest that isn't there: a clock that runs while the VM does,
// and the commands of its boot args. The engine's goroutine calls start, stop
// and the rest; the guest's own goroutine lives between start and stop, and
// only when a command needs it.
type guest struct {
	cmd     Commands
	mem     *memory
	console *console
	drive   *os.File // of the disk writer
	count   func(name string, n uint64)
	ended   func(fcemu.End)

	state    Guest
	dev      deviceState
	broken   bool // its memory is garbage
	rebooted bool // a reboot or panic is done: there is nothing to run
	panicked bool // nothing runs any more, until it reboots
	keys     bool // Ctrl-Alt-Del was pressed while it was paused
	printed  uint64

	began time.Time // of this run; zero while paused
	quit  chan struct{}
	wg    sync.WaitGroup
}

// boot writes the guest's memory for the first time.
func (g *guest) boot() error {
	if room := g.mem.pages() - min(FirstPage, g.mem.pages()); g.cmd.Pages > room {
		return fmt.Errorf("boot_args: %d pages (fcemu.pages, fcemu.dirty) do not fit: the guest's memory has room for %d",
			g.cmd.Pages, room)
	}
	g.state = Guest{Seed: g.cmd.Seed, Pages: g.cmd.Pages}
	const batch = 256
	buf := make([]byte, min(batch, g.cmd.Pages)*PageSize)
	for p := uint64(0); p < g.cmd.Pages; p += batch {
		n := min(batch, g.cmd.Pages-p)
		for i := range n {
			fillPage(buf[i*PageSize:(i+1)*PageSize], g.cmd.Seed, FirstPage+p+i, 0)
		}
		if err := g.mem.writePages(FirstPage+p, buf[:n*PageSize]); err != nil {
			return err
		}
	}
	return g.mem.writePages(0, g.state.encode())
}

// restore takes up the state of a restored memory.
func (g *guest) restore(dev deviceState) error {
	st, err := ReadGuest(g.mem)
	if err != nil {
		return err
	}
	g.state, g.dev = st, dev
	if st.Pages > g.mem.pages()-min(FirstPage, g.mem.pages()) {
		return fmt.Errorf("page 0: %d pages: %w", st.Pages, ErrBadPage)
	}
	return nil
}

func (g *guest) device() deviceState { return g.dev }

// uptime is how long the guest has run.
func (g *guest) uptime() time.Duration {
	up := time.Duration(g.state.Uptime)
	if !g.began.IsZero() {
		up += time.Since(g.began)
	}
	return up
}

// start lets the guest run. Twice is once.
func (g *guest) start() {
	if !g.began.IsZero() {
		return
	}
	g.began = time.Now()
	if g.broken {
		g.ended(fcemu.End{ExitCode: 1, Reason: "triple fault: the memory is garbage"})
		return
	}
	if g.keys {
		g.keys = false
		g.reboot("reboot: Restarting system")
		return
	}
	if g.dev.Halted || g.rebooted || !g.busy() {
		return
	}
	g.quit = make(chan struct{})
	g.wg.Add(1)
	go func(quit chan struct{}, began time.Time) {
		defer g.wg.Done()
		g.run(quit, began)
	}(g.quit, g.began)
}

// busy tells whether any command needs the guest's own goroutine.
func (g *guest) busy() bool {
	c := g.cmd
	return c.Tick > 0 || c.RebootAfter >= 0 || c.PanicAfter >= 0 || c.HaltAfter >= 0 || c.FaultAfter >= 0
}

// stop pauses the guest and writes its state into its memory. Twice is once.
func (g *guest) stop() error {
	if g.began.IsZero() {
		return nil
	}
	g.halt()
	if g.broken {
		return nil
	}
	if err := g.mem.writePages(0, g.state.encode()); err != nil {
		g.ended(fcemu.End{ExitCode: 1, Reason: "the guest's memory is gone: " + err.Error()})
		return err
	}
	return nil
}

// halt ends the guest's goroutine.
func (g *guest) halt() {
	if g.quit != nil {
		close(g.quit)
		g.wg.Wait()
		g.quit = nil
	}
	if !g.began.IsZero() {
		g.state.Uptime = uint64(g.uptime())
		g.began = time.Time{}
	}
}

// run is the guest's goroutine. It owns state, dev, and the memory until quit
// is closed and it has returned.
func (g *guest) run(quit chan struct{}, began time.Time) {
	base := time.Duration(g.state.Uptime)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	nextTick := time.Duration(math.MaxInt64)
	if g.cmd.Tick > 0 {
		nextTick = base + g.cmd.Tick
	}
	for {
		now := base + time.Since(began)
		if done := g.events(now); done {
			return
		}
		if g.panicked || g.idle() {
			nextTick = math.MaxInt64
		}
		if now >= nextTick {
			if err := g.tick(); err != nil {
				g.ended(fcemu.End{ExitCode: 1, Reason: "the guest's memory or disk is gone: " + err.Error()})
				return
			}
			// A guest that can't keep up does not run after its ticks.
			if nextTick += g.cmd.Tick; nextTick < now {
				nextTick = now
			}
		}
		next := min(nextTick, g.nextEvent(now))
		timer.Reset(next - now)
		select {
		case <-quit:
			return
		case <-timer.C:
		}
	}
}

// idle tells whether there is nothing left to do at each tick: all lines are
// printed, and that was all.
func (g *guest) idle() bool {
	c := g.cmd
	return c.Console && c.Lines > 0 && g.printed >= c.Lines && c.Rewrite == 0 && g.drive == nil
}

// nextEvent is the time of the next command that is not a tick.
func (g *guest) nextEvent(now time.Duration) time.Duration {
	next := now + time.Hour
	panicEnd := never
	if g.cmd.PanicAfter >= 0 && g.cmd.PanicWait >= 0 {
		panicEnd = g.cmd.PanicAfter + g.cmd.PanicWait
	}
	for _, at := range []time.Duration{g.cmd.RebootAfter, g.cmd.PanicAfter, panicEnd, g.cmd.HaltAfter, g.cmd.FaultAfter} {
		if at > now {
			next = min(next, at)
		}
	}
	return next
}

// events does what is due, and says whether the guest has nothing more to run.
func (g *guest) events(now time.Duration) (done bool) {
	due := func(at time.Duration) bool { return at >= 0 && now >= at }
	c := g.cmd
	switch {
	case due(c.FaultAfter):
		g.rebooted = true
		g.ended(fcemu.End{ExitCode: 1, Reason: "triple fault"})
		return true
	case due(c.PanicAfter):
		if !g.panicked {
			g.panicked = true
			g.print("Kernel panic - not syncing: fcemu.panic_after")
		}
		switch {
		case c.PanicWait < 0:
			g.dev.Halted = true
			return true
		case now < c.PanicAfter+c.PanicWait:
			return false
		}
		g.reboot("Rebooting..")
		return true
	case due(c.RebootAfter):
		g.reboot("reboot: Restarting system")
		return true
	case due(c.HaltAfter):
		g.print("reboot: Power down")
		g.dev.Halted = true
		return true
	}
	return false
}

// reboot ends the guest, as a reset does.
func (g *guest) reboot(line string) {
	g.print(line)
	g.rebooted = true
	g.ended(fcemu.End{ExitCode: g.cmd.RebootCode, Reason: "guest reset"})
}

// pressKeys is Ctrl-Alt-Del.
func (g *guest) pressKeys() error {
	if g.cmd.IgnoreKeys {
		return nil
	}
	running := !g.began.IsZero()
	if err := g.stop(); err != nil {
		return err
	}
	switch {
	case g.dev.Halted || g.rebooted:
		g.keys = false
	case !running:
		g.keys = true // it sees them when it runs
	default:
		g.reboot("reboot: Restarting system")
	}
	if running {
		g.start()
	}
	return nil
}

func (g *guest) print(line string) { g.console.write([]byte(line + "\r\n")) }

// tick is one step of the guest's work.
func (g *guest) tick() error {
	g.state.Ticks++
	if g.cmd.Console && (g.cmd.Lines == 0 || g.printed < g.cmd.Lines) {
		g.printed++
		g.print(fmt.Sprintf("null guest: tick %d", g.state.Ticks))
	}
	for range g.cmd.Rewrite {
		if g.state.Pages == 0 {
			break
		}
		page := FirstPage + g.state.Rewrites%g.state.Pages
		g.state.Rewrites++
		if err := g.mem.writePages(page, Page(g.state.Seed, page, g.state.Generation(page))); err != nil {
			return err
		}
	}
	if g.cmd.Rewrite > 0 {
		if err := g.mem.writePages(0, g.state.encode()); err != nil {
			return err
		}
	}
	return g.writeDisk()
}

// sector is what the disk writer writes per tick, into one place after the
// other, round and round.
const sector = 512

func (g *guest) writeDisk() error {
	if g.drive == nil {
		return nil
	}
	st, err := g.drive.Stat()
	if err != nil {
		return fmt.Errorf("disk writer: %w", err)
	}
	sectors := st.Size() / sector
	if sectors == 0 {
		return errors.New("disk writer: the drive is smaller than a sector")
	}
	b := Page(g.state.Seed, g.state.Ticks, 0)[:sector]
	if _, err := g.drive.WriteAt(b, int64(g.state.Ticks)%sectors*sector); err != nil {
		return fmt.Errorf("disk writer: %w", err)
	}
	for _, at := range []string{"block", "block_" + g.cmd.DiskWriter} {
		g.count(at+".write_bytes", sector)
		g.count(at+".write_count", 1)
	}
	return nil
}
