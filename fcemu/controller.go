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
	// fatal is set by a failure after which the process must go.
	fatal string
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
	}{c.id, c.state, ReportedVersion, appName}), nil
}

func (c *controller) version() ([]byte, *fault) {
	return marshal(struct {
		Version string `json:"firecracker_version"`
		Engine  string `json:"fcemu_engine"`
	}{ReportedVersion, c.engine.Name()}), nil
}

func (c *controller) machineConfig() ([]byte, *fault) { return marshal(c.cfg.Machine), nil }

func (c *controller) vmConfig() ([]byte, *fault) {
	cfg := c.cfg
	drives, nets, pmem := cfg.Drives, cfg.NetworkInterfaces, cfg.Pmem
	if drives == nil {
		drives = []Drive{}
	}
	if nets == nil {
		nets = []NetworkInterface{}
	}
	if pmem == nil {
		pmem = []Pmem{}
	}
	// The keys, their order and the ones that are always null are the
	// original's.
	return marshal(struct {
		Balloon           *Balloon           `json:"balloon"`
		Drives            []Drive            `json:"drives"`
		BootSource        BootSource         `json:"boot-source"`
		CPUConfig         *struct{}          `json:"cpu-config"`
		Logger            *struct{}          `json:"logger"`
		Machine           MachineConfig      `json:"machine-config"`
		Metrics           *struct{}          `json:"metrics"`
		MMDSConfig        *MMDSConfig        `json:"mmds-config"`
		NetworkInterfaces []NetworkInterface `json:"network-interfaces"`
		Vsock             *Vsock             `json:"vsock"`
		Entropy           *Entropy           `json:"entropy"`
		Pmem              []Pmem             `json:"pmem"`
		MemoryHotplug     *MemoryHotplug     `json:"memory-hotplug"`
	}{cfg.Balloon, drives, cfg.BootSource, nil, nil, cfg.Machine, nil, cfg.MMDSConfig, nets,
		cfg.Vsock, cfg.Entropy, pmem, cfg.MemoryHotplug}), nil
}

func (c *controller) balloonConfig() ([]byte, *fault) {
	if c.cfg.Balloon == nil {
		if c.started() {
			return nil, refuse("Internal VMM error: Failed to find the balloon device")
		}
		return nil, refuse("Balloon config error: No balloon device found.")
	}
	return marshal(c.cfg.Balloon), nil
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

func (c *controller) putMetrics(path string) *fault {
	if f := c.preBoot(); f != nil {
		return f
	}
	if err := c.metrics.open(path); err != nil {
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
		c.flushMetrics()
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

func (c *controller) flushMetrics() { c.metrics.write(c.engine.Counters(), c.log.missedLines()) }

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
