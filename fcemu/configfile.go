package fcemu

import (
	"errors"
	"os"
)

// fileConfig is the content of --config-file.
type fileConfig struct {
	balloon *Balloon
	drives  []Drive
	boot    BootSource
	cpu     *node
	logger  *LoggerConfig
	machine *MachineConfig
	metrics *MetricsConfig
	mmds    *MMDSConfig
	nets    []NetworkInterface
	vsock   *Vsock
	entropy *Entropy
	pmem    []Pmem
	hotplug *MemoryHotplug
}

// setFileConfig: sections that are not known are ignored, as the original
// does; "drives" and "boot-source" must be there.
func setFileConfig(to *fileConfig) func(*node) error {
	return func(n *node) error {
		return n.fields("VmmConfig", ignoreUnknown,
			field{"balloon", optional, orNull(&to.balloon, setBalloon)},
			field{"drives", required, setList(&to.drives, setDrive)},
			field{"boot-source", required, setBootSource(&to.boot)},
			field{"cpu-config", optional, func(n *node) error { to.cpu = n; return nil }},
			field{"logger", optional, orNull(&to.logger, setLogger)},
			field{"machine-config", optional, orNull(&to.machine, setMachineConfig)},
			field{"metrics", optional, orNull(&to.metrics, setMetrics)},
			field{"mmds-config", optional, orNull(&to.mmds, setMMDSConfig)},
			field{"network-interfaces", defaulted, setList(&to.nets, setNetworkInterface)},
			field{"vsock", optional, orNull(&to.vsock, setVsock)},
			field{"entropy", optional, orNull(&to.entropy, setEntropy)},
			n.newer("PUT /pmem/*", field{"pmem", defaulted, setList(&to.pmem, setPmem)}),
			n.newer("PUT /hotplug/memory", field{"memory-hotplug", optional, orNull(&to.hotplug, setMemoryHotplug)}))
	}
}

// cpuTemplate finds the custom CPU template: the path of a file, or the
// template itself.
func (f *fileConfig) cpuTemplate() ([]byte, error) {
	switch {
	case f.cpu == nil || f.cpu.kind == kindNull:
		return nil, nil
	case f.cpu.kind == kindString:
		b, err := os.ReadFile(f.cpu.text)
		if err != nil {
			return nil, errors.New("File operation error: " + osText(err))
		}
		if err := decodeBody(f.cpu.rel, b, checkCPUTemplate); err != nil {
			return nil, errors.New("Invalid JSON: " + err.Error())
		}
		return b, nil
	}
	if err := checkCPUTemplate(f.cpu); err != nil {
		return nil, errors.New("Invalid JSON: " + err.Error())
	}
	return appendValue(nil, f.cpu), nil
}

// bootFromFile configures and starts a guest, section by section in the
// original's order.
func (c *controller) bootFromFile(config, metadata []byte) error {
	var f fileConfig
	if err := decodeBody(&c.rel, config, setFileConfig(&f)); err != nil {
		return errors.New("Configuration for VMM from one single json failed: Invalid JSON: " + err.Error())
	}
	cpu, err := f.cpuTemplate()
	if err != nil {
		return err
	}
	var steps []func() *fault
	add := func(wanted bool, step func() *fault) {
		if wanted {
			steps = append(steps, step)
		}
	}
	add(f.logger != nil, func() *fault { return c.putLogger(*f.logger) })
	add(f.metrics != nil, func() *fault { return c.putMetrics(*f.metrics) })
	add(f.machine != nil, func() *fault {
		m := f.machine
		return c.updateMachine(machineUpdate{&m.VCPUCount, &m.MemSizeMiB, &m.SMT, &m.TrackDirtyPages, m.CPUTemplate, &m.HugePages})
	})
	add(cpu != nil, func() *fault { return c.putCPUConfig(cpu) })
	add(true, func() *fault { return c.putBootSource(f.boot) })
	for _, d := range f.drives {
		add(true, func() *fault { return c.putDrive(d) })
	}
	for _, n := range f.nets {
		add(true, func() *fault { return c.putNetworkInterface(n) })
	}
	add(f.vsock != nil, func() *fault { return c.putVsock(*f.vsock) })
	add(f.balloon != nil, func() *fault { return c.putBalloon(*f.balloon) })
	for _, step := range steps {
		if f := step(); f != nil {
			return errors.New("Configuration for VMM from one single json failed: " + f.msg)
		}
	}
	if metadata != nil {
		if err := c.loadMetadata(metadata); err != nil {
			return err
		}
	}
	steps = nil
	add(f.mmds != nil, func() *fault { return c.putMMDSConfig(*f.mmds) })
	add(f.entropy != nil, func() *fault { return c.putEntropy(*f.entropy) })
	for _, p := range f.pmem {
		add(true, func() *fault { return c.putPmem(p) })
	}
	add(f.hotplug != nil, func() *fault { return c.putMemoryHotplug(*f.hotplug) })
	add(true, c.startGuest)
	for _, step := range steps {
		if f := step(); f != nil {
			return errors.New("Could not Start MicroVM from one single json: " + f.msg)
		}
	}
	return nil
}
