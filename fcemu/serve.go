package fcemu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// metricsPeriod is how often the metrics of a running guest are written.
const metricsPeriod = 60 * time.Second

// serve runs the API, and the guest behind it, to the end.
func (p *Process) serve(ctx context.Context, log *logger, rel release, args arguments, mishaps []*mishap) error {
	m := newMetrics(rel)
	defer m.close()
	s, err := p.settle(rel, args, log, m)
	if err != nil {
		return err
	}
	if s.engine, err = p.engineName(args); err != nil {
		return fail("Engine("+strconv.Quote(err.Error())+")", "No engine: "+err.Error())
	}
	writeOrDrop(p.Stderr, []byte("fcemu "+rel.reported()+": this is an emulator of Firecracker (engine: "+s.engine+"), not the original\n"))
	if s.mishaps = mishaps; len(mishaps) > 0 {
		writeOrDrop(p.Stderr, []byte("fcemu: faults were ordered: "+p.faults(args)+"\n"))
	}
	engine, err := p.Engines[s.engine](EngineOptions{
		ID: s.id, Stdin: p.Stdin, Stdout: p.Stdout, PCI: s.pci, BootTimer: s.bootTimer,
		Log: func(l Level, msg string) { log.log(srcEngine, l, "%s", msg) },
	})
	if err != nil {
		return fail("Engine("+strconv.Quote(err.Error())+")", "Engine "+s.engine+": "+err.Error())
	}
	c := &controller{
		ctx: ctx, id: s.id, rel: rel, pci: s.pci, engine: engine, log: log, metrics: m,
		mmds: mmdsStore{limit: s.mmdsLimit}, files: heldFiles{}, stdout: p.Stdout, state: notStarted,
		cfg: Config{Machine: MachineConfig{VCPUCount: 1, MemSizeMiB: 128, HugePages: "None"}},
	}
	c.cfg.rel, m.id = &c.rel, s.id
	return errors.Join(c.run(s), c.close())
}

// close ends the guest; the metrics of a guest that lived are written once
// more, as the original does when it drops its VM.
func (c *controller) close() error {
	if c.started() {
		c.flushMetrics() // nobody is left to be told of a failure
	}
	c.files.closeAll()
	if err := c.engine.Close(); err != nil {
		return fmt.Errorf("close the %s engine: %w", c.engine.Name(), err)
	}
	return nil
}

func (c *controller) run(s *settings) error {
	listener := -1
	if s.apiSock != "" {
		var err error
		if listener, err = listenUnix(s.apiSock); errors.Is(err, unix.EADDRINUSE) {
			return fail("RunWithApi(FailedToBindSocket("+strconv.Quote(s.apiSock)+"))",
				"RunWithApiError error: Failed to open the API socket at: "+s.apiSock+". Check that it is not already used.")
		} else if err != nil {
			return fail("RunWithApi(FailedToBindAndRunHttpServer("+strconv.Quote(osText(err))+"))",
				"RunWithApiError error: Failed to bind and run the HTTP server: "+osText(err))
		}
		// The socket's name stays, on every way out, as with the original.
		defer unix.Close(listener)
		c.log.log(srcMain, LevelInfo, "Listening on API socket (%q).", s.apiSock)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	defer unix.Close(wake)
	handle := c.handle
	if len(s.mishaps) > 0 {
		handle = c.troubled(s.mishaps)
	}
	srv, err := newServer(listener, wake, s.maxBody, &c.rel, handle)
	if err != nil {
		return err
	}
	defer srv.close()
	if listener >= 0 {
		c.log.log(srcAPI, LevelInfo, "API server started.")
		for name, v := range s.startMetrics {
			c.metrics.store(name, v)
		}
	}
	if err := c.prepare(s); err != nil {
		return err
	}
	ends, stopWaiting := c.awaitEnd(wake)
	defer stopWaiting()
	return c.loop(srv, ends)
}

// prepare applies --metadata and --config-file.
func (c *controller) prepare(s *settings) error {
	if s.metadata != nil && s.config == nil {
		if err := c.loadMetadata(s.metadata); err != nil {
			return err
		}
	}
	if s.config == nil {
		return nil
	}
	if err := c.bootFromFile(s.config, s.metadata); err != nil {
		run := "RunWithoutApiError"
		if s.apiSock != "" {
			run = "RunWithApi"
		}
		var e *exit
		if errors.As(err, &e) {
			return err
		}
		return fail(run+"(BuildFromJson("+strconv.Quote(err.Error())+"))", run+" error: Failed to build MicroVM from Json: "+err.Error())
	}
	c.log.log(srcMain, LevelInfo, "Successfully started microvm that was configured from one single json")
	return nil
}

func (c *controller) loadMetadata(data []byte) error {
	n, err := parseJSON(data)
	if err != nil {
		return panicked("MMDS error: metadata provided not valid json: " + err.Error())
	}
	if f := c.mmds.put(n); f != nil {
		return fail("RunWithApi(PopulateMmds)", "Populating MMDS from file failed: "+f.msg)
	}
	c.log.log(srcVMM, LevelInfo, "Successfully added metadata to mmds from file")
	return nil
}

// awaitEnd wakes the loop when the guest or the context ends. The channel then
// has the guest's end, if it was that.
func (c *controller) awaitEnd(wake int) (ends <-chan End, stop func()) {
	out := make(chan End, 1)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		select {
		case e := <-c.engine.Ended():
			out <- e
		case <-c.ctx.Done():
		case <-done:
			return
		}
		// An eventfd that is at its limit is awake already.
		_, _ = unix.Write(wake, binary.NativeEndian.AppendUint64(nil, 1))
	}()
	return out, func() {
		close(done)
		wg.Wait()
	}
}

func (c *controller) loop(srv *server, ends <-chan End) error {
	var due time.Time
	for {
		var deadline time.Time
		if c.started() && due.IsZero() {
			due = time.Now().Add(metricsPeriod)
		}
		if c.state == running { // the timer of a paused guest waits
			deadline = due
		}
		woken, err := srv.serveOnce(deadline, func() bool { return c.fatal != nil })
		if err != nil {
			return err
		}
		switch {
		case c.fatal != nil:
			srv.flush()
			return c.fatal
		case woken:
			srv.flush()
			select {
			case e := <-ends:
				return c.ended(e)
			default:
				return cancelled(c.ctx)
			}
		case c.state == running && !due.IsZero() && !time.Now().Before(due):
			if !c.flushMetrics() {
				c.metrics.add("logger.missed_metrics_count", 1)
			}
			due = time.Now().Add(metricsPeriod)
		}
	}
}

func (c *controller) ended(e End) error {
	c.log.log(srcVMM, LevelInfo, "Vmm is stopping. (%s)", e.Reason)
	if e.ExitCode == 0 {
		return nil
	}
	return &exit{e.ExitCode, "RunWithApiError error: MicroVM stopped with an error: " + e.Reason, "RunWithApi(MicroVMStoppedWithError(" + strconv.Itoa(e.ExitCode) + "))"}
}

func cancelled(ctx context.Context) error {
	cause := context.Cause(ctx)
	var sig EndedBySignal
	if errors.As(cause, &sig) {
		if code, ok := ExitCodeOf(sig.Signal); ok {
			return &exit{code, fmt.Sprintf("Shutting down VM after intercepting signal %d, code 0.", int(sig.Signal)), cause.Error()}
		}
	}
	return fmt.Errorf("stopped: %w", cause)
}

// setNonblock makes the console lose what its reader doesn't take, instead of
// stopping the guest.
func setNonblock(fd int) {
	if fd >= 0 {
		// A descriptor that refuses stays as it is: the console then waits.
		_ = unix.SetNonblock(fd, true)
	}
}
