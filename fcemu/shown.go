package fcemu

// What GET shows of the configuration, in the shape of the emulated release:
// what a release does not know it does not show either.

func (r release) balloon(b *Balloon) any {
	if b == nil || r.knows("PUT /balloon free_page_reporting") {
		return b
	}
	return struct {
		AmountMiB             int  `json:"amount_mib"`
		DeflateOnOOM          bool `json:"deflate_on_oom"`
		StatsPollingIntervalS int  `json:"stats_polling_interval_s"`
	}{b.AmountMiB, b.DeflateOnOOM, b.StatsPollingIntervalS}
}

func (r release) networkInterfaces(nets []NetworkInterface) any {
	if r.knows("PUT /network-interfaces/* mtu") {
		return list(nets)
	}
	type shown struct {
		IfaceID       string       `json:"iface_id"`
		HostDevName   string       `json:"host_dev_name"`
		GuestMAC      *string      `json:"guest_mac"`
		RxRateLimiter *RateLimiter `json:"rx_rate_limiter"`
		TxRateLimiter *RateLimiter `json:"tx_rate_limiter"`
	}
	out := []shown{}
	for _, n := range nets {
		out = append(out, shown{n.IfaceID, n.HostDevName, n.GuestMAC, n.RxRateLimiter, n.TxRateLimiter})
	}
	return out
}

func (r release) mmdsConfig(m *MMDSConfig) any {
	if m == nil || r.knows("PUT /mmds/config imds_compat") {
		return m
	}
	return struct {
		Version           string   `json:"version"`
		NetworkInterfaces []string `json:"network_interfaces"`
		IPv4Address       *string  `json:"ipv4_address"`
	}{m.Version, m.NetworkInterfaces, m.IPv4Address}
}

// pmem is nil, which hides the key, where there are no such devices.
func (r release) pmem(devices []Pmem) any {
	switch {
	case r.knows("PUT /pmem/* rate_limiter"):
		return list(devices)
	case !r.knows("PUT /pmem/*"):
		return nil
	}
	type shown struct {
		ID         string `json:"id"`
		PathOnHost string `json:"path_on_host"`
		RootDevice bool   `json:"root_device"`
		ReadOnly   bool   `json:"read_only"`
	}
	out := []shown{}
	for _, p := range devices {
		out = append(out, shown{p.ID, p.PathOnHost, p.RootDevice, p.ReadOnly})
	}
	return out
}

func (r release) memoryHotplug(h *MemoryHotplug) any {
	if !r.knows("PUT /hotplug/memory") {
		return nil
	}
	return h
}

// list is never null in JSON.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func (c *controller) vmConfig() ([]byte, *fault) {
	cfg := c.cfg
	// The keys, their order and the ones that are always null are the
	// original's.
	return marshal(struct {
		Balloon           any           `json:"balloon"`
		Drives            []Drive       `json:"drives"`
		BootSource        BootSource    `json:"boot-source"`
		CPUConfig         *struct{}     `json:"cpu-config"`
		Logger            *struct{}     `json:"logger"`
		Machine           MachineConfig `json:"machine-config"`
		Metrics           *struct{}     `json:"metrics"`
		MMDSConfig        any           `json:"mmds-config"`
		NetworkInterfaces any           `json:"network-interfaces"`
		Vsock             *Vsock        `json:"vsock"`
		Entropy           *Entropy      `json:"entropy"`
		Pmem              any           `json:"pmem,omitempty"`
		MemoryHotplug     any           `json:"memory-hotplug,omitempty"`
	}{c.rel.balloon(cfg.Balloon), list(cfg.Drives), cfg.BootSource, nil, nil, cfg.Machine, nil,
		c.rel.mmdsConfig(cfg.MMDSConfig), c.rel.networkInterfaces(cfg.NetworkInterfaces),
		cfg.Vsock, cfg.Entropy, c.rel.pmem(cfg.Pmem), c.rel.memoryHotplug(cfg.MemoryHotplug)}), nil
}
