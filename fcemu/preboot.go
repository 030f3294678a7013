package fcemu

import (
	"fmt"
	"os"
	"slices"
)

// heldFiles are the files that the original keeps open from the moment at
// which they are configured, so that unlinking or replacing their names is
// harmless.
type heldFiles map[string]*os.File

// hold replaces the file under a key; nil only drops it.
func (h heldFiles) hold(key string, f *os.File) {
	if old := h[key]; old != nil {
		old.Close()
	}
	if f == nil {
		delete(h, key)
		return
	}
	h[key] = f
}

func (h heldFiles) closeAll() {
	for key := range h {
		h.hold(key, nil)
	}
}

func (c *controller) putBootSource(b BootSource) *fault {
	if f := c.preBoot(); f != nil {
		return f
	}
	c.bootPath = true
	kernel, err := os.Open(b.KernelImagePath)
	if err != nil {
		return refuse("Boot source error: The kernel file cannot be opened: " + osText(err))
	}
	var initrd *os.File
	if b.InitrdPath != nil {
		if initrd, err = os.Open(*b.InitrdPath); err != nil {
			kernel.Close()
			return refuse("Boot source error: The initrd file cannot be opened due to invalid path or invalid permissions. " + osText(err))
		}
	}
	drop := func() {
		kernel.Close()
		if initrd != nil {
			initrd.Close()
		}
	}
	if b.BootArgs != nil {
		if f := checkBootArgs(*b.BootArgs); f != nil {
			drop()
			return f
		}
	}
	old := c.cfg.BootSource
	c.cfg.BootSource = b
	if err := c.engine.Attach(c.ctx, &c.cfg, "boot-source", ""); err != nil {
		c.cfg.BootSource = old
		drop()
		return engineFault("Boot source error", err)
	}
	c.files.hold("kernel", kernel)
	c.files.hold("initrd", initrd)
	return nil
}

func (c *controller) updateMachine(u machineUpdate) *fault {
	if f := c.preBoot(); f != nil {
		return f
	}
	c.bootPath = true
	m := c.cfg.Machine
	if u.vcpus != nil {
		m.VCPUCount = *u.vcpus
	}
	if u.memMiB != nil {
		m.MemSizeMiB = *u.memMiB
	}
	if u.smt != nil {
		m.SMT = *u.smt
	}
	if u.track != nil {
		m.TrackDirtyPages = *u.track
	}
	if u.hugePages != nil {
		m.HugePages = *u.hugePages
	}
	if u.cpuTemplate != nil {
		m.CPUTemplate = u.cpuTemplate
		if *u.cpuTemplate == "None" {
			m.CPUTemplate = nil
		}
	}
	if f := m.check(); f != nil {
		return f
	}
	if c.cfg.Balloon != nil && m.MemSizeMiB < c.cfg.Balloon.AmountMiB {
		return refuse("Machine config error: The memory size (MiB) is smaller than the previously set balloon device target size.")
	}
	old := c.cfg.Machine
	c.cfg.Machine = m
	if err := c.engine.Attach(c.ctx, &c.cfg, "machine-config", ""); err != nil {
		c.cfg.Machine = old
		return engineFault("Machine config error", err)
	}
	if u.cpuTemplate != nil {
		c.cfg.CPUConfig = nil // a static template takes the place of a custom one
	}
	return nil
}

func (c *controller) putCPUConfig(raw []byte) *fault {
	if f := c.preBoot(); f != nil {
		return f
	}
	oldRaw, oldName := c.cfg.CPUConfig, c.cfg.Machine.CPUTemplate
	c.cfg.CPUConfig, c.cfg.Machine.CPUTemplate = raw, nil
	if err := c.engine.Attach(c.ctx, &c.cfg, "cpu-config", ""); err != nil {
		c.cfg.CPUConfig, c.cfg.Machine.CPUTemplate = oldRaw, oldName
		return engineFault("Configure CPU error", err)
	}
	return nil
}

// openDrive opens a drive's file as the original does.
func openDrive(d *Drive) (*os.File, error) {
	flags := os.O_RDWR
	if d.IsReadOnly != nil && *d.IsReadOnly {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(*d.PathOnHost, flags, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.IsDir() {
		err = fmt.Errorf("%s is a directory", *d.PathOnHost)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// checkDrive fills in the defaults and opens the file.
func checkDrive(d *Drive) (*os.File, *fault) {
	switch {
	case d.Socket != nil && d.PathOnHost == nil:
		return nil, refuse("Drive config error: fcemu does not emulate vhost-user block devices (socket); use path_on_host.")
	case d.Socket != nil || d.PathOnHost == nil:
		return nil, refuse("Drive config error: Unable to create the virtio block device: Invalid block configuration: exactly one of path_on_host and socket is required.")
	}
	f, err := openDrive(d)
	if err != nil {
		return nil, refuse("Drive config error: Unable to create the virtio block device: Virtio backend error: Error manipulating the backing file: " + osText(err))
	}
	d.RateLimiter = d.RateLimiter.enabled()
	if d.IsReadOnly == nil {
		d.IsReadOnly = new(bool)
	}
	if d.IOEngine == nil {
		sync := "Sync"
		d.IOEngine = &sync
	}
	return f, nil
}

func (c *controller) putDrive(d Drive) *fault {
	if c.started() {
		return c.plugDrive(d)
	}
	c.bootPath = true
	at := slices.IndexFunc(c.cfg.Drives, func(o Drive) bool { return o.DriveID == d.DriveID })
	hasRoot := len(c.cfg.Drives) > 0 && c.cfg.Drives[0].IsRootDevice
	switch {
	case d.IsRootDevice && slices.ContainsFunc(c.cfg.Pmem, func(p Pmem) bool { return p.RootDevice }):
		return refuse("Drive config error: Attempt to add block as a root device while the root device defined as a pmem device")
	case d.IsRootDevice && hasRoot && at != 0:
		return refuse("Drive config error: A root block device already exists!")
	}
	file, f := checkDrive(&d)
	if f != nil {
		return f
	}
	old := c.cfg.Drives
	drives := slices.Clone(old)
	// The root device comes first, whatever the order of the requests.
	switch {
	case at < 0 && d.IsRootDevice:
		drives = slices.Insert(drives, 0, d)
	case at < 0:
		drives = append(drives, d)
	default:
		drives[at] = d
		if at != 0 && d.IsRootDevice {
			drives[0], drives[at] = drives[at], drives[0]
		}
	}
	c.cfg.Drives = drives
	if err := c.engine.Attach(c.ctx, &c.cfg, "drives", d.DriveID); err != nil {
		c.cfg.Drives = old
		file.Close()
		return engineFault("Drive config error", err)
	}
	c.files.hold("drives/"+d.DriveID, file)
	return nil
}

func macInUse(nets []NetworkInterface, n NetworkInterface) bool {
	return n.GuestMAC != nil && slices.ContainsFunc(nets, func(o NetworkInterface) bool {
		return o.IfaceID != n.IfaceID && o.GuestMAC != nil && *o.GuestMAC == *n.GuestMAC
	})
}

// checkMTU: below 68 IPv4 doesn't work, and no interface takes it.
func checkMTU(n NetworkInterface) *fault {
	if n.MTU != nil && *n.MTU < 68 {
		return refuse(fmt.Sprintf("Network config error: Could not create the network device: The MTU value %d is not in 68..65535.", *n.MTU))
	}
	return nil
}

func (c *controller) putNetworkInterface(n NetworkInterface) *fault {
	if c.started() {
		return c.plugNetworkInterface(n)
	}
	c.bootPath = true
	if macInUse(c.cfg.NetworkInterfaces, n) {
		return refuse("Network config error: The MAC address is already in use: " + *n.GuestMAC)
	}
	n.RxRateLimiter, n.TxRateLimiter = n.RxRateLimiter.enabled(), n.TxRateLimiter.enabled()
	// The old interface of this id goes first: a failure below loses it.
	c.dropInterface(n.IfaceID)
	if f := checkMTU(n); f != nil {
		return f
	}
	c.cfg.NetworkInterfaces = append(c.cfg.NetworkInterfaces, n)
	if err := c.engine.Attach(c.ctx, &c.cfg, "network-interfaces", n.IfaceID); err != nil {
		c.dropInterface(n.IfaceID)
		return engineFault("Network config error: Could not create the network device", err)
	}
	return nil
}

// dropInterface removes an interface, and with it its share of the metadata
// service, moving the last one into its place.
func (c *controller) dropInterface(id string) {
	nets := slices.Clone(c.cfg.NetworkInterfaces)
	at := slices.IndexFunc(nets, func(o NetworkInterface) bool { return o.IfaceID == id })
	if at < 0 {
		return
	}
	last := len(nets) - 1
	nets[at] = nets[last]
	c.cfg.NetworkInterfaces = nets[:last]
	if m := c.cfg.MMDSConfig; m != nil {
		left := *m
		left.NetworkInterfaces = slices.DeleteFunc(slices.Clone(m.NetworkInterfaces), func(s string) bool { return s == id })
		c.cfg.MMDSConfig = &left
		if len(left.NetworkInterfaces) == 0 {
			c.cfg.MMDSConfig = nil
		}
	}
}

func (c *controller) putVsock(v Vsock) *fault {
	if f := c.preBoot(); f != nil {
		return f
	}
	c.bootPath = true
	v.VsockID = nil
	if old := c.cfg.Vsock; old != nil {
		c.cfg.Vsock = nil
		if err := os.Remove(old.UDSPath); err != nil {
			return refuse("Vsock config error: Cannot create backend for vsock device: " + osText(err))
		}
	}
	c.cfg.Vsock = &v
	if err := c.engine.Attach(c.ctx, &c.cfg, "vsock", ""); err != nil {
		c.cfg.Vsock = nil
		return engineFault("Vsock config error: Cannot create backend for vsock device", err)
	}
	return nil
}

func (c *controller) putBalloon(b Balloon) *fault {
	if f := c.preBoot(); f != nil {
		return f
	}
	c.bootPath = true
	if b.AmountMiB > c.cfg.Machine.MemSizeMiB {
		return refuse("Balloon config error: Amount of pages requested is too large.")
	}
	old := c.cfg.Balloon
	c.cfg.Balloon = &b
	if err := c.engine.Attach(c.ctx, &c.cfg, "balloon", ""); err != nil {
		c.cfg.Balloon = old
		return engineFault("Balloon config error", err)
	}
	return nil
}

func (c *controller) putEntropy(e Entropy) *fault {
	if f := c.preBoot(); f != nil {
		return f
	}
	c.bootPath = true
	old := c.cfg.Entropy
	c.cfg.Entropy = &Entropy{RateLimiter: e.RateLimiter.enabled()}
	if err := c.engine.Attach(c.ctx, &c.cfg, "entropy", ""); err != nil {
		c.cfg.Entropy = old
		return engineFault("Entropy config error", err)
	}
	return nil
}

func (c *controller) putPmem(p Pmem) *fault {
	if c.started() {
		return c.plugPmem(p)
	}
	c.bootPath = true
	at := slices.IndexFunc(c.cfg.Pmem, func(o Pmem) bool { return o.ID == p.ID })
	otherRoot := slices.ContainsFunc(c.cfg.Pmem, func(o Pmem) bool { return o.RootDevice && o.ID != p.ID })
	switch {
	case p.RootDevice && len(c.cfg.Drives) > 0 && c.cfg.Drives[0].IsRootDevice:
		return refuse("Pmem config error: Attempt to add pmem as a root device while the root device defined as a block device")
	case p.RootDevice && otherRoot:
		return refuse("Pmem config error: A root pmem device already exist")
	}
	old := c.cfg.Pmem
	c.cfg.Pmem = slices.Clone(old)
	if at < 0 {
		c.cfg.Pmem = append(c.cfg.Pmem, p)
	} else {
		c.cfg.Pmem[at] = p
	}
	if err := c.engine.Attach(c.ctx, &c.cfg, "pmem", p.ID); err != nil {
		c.cfg.Pmem = old
		return engineFault("Pmem config error", err)
	}
	return nil
}

func (c *controller) putMemoryHotplug(h MemoryHotplug) *fault {
	if f := c.preBoot(); f != nil {
		return f
	}
	c.bootPath = true
	if f := h.check(); f != nil {
		return f
	}
	old := c.cfg.MemoryHotplug
	c.cfg.MemoryHotplug = &h
	if err := c.engine.Attach(c.ctx, &c.cfg, "hotplug/memory", ""); err != nil {
		c.cfg.MemoryHotplug = old
		return engineFault("Memory hotplug config error", err)
	}
	return nil
}
