package fcemu

// The balloon and the hotpluggable memory of a started guest.

const noBalloon = "Device not found: no balloon was configured before boot"

// balloon returns the balloon of a started guest.
func (c *controller) balloon(prefix string) (*Balloon, *fault) {
	if f := c.postBoot(); f != nil {
		return nil, f
	}
	if c.cfg.Balloon == nil {
		return nil, refuse(prefix + ": " + noBalloon)
	}
	return c.cfg.Balloon, nil
}

func (c *controller) balloonStats() ([]byte, *fault) {
	b, f := c.balloon("Internal VMM error")
	switch {
	case f != nil:
		return nil, f
	case b.StatsPollingIntervalS == 0:
		return nil, refuse("Internal VMM error: Statistics are not enabled for the balloon (stats_polling_interval_s is 0)")
	}
	st, err := c.engine.BalloonStats(c.ctx)
	if err != nil {
		return nil, engineFault("Internal VMM error", err)
	}
	out := map[string]uint64{}
	for name, v := range st.Guest {
		out[name] = v
	}
	out["target_pages"], out["actual_pages"] = st.TargetPages, st.ActualPages
	out["target_mib"], out["actual_mib"] = st.TargetMiB, st.ActualMiB
	return marshal(out), nil
}

func (c *controller) updateBalloon(b Balloon) *fault {
	old := c.cfg.Balloon
	c.cfg.Balloon = &b
	if err := c.engine.Update(c.ctx, &c.cfg, "balloon", ""); err != nil {
		c.cfg.Balloon = old
		return engineFault("Balloon update error", err)
	}
	return nil
}

func (c *controller) patchBalloon(amountMiB int) *fault {
	b, f := c.balloon("Balloon update error")
	switch {
	case f != nil:
		return f
	case amountMiB > c.cfg.Machine.MemSizeMiB:
		return refuse("Balloon update error: amount_mib is larger than the guest's memory")
	}
	next := *b
	next.AmountMiB = amountMiB
	return c.updateBalloon(next)
}

func (c *controller) patchBalloonInterval(seconds int) *fault {
	b, f := c.balloon("Balloon update error")
	switch {
	case f != nil:
		return f
	case b.StatsPollingIntervalS == seconds:
		return nil
	case b.StatsPollingIntervalS == 0 || seconds == 0:
		return refuse("Balloon update error: Statistics cannot be enabled or disabled after boot")
	}
	next := *b
	next.StatsPollingIntervalS = seconds
	return c.updateBalloon(next)
}

// hinter returns the engine's free page hinting.
func (c *controller) hinter() (PageHinter, *fault) {
	b, f := c.balloon("Balloon update error")
	switch {
	case f != nil:
		return nil, f
	case !b.FreePageHinting:
		return nil, refuse("Balloon update error: Free page hinting is not enabled for the balloon (free_page_hinting)")
	}
	h, ok := c.engine.(PageHinter)
	if !ok {
		return nil, refuse("Balloon update error: the " + c.engine.Name() + " engine of fcemu does not emulate free page hinting.")
	}
	return h, nil
}

func (c *controller) startHinting(acknowledgeOnStop bool) *fault {
	h, f := c.hinter()
	if f != nil {
		return f
	}
	if err := h.StartHinting(c.ctx, acknowledgeOnStop); err != nil {
		return engineFault("Balloon update error", err)
	}
	return nil
}

func (c *controller) stopHinting() *fault {
	h, f := c.hinter()
	if f != nil {
		return f
	}
	if err := h.StopHinting(c.ctx); err != nil {
		return engineFault("Balloon update error", err)
	}
	return nil
}

func (c *controller) hintingStatus() ([]byte, *fault) {
	h, f := c.hinter()
	if f != nil {
		return nil, f
	}
	host, guest, err := h.HintingStatus(c.ctx)
	if err != nil {
		return nil, engineFault("Balloon update error", err)
	}
	return marshal(struct {
		Host  uint32  `json:"host_cmd"`
		Guest *uint32 `json:"guest_cmd"`
	}{host, guest}), nil
}

// memoryPlugger returns the engine's hotpluggable memory.
func (c *controller) memoryPlugger(prefix string) (MemoryPlugger, *fault) {
	if f := c.postBoot(); f != nil {
		return nil, f
	}
	if c.cfg.MemoryHotplug == nil {
		return nil, refuse(prefix + ": Device not found: no hotpluggable memory was configured before boot")
	}
	p, ok := c.engine.(MemoryPlugger)
	if !ok {
		return nil, refuse(prefix + ": the " + c.engine.Name() + " engine of fcemu does not emulate hotpluggable memory.")
	}
	return p, nil
}

func (c *controller) memoryStatus() ([]byte, *fault) {
	p, f := c.memoryPlugger("Internal VMM error")
	if f != nil {
		return nil, f
	}
	plugged, requested, err := p.PluggedMemory(c.ctx)
	if err != nil {
		return nil, engineFault("Internal VMM error", err)
	}
	h := c.cfg.MemoryHotplug
	return marshal(struct {
		Block     int `json:"block_size_mib"`
		Total     int `json:"total_size_mib"`
		Slot      int `json:"slot_size_mib"`
		Plugged   int `json:"plugged_size_mib"`
		Requested int `json:"requested_size_mib"`
	}{h.BlockSizeMiB, h.TotalSizeMiB, h.SlotSizeMiB, plugged, requested}), nil
}

func (c *controller) patchMemory(requestedMiB int) *fault {
	p, f := c.memoryPlugger("Memory hotplug update error")
	if f != nil {
		return f
	}
	h := c.cfg.MemoryHotplug
	if requestedMiB%h.BlockSizeMiB != 0 || requestedMiB > h.TotalSizeMiB {
		return refuse("Memory hotplug update error: requested_size_mib must be a multiple of block_size_mib and at most total_size_mib")
	}
	if err := p.RequestMemory(c.ctx, requestedMiB); err != nil {
		return engineFault("Memory hotplug update error", err)
	}
	return nil
}
