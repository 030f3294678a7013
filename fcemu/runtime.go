package fcemu

import (
	"os"
	"slices"
)

// The requests for a started guest: updates, and devices that come and go.

func (c *controller) driveAt(id string) int {
	return slices.IndexFunc(c.cfg.Drives, func(d Drive) bool { return d.DriveID == id })
}

func (c *controller) patchDrive(u driveUpdate) *fault {
	if f := c.postBoot(); f != nil {
		return f
	}
	at := c.driveAt(u.id)
	switch {
	case at < 0:
		return refuse("Drive config error: Unable to patch the block device: Device not found: no drive has this id. Please verify the request arguments.")
	case u.path == nil && u.rateLimiter == nil:
		return refuse("Drive config error: Unable to patch the block device: neither path_on_host nor rate_limiter is given. Please verify the request arguments.")
	}
	d := c.cfg.Drives[at]
	var file *os.File
	if u.path != nil {
		d.PathOnHost = u.path
		var err error
		if file, err = openDrive(&d); err != nil {
			return refuse("Drive config error: Unable to patch the block device: " + osText(err) + " Please verify the request arguments.")
		}
	}
	d.RateLimiter = d.RateLimiter.updated(u.rateLimiter)
	old := c.cfg.Drives
	c.cfg.Drives = slices.Clone(old)
	c.cfg.Drives[at] = d
	if err := c.engine.Update(c.ctx, &c.cfg, "drives", u.id); err != nil {
		c.cfg.Drives = old
		if file != nil {
			file.Close()
		}
		return engineFault("Drive config error: Unable to patch the block device", err)
	}
	if file != nil {
		c.files.hold("drives/"+u.id, file)
	}
	return nil
}

func (c *controller) patchNetworkInterface(u netUpdate) *fault {
	if f := c.postBoot(); f != nil {
		return f
	}
	at := slices.IndexFunc(c.cfg.NetworkInterfaces, func(n NetworkInterface) bool { return n.IfaceID == u.id })
	if at < 0 {
		return refuse("Network config error: Unable to update the net device: Device not found: no interface has this id.")
	}
	old := c.cfg.NetworkInterfaces
	c.cfg.NetworkInterfaces = slices.Clone(old)
	n := &c.cfg.NetworkInterfaces[at]
	n.RxRateLimiter = n.RxRateLimiter.updated(u.rx)
	n.TxRateLimiter = n.TxRateLimiter.updated(u.tx)
	if u.rx == nil && u.tx == nil {
		return nil
	}
	if err := c.engine.Update(c.ctx, &c.cfg, "network-interfaces", u.id); err != nil {
		c.cfg.NetworkInterfaces = old
		return engineFault("Network config error: Unable to update the net device", err)
	}
	return nil
}

func (c *controller) patchPmem(u pmemUpdate) *fault {
	if f := c.postBoot(); f != nil {
		return f
	}
	if u.rateLimiter == nil {
		return nil // the original looks for the device only when there is something to do
	}
	at := slices.IndexFunc(c.cfg.Pmem, func(p Pmem) bool { return p.ID == u.id })
	if at < 0 {
		return refuse("Pmem config error: Unable to patch the pmem device: Device not found: none has this id.")
	}
	// The original goes on showing the limit that the device was made with.
	next := c.cfg
	next.Pmem = slices.Clone(c.cfg.Pmem)
	next.Pmem[at].RateLimit = next.Pmem[at].RateLimit.updated(u.rateLimiter)
	if err := c.engine.Update(c.ctx, &next, "pmem", u.id); err != nil {
		return engineFault("Pmem config error", err)
	}
	return nil
}

// plugger returns the engine's way to plug devices, or the reason why there is
// none.
func (c *controller) plugger() (Hotplugger, *fault) {
	switch {
	case !c.rel.knows("DELETE /drives/*"): // PCI came before hotplug
		return nil, errPostBoot
	case !c.pci:
		return nil, errNoPCI
	}
	h, ok := c.engine.(Hotplugger)
	if !ok {
		return nil, refuse("PCI manager error: the " + c.engine.Name() + " engine of fcemu does not emulate hotplug of devices.")
	}
	return h, nil
}

func (c *controller) plugDrive(d Drive) *fault {
	h, f := c.plugger()
	switch {
	case f != nil:
		return f
	case c.driveAt(d.DriveID) >= 0:
		return errIDInUse
	case d.IsRootDevice:
		return refuse("Drive config error: A root block device already exists!")
	}
	file, f := checkDrive(&d)
	if f != nil {
		return f
	}
	old := c.cfg.Drives
	c.cfg.Drives = append(slices.Clone(old), d)
	if err := h.Plug(c.ctx, &c.cfg, "drives", d.DriveID); err != nil {
		c.cfg.Drives = old
		file.Close()
		return engineFault("Drive config error", err)
	}
	c.files.hold("drives/"+d.DriveID, file)
	return nil
}

func (c *controller) plugNetworkInterface(n NetworkInterface) *fault {
	h, f := c.plugger()
	if f != nil {
		return f
	}
	old := c.cfg.NetworkInterfaces
	if slices.ContainsFunc(old, func(o NetworkInterface) bool { return o.IfaceID == n.IfaceID }) {
		return errIDInUse
	}
	if macInUse(old, n) {
		return refuse("Network config error: The MAC address is already in use: " + *n.GuestMAC)
	}
	if f := checkMTU(n); f != nil {
		return f
	}
	n.RxRateLimiter, n.TxRateLimiter = n.RxRateLimiter.enabled(), n.TxRateLimiter.enabled()
	c.cfg.NetworkInterfaces = append(slices.Clone(old), n)
	if err := h.Plug(c.ctx, &c.cfg, "network-interfaces", n.IfaceID); err != nil {
		c.cfg.NetworkInterfaces = old
		return engineFault("Network config error", err)
	}
	return nil
}

func (c *controller) plugPmem(p Pmem) *fault {
	h, f := c.plugger()
	old := c.cfg.Pmem
	switch {
	case f != nil:
		return f
	case slices.ContainsFunc(old, func(o Pmem) bool { return o.ID == p.ID }):
		return errIDInUse
	case p.RootDevice:
		return refuse("Pmem config error: Attempt to add a second root device")
	}
	c.cfg.Pmem = append(slices.Clone(old), p)
	if err := h.Plug(c.ctx, &c.cfg, "pmem", p.ID); err != nil {
		c.cfg.Pmem = old
		return engineFault("Pmem config error", err)
	}
	return nil
}

// unplug is DELETE of a device.
func (c *controller) unplug(section, id string) *fault {
	if f := c.postBoot(); f != nil {
		return f
	}
	h, f := c.plugger()
	if f != nil {
		return f
	}
	old := c.cfg
	found, root := false, false
	switch section {
	case "drives":
		c.cfg.Drives = slices.DeleteFunc(slices.Clone(old.Drives), func(d Drive) bool {
			hit := d.DriveID == id
			found, root = found || hit, root || hit && d.IsRootDevice
			return hit
		})
	case "pmem":
		c.cfg.Pmem = slices.DeleteFunc(slices.Clone(old.Pmem), func(p Pmem) bool {
			hit := p.ID == id
			found, root = found || hit, root || hit && p.RootDevice
			return hit
		})
	default:
		before := len(old.NetworkInterfaces)
		c.dropInterface(id)
		found = len(c.cfg.NetworkInterfaces) < before
	}
	switch {
	case !found:
		return errNoDevice
	case root:
		c.cfg = old
		return refuse("Cannot unplug root device")
	}
	if err := h.Unplug(c.ctx, &c.cfg, section, id); err != nil {
		c.cfg = old
		return engineFault("PCI manager error", err)
	}
	if section == "drives" {
		c.files.hold("drives/"+id, nil)
	}
	return nil
}
