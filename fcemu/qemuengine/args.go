package qemuengine

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/tangle-network/microvm/fcemu"
)

// machine is what QEMU's command line is made of. Files are named by paths
// that lead to descriptors of this process, so that no path of the user's is
// ever parsed by QEMU or resolved twice. A guest and its clones have the same
// devices in the same order, hence the same machine, as migration needs it.
type machine struct {
	accel    string // "kvm" or "tcg"
	config   *fcemu.Config
	memory   string // file of the guest's memory
	kernel   string // empty when the guest comes from a snapshot
	initrd   string
	bootArgs string
	incoming bool
	drives   []driveBackend // in the order of the guest's names, vda first
	nics     []nicBackend
	qmpFD    int
	vsockFD  int // connection to the vhost-user backend; 0 without
	logFile  string
}

type driveBackend struct {
	drive    fcemu.Drive
	file     string
	isDevice bool // a block device, not a regular file
}

type nicBackend struct {
	nic fcemu.NetworkInterface
	fd  int
	mac string
}

// Slots of the pc machine's only PCI bus: 0 and 1 are the chipset's, and the
// vsock device, which comes and goes, has the last one to itself.
const (
	firstSlot = 2
	vsockSlot = 31
	maxSlots  = vsockSlot - firstSlot
)

// args is QEMU's command line, without the program.
func (m *machine) args() ([]string, error) {
	devices, err := m.devices()
	if err != nil {
		return nil, err
	}
	mc := m.config.Machine
	cpu, accel := "max", "tcg,thread=multi"
	if m.accel == "kvm" {
		cpu, accel = "host", "kvm"
	}
	threads := 1
	if mc.SMT && mc.VCPUCount > 1 {
		threads = 2
	}
	a := []string{
		"-M", "pc,memory-backend=mem,hpet=on",
		"-accel", accel,
		"-cpu", cpu,
		"-smp", fmt.Sprintf("cpus=%d,sockets=1,cores=%d,threads=%d", mc.VCPUCount, mc.VCPUCount/threads, threads),
		"-m", strconv.Itoa(mc.MemSizeMiB) + "M",
		"-nodefaults", "-no-user-config",
		"-display", "none",
		"-action", "reboot=shutdown,shutdown=pause",
		"-S",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", m.qmpFD),
		"-mon", "chardev=qmp,mode=control",
		"-chardev", "stdio,id=serial,signal=off",
		"-device", "isa-serial,chardev=serial",
	}
	if m.logFile != "" {
		// The only sign of a triple fault: the event calls it a reset.
		a = append(a, "-d", "cpu_reset", "-D", m.logFile)
	}
	if m.kernel != "" {
		a = append(a, "-kernel", m.kernel, "-append", m.bootArgs)
		if m.initrd != "" {
			a = append(a, "-initrd", m.initrd)
		}
	}
	if m.incoming {
		a = append(a, "-incoming", "defer")
	}
	if m.vsockFD != 0 {
		a = append(a, "-chardev", fmt.Sprintf("socket,id=%s,fd=%d", vsockChardev, m.vsockFD))
	}
	return append(a, devices...), nil
}

// object is one JSON argument of QEMU's.
type object map[string]any

// devices are the arguments that stand for the memory and the virtio devices.
func (m *machine) devices() ([]string, error) {
	var a []string
	var failed error
	add := func(option string, v object) {
		b, err := json.Marshal(v)
		if err != nil {
			failed = err
		}
		a = append(a, option, string(b))
	}
	slot := firstSlot
	device := func(v object) {
		v["bus"], v["addr"] = "pci.0", fmt.Sprintf("0x%x", slot)
		slot++
		add("-device", v)
	}
	add("-object", object{
		"qom-type": "memory-backend-file", "id": "mem", "mem-path": m.memory,
		"size": int64(m.config.Machine.MemSizeMiB) << 20, "share": true,
	})
	for i, d := range m.drives {
		add("-object", object{"qom-type": "throttle-group", "id": throttleID(i), "limits": throttle(d.drive.RateLimiter)})
		add("-blockdev", d.fileNode(i, 0))
		add("-blockdev", d.rawNode(i, 0))
		add("-blockdev", object{
			"driver": "throttle", "node-name": driveID(i), "throttle-group": throttleID(i), "file": rawID(i),
			"read-only": d.readOnly(), "cache": d.cache(),
		})
		device(object{"driver": "virtio-blk-pci", "id": diskID(i), "drive": driveID(i)})
	}
	for i, n := range m.nics {
		// Without vhost, and without iPXE in the interface's ROM.
		a = append(a, "-netdev", fmt.Sprintf("tap,id=n%d,fd=%d,vhost=off", i, n.fd))
		v := object{"driver": "virtio-net-pci", "id": fmt.Sprintf("nic%d", i), "netdev": fmt.Sprintf("n%d", i), "mac": n.mac, "romfile": ""}
		if n.nic.MTU != nil {
			v["host_mtu"] = *n.nic.MTU
		}
		device(v)
	}
	if b := m.config.Balloon; b != nil {
		device(object{
			"driver": "virtio-balloon-pci", "id": balloonID,
			"deflate-on-oom": b.DeflateOnOOM, "free-page-reporting": b.FreePageReporting,
		})
	}
	if e := m.config.Entropy; e != nil {
		add("-object", object{"qom-type": "rng-builtin", "id": "entropy"})
		v := object{"driver": "virtio-rng-pci", "id": "rng0", "rng": "entropy"}
		if e.RateLimiter != nil && limits(e.RateLimiter) {
			v["max-bytes"], v["period"] = e.RateLimiter.Bandwidth.Size, e.RateLimiter.Bandwidth.RefillTime
		}
		device(v)
	}
	if m.vsockFD != 0 {
		add("-device", vsockDevice())
	}
	if slot > vsockSlot {
		return nil, fmt.Errorf("%d devices: the qemu engine has room for %d (fewer drives or network interfaces)", slot-firstSlot, maxSlots)
	}
	return a, failed
}

// Names of ours for what the user names: nothing of his reaches QEMU.
const (
	balloonID    = "balloon0"
	vsockID      = "vsock0"
	vsockChardev = "vsock"
)

func throttleID(i int) string  { return fmt.Sprintf("t%d", i) }
func driveID(i int) string     { return fmt.Sprintf("d%d", i) }
func rawID(i int) string       { return fmt.Sprintf("r%d", i) }
func diskID(i int) string      { return fmt.Sprintf("disk%d", i) }
func fileID(i, gen int) string { return fmt.Sprintf("f%d-%d", i, gen) }

func vsockDevice() object {
	return object{
		"driver": "vhost-user-vsock-pci", "id": vsockID, "chardev": vsockChardev,
		"bus": "pci.0", "addr": fmt.Sprintf("0x%x", vsockSlot),
	}
}

func (d *driveBackend) readOnly() bool { return d.drive.IsReadOnly != nil && *d.drive.IsReadOnly }

// cache: Unsafe, Firecracker's default, means that a flush does nothing.
func (d *driveBackend) cache() object {
	return object{"direct": false, "no-flush": d.drive.CacheType != "Writeback"}
}

// fileNode is the block node of the drive's file; gen counts the files that a
// drive has had. Firecracker takes no locks on disks, so neither do we.
func (d *driveBackend) fileNode(i, gen int) object {
	driver := "file"
	if d.isDevice {
		driver = "host_device"
	}
	return object{
		"driver": driver, "node-name": fileID(i, gen), "filename": d.file, "locking": "off",
		"read-only": d.readOnly(), "cache": d.cache(),
	}
}

// rawNode is the format, always raw: a header in the image means nothing.
func (d *driveBackend) rawNode(i, gen int) object {
	return object{
		"driver": "raw", "node-name": rawID(i), "file": fileID(i, gen),
		"read-only": d.readOnly(), "cache": d.cache(),
	}
}
