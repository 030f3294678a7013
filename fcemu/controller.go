package fcemu

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
)

// vmState is the state of the guest as GET / names it.
type vmState string

const (
	notStarted vmState = "Not started"
	running    vmState = "Running"
	paused     vmState = "Paused"
)

// controller is the state machine behind the API. It belongs to the server's
// goroutine.
type controller struct {
	ctx     context.Context
	id      string
	rel     release
	pci     bool
	engine  Engine
	log     *logger
	metrics *metrics
	mmds    mmdsStore
	files   heldFiles
	stdout  int

	state vmState
	cfg   Config
	// bootPath is true once a boot-specific resource was asked for, even in
	// vain: no snapshot can be loaded then.
	bootPath bool
	// fatal is set by a failure after which the process must go, once it is
	// answered.
	fatal *exit
}

// handle serves one request, and logs it in the original's words.
func (c *controller) handle(r request) response {
	c.logRequest(r)
	a, f := route(r)
	var body []byte
	if f == nil {
		body, f = a.do(c)
	}
	var out response
	switch {
	case f != nil:
		status := "400 Bad Request"
		if f.status == 413 {
			status = "413 Payload too large"
		}
		c.log.log(srcAPI, LevelError, "Received Error. Status code: %s. Message: %s", status, f.msg)
		out = faultResponse(f.status, f.msg)
	case body != nil:
		c.log.log(srcAPI, LevelInfo, "The request was executed successfully. Status code: 200 OK.")
		out = okBody(body)
	default:
		c.log.log(srcAPI, LevelInfo, "The request was executed successfully. Status code: 204 No Content.")
		out = noContent()
	}
	out.deprecated = a.deprecated
	c.metrics.countRequest(r, f != nil)
	return out
}

func (c *controller) logRequest(r request) {
	name := strings.ToUpper(r.method[:1]) + strings.ToLower(r.method[1:])
	path := r.uri
	if r.body == nil || path == "/mmds" {
		c.log.log(srcAPI, LevelInfo, "The API server received a %s request on %q.", name, path)
		return
	}
	c.log.log(srcAPI, LevelInfo, "The API server received a %s request on %q with body %q.", name, path, r.body)
}

// started tells whether there is a guest, running or paused.
func (c *controller) started() bool { return c.state != notStarted }

// preBoot refuses what may only be done before boot.
func (c *controller) preBoot() *fault {
	if c.started() {
		return errPostBoot
	}
	return nil
}

// postBoot refuses what needs a guest.
func (c *controller) postBoot() *fault {
	if !c.started() {
		return errPreBoot
	}
	return nil
}

// marshal encodes an answer. The types are ours, so that it can't fail but by
// a mistake in them.
func marshal(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return []byte(`{"fault_message":` + quote(err.Error()) + `}`)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func (c *controller) instanceInfo() ([]byte, *fault) {
	return marshal(struct {
		ID      string  `json:"id"`
		State   vmState `json:"state"`
		Version string  `json:"vmm_version"`
		App     string  `json:"app_name"`
	}{c.id, c.state, c.rel.reported(), appName}), nil
}

func (c *controller) version() ([]byte, *fault) {
	return marshal(struct {
		Version string `json:"firecracker_version"`
		Engine  string `json:"fcemu_engine"`
	}{c.rel.reported(), c.engine.Name()}), nil
}

func (c *controller) machineConfig() ([]byte, *fault) { return marshal(c.cfg.Machine), nil }

func (c *controller) balloonConfig() ([]byte, *fault) {
	if c.cfg.Balloon == nil {
		if c.started() {
			return nil, refuse("Internal VMM error: " + noBalloon)
		}
		return nil, refuse("Balloon config error: No balloon device found.")
	}
	return marshal(c.rel.balloon(c.cfg.Balloon)), nil
}

func (c *controller) putLogger(cfg LoggerConfig) *fault {
	if f := c.preBoot(); f != nil {
		return f
	}
	if err := c.log.update(cfg); err != nil {
		return refuse("Logger error: Failed to open target file: " + osText(err))
	}
	return nil
}

func (c *controller) putMetrics(m MetricsConfig) *fault {
	if f := c.preBoot(); f != nil {
		return f
	}
	if err := c.metrics.open(m); err != nil {
		return refuse("Metrics error: Cannot initialize the metrics system due to bad user input: " + osText(err))
	}
	return nil
}

func (c *controller) putSerial(s Serial) *fault {
	if f := c.preBoot(); f != nil {
		return f
	}
	old := c.cfg.Serial
	c.cfg.Serial = &s
	if err := c.engine.Attach(c.ctx, &c.cfg, "serial", ""); err != nil {
		c.cfg.Serial = old
		return engineFault("Serial config error", err)
	}
	return nil
}

// action is PUT /actions.
func (c *controller) action(kind string) *fault {
	switch kind {
	case "InstanceStart":
		return c.startGuest()
	case "FlushMetrics":
		if f := c.postBoot(); f != nil {
			return f
		}
		if !c.flushMetrics() {
			return refuse("Internal VMM error: Failed to write the metrics")
		}
		return nil
	}
	if f := c.postBoot(); f != nil {
		return f
	}
	if err := c.engine.CtrlAltDel(c.ctx); err != nil {
		return engineFault("Internal VMM error", err)
	}
	return nil
}

// flushMetrics writes a line of metrics; without a file it has nothing to do.
func (c *controller) flushMetrics() bool {
	devices := map[string][]string{}
	for _, d := range c.cfg.Drives {
		devices["block"] = append(devices["block"], d.DriveID)
	}
	for _, n := range c.cfg.NetworkInterfaces {
		devices["net"] = append(devices["net"], n.IfaceID)
	}
	for _, p := range c.cfg.Pmem {
		devices["pmem"] = append(devices["pmem"], p.ID)
	}
	return c.metrics.write(c.engine.Counters(), devices, c.log.missedLines())
}

// startGuest is InstanceStart.
func (c *controller) startGuest() *fault {
	if f := c.preBoot(); f != nil {
		return f
	}
	if c.cfg.BootSource.KernelImagePath == "" {
		return refuse("Start microvm error: Cannot start microvm without kernel configuration.")
	}
	if err := c.engine.Start(c.ctx, &c.cfg); err != nil {
		return engineFault("Start microvm error", err)
	}
	setNonblock(c.stdout)
	c.state = running
	return nil
}

// patchVM is PATCH /vm. Both states may be asked for twice.
func (c *controller) patchVM(state string) *fault {
	if f := c.postBoot(); f != nil {
		return f
	}
	if state == "Paused" {
		if err := c.engine.Pause(c.ctx); err != nil {
			return engineFault("Internal VMM error", err)
		}
		c.state = paused
		return nil
	}
	if err := c.engine.Resume(c.ctx); err != nil {
		return engineFault("Internal VMM error", err)
	}
	c.state = running
	return nil
}
