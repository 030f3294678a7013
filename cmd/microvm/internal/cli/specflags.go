package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tangle-network/microvm"
)

// specFlags are the flags of create and run that describe a VM.
type specFlags struct {
	set *pflag.FlagSet

	file         string
	kernel       string
	initrd       string
	rootfs       string
	rootfsRO     bool
	noRootfs     bool
	bootArgs     string
	vcpus        int
	memory       string
	smt          bool
	cpuTemplate  string
	hugePages    string
	trackDirty   bool
	drives       []string
	nics         []string
	net          netFlags
	vsock        bool
	vsockCID     uint32
	balloon      string
	entropy      bool
	consoleInput bool
	stopMode     string
	labels       []string
}

func (f *specFlags) register(set *pflag.FlagSet) {
	f.set = set
	set.StringVarP(&f.file, "file", "f", "", "read the spec from this JSON file (- for stdin); flags override it")
	set.StringVar(&f.kernel, "kernel", "", "kernel: an uncompressed ELF on x86_64, an Image on arm64")
	set.StringVar(&f.initrd, "initrd", "", "initial RAM disk")
	set.StringVar(&f.rootfs, "rootfs", "", "disk image that the guest sees as /dev/vda")
	set.BoolVar(&f.rootfsRO, "rootfs-ro", false, "share the root disk read-only instead of cloning it")
	set.BoolVar(&f.noRootfs, "no-rootfs", false, "no root disk: the guest lives in its initrd")
	set.StringVar(&f.bootArgs, "boot-args", "", "kernel command line")
	set.IntVar(&f.vcpus, "vcpus", 0, "number of vCPUs, 1 to 32")
	set.StringVar(&f.memory, "memory", "", "memory in MiB, or with a unit: 512, 512M, 2G")
	set.BoolVar(&f.smt, "smt", false, "show the vCPUs as threads of shared cores")
	set.StringVar(&f.cpuTemplate, "cpu-template", "", "CPU template, such as T2")
	set.StringVar(&f.hugePages, "huge-pages", "", "None or 2M")
	set.BoolVar(&f.trackDirty, "track-dirty-pages", false, "track dirty pages, which makes later snapshots small")
	set.StringArrayVar(&f.drives, "drive", nil, "further disk: id=ID,path=PATH[,ro][,in-place][,cache=Unsafe|Writeback][,engine=Sync|Async] (repeatable)")
	set.StringArrayVar(&f.nics, "nic", nil, "network interface on a TAP: id=ID,tap=NAME[,mac=MAC][,mtu=N] (repeatable)")
	f.net.register(set)
	set.BoolVar(&f.vsock, "vsock", false, "give the guest a vsock device")
	set.Uint32Var(&f.vsockCID, "vsock-cid", 0, "the guest's vsock address, 3 or more; implies --vsock")
	set.StringVar(&f.balloon, "balloon", "", "memory balloon of this size in MiB, or with a unit")
	set.BoolVar(&f.entropy, "entropy", false, "give the guest a random number device")
	set.BoolVarP(&f.consoleInput, "console-input", "i", false, "let the serial console accept input")
	set.StringVar(&f.stopMode, "stop-mode", "", "what stop does: pause, hibernate or shutdown")
	set.StringArrayVar(&f.labels, "label", nil, "label KEY=VALUE (repeatable)")
}

// spec reads the file and lays the flags over it. Paths become absolute: those
// of the file are relative to its folder, those of flags to the working
// directory. All faults come at once.
func (f *specFlags) spec(stdin io.Reader) (microvm.Spec, error) {
	s, err := f.base(stdin)
	if err != nil {
		return s, err
	}
	var faults []error
	given := f.set.Changed
	path := func(flag, value string, to *string) {
		if !given(flag) {
			return
		}
		p, err := filepath.Abs(value)
		if value == "" || err != nil {
			faults = append(faults, flagFault("--"+flag, value, "the path of a file"))
			return
		}
		*to = p
	}
	mib := func(flag, value string, to *int) {
		if !given(flag) {
			return
		}
		n, err := parseMiB(value)
		if err != nil {
			faults = append(faults, flagFault("--"+flag, value, "a number of MiB, or one with the unit M, MiB, G or GiB"))
			return
		}
		*to = n
	}
	path("kernel", f.kernel, &s.Kernel)
	path("initrd", f.initrd, &s.Initrd)
	if given("rootfs") || given("rootfs-ro") {
		if s.Rootfs == nil {
			s.Rootfs = &microvm.Rootfs{}
		}
		path("rootfs", f.rootfs, &s.Rootfs.Path)
		if given("rootfs-ro") {
			s.Rootfs.ReadOnly = &f.rootfsRO
		}
	}
	if given("no-rootfs") {
		s.NoRootfs = f.noRootfs
	}
	if given("boot-args") {
		s.BootArgs = f.bootArgs
	}
	if given("vcpus") {
		s.VCPUs = f.vcpus
		if f.vcpus == 0 {
			faults = append(faults, flagFault("--vcpus", "0", "1 to 32"))
		}
	}
	mib("memory", f.memory, &s.MemoryMiB)
	if given("memory") && f.memory == "0" {
		faults = append(faults, flagFault("--memory", "0", "at least 1 MiB"))
	}
	if given("smt") {
		s.SMT = &f.smt
	}
	if given("cpu-template") {
		s.CPUTemplate = f.cpuTemplate
	}
	if given("huge-pages") {
		s.HugePages = f.hugePages
	}
	if given("track-dirty-pages") {
		s.TrackDirtyPages = &f.trackDirty
	}
	if given("vsock") && !f.vsock && !given("vsock-cid") {
		s.Vsock = nil
	} else if f.vsock || given("vsock-cid") {
		if s.Vsock == nil {
			s.Vsock = &microvm.Vsock{}
		}
		if given("vsock-cid") {
			s.Vsock.CID = f.vsockCID
			if f.vsockCID < 3 {
				faults = append(faults, flagFault("--vsock-cid", strconv.Itoa(int(f.vsockCID)), "3 to 4,294,967,294"))
			}
		}
	}
	if given("balloon") {
		if s.Balloon == nil {
			s.Balloon = &microvm.Balloon{}
		}
		mib("balloon", f.balloon, &s.Balloon.TargetMiB)
	}
	if given("entropy") {
		s.Entropy = nil
		if f.entropy {
			s.Entropy = &microvm.Entropy{}
		}
	}
	if given("console-input") {
		if s.Console == nil {
			s.Console = &microvm.Console{}
		}
		s.Console.Input = f.consoleInput
	}
	if given("stop-mode") {
		s.StopMode = microvm.StopMode(f.stopMode)
	}
	for _, text := range f.drives {
		d, err := parseDrive(text)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		s.Drives = replace(s.Drives, d, func(d microvm.Drive) string { return d.ID })
	}
	for _, text := range f.nics {
		n, err := parseNIC(text)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		s.NetworkInterfaces = replace(s.NetworkInterfaces, n, func(n microvm.NetworkInterface) string { return n.ID })
	}
	faults = append(faults, f.net.apply(f.set, &s.Network)...)
	if err := addLabels(&s, f.labels); err != nil {
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return s, err
	}
	return s, s.Validate()
}

// base is the spec in the file, or an empty one.
func (f *specFlags) base(stdin io.Reader) (microvm.Spec, error) {
	switch f.file {
	case "":
		if f.set.Changed("file") {
			return microvm.Spec{}, flagFault("--file", "", "the path of a JSON file, or -")
		}
		return microvm.Spec{}, nil
	case "-":
		s, err := microvm.ParseSpec(stdin)
		if err != nil {
			return s, fmt.Errorf("spec on stdin: %w", err)
		}
		return s, relativeTo(&s, "")
	}
	file, err := os.Open(f.file)
	if err != nil {
		return microvm.Spec{}, fmt.Errorf("open the spec: %w", err)
	}
	defer file.Close()
	s, err := microvm.ParseSpec(file)
	if err != nil {
		return s, fmt.Errorf("spec %s: %w", f.file, err)
	}
	return s, relativeTo(&s, filepath.Dir(f.file))
}

// relativeTo makes the paths of files in the spec absolute.
func relativeTo(s *microvm.Spec, dir string) error {
	paths := []*string{&s.Kernel, &s.Initrd}
	if s.Rootfs != nil {
		paths = append(paths, &s.Rootfs.Path)
	}
	for i := range s.Drives {
		paths = append(paths, &s.Drives[i].Path)
	}
	for _, p := range paths {
		if *p == "" || filepath.IsAbs(*p) {
			continue
		}
		abs, err := filepath.Abs(filepath.Join(dir, *p))
		if err != nil {
			return fmt.Errorf("path %s of the spec: %w", *p, err)
		}
		*p = abs
	}
	return nil
}

func flagFault(flag, value, rule string) error {
	return &microvm.FieldError{Field: flag, Value: fmt.Sprintf("%.80q", value), Rule: rule}
}

// replace puts v where one with its id is, or behind the others.
func replace[T any](list []T, v T, id func(T) string) []T {
	for i := range list {
		if id(list[i]) == id(v) {
			list[i] = v
			return list
		}
	}
	return append(list, v)
}

func addLabels(s *microvm.Spec, labels []string) error {
	for _, l := range labels {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return flagFault("--label", l, "KEY=VALUE")
		}
		if s.Labels == nil {
			s.Labels = map[string]string{}
		}
		s.Labels[k] = v
	}
	return nil
}

func parseMiB(s string) (int, error) {
	number, scale := s, 1
	for _, u := range []struct {
		suffix string
		scale  int
	}{{"GiB", 1024}, {"G", 1024}, {"g", 1024}, {"MiB", 1}, {"M", 1}, {"m", 1}} {
		if n, ok := strings.CutSuffix(s, u.suffix); ok {
			number, scale = n, u.scale
			break
		}
	}
	n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32)
	if err != nil {
		return 0, err
	}
	return int(n) * scale, nil
}

// pairs cuts "a=b,c,d=e" into its parts. A comma in a value is written twice.
func pairs(s string) []string {
	const comma = "\x00"
	parts := strings.Split(strings.ReplaceAll(s, ",,", comma), ",")
	for i := range parts {
		parts[i] = strings.ReplaceAll(parts[i], comma, ",")
	}
	return parts
}

func parseDrive(text string) (microvm.Drive, error) {
	const rule = "id=ID,path=PATH[,ro][,in-place][,cache=Unsafe|Writeback][,engine=Sync|Async]"
	var d microvm.Drive
	for _, part := range pairs(text) {
		key, value, valued := strings.Cut(part, "=")
		switch {
		case key == "id" && valued:
			d.ID = value
		case key == "path" && valued && value != "":
			p, err := filepath.Abs(value)
			if err != nil {
				return d, fmt.Errorf("--drive %s: %w", value, err)
			}
			d.Path = p
		case key == "ro" && !valued:
			ro := true
			d.ReadOnly = &ro
		case key == "in-place" && !valued:
			d.InPlace = true
		case key == "cache" && valued:
			d.CacheType = value
		case key == "engine" && valued:
			d.IOEngine = value
		default:
			return d, flagFault("--drive", part, rule)
		}
	}
	if d.ID == "" || d.Path == "" {
		return d, flagFault("--drive", text, rule)
	}
	return d, nil
}

func parseNIC(text string) (microvm.NetworkInterface, error) {
	const rule = "id=ID,tap=NAME[,mac=MAC][,mtu=N]"
	var n microvm.NetworkInterface
	for _, part := range pairs(text) {
		key, value, _ := strings.Cut(part, "=")
		switch {
		case value == "":
			return n, flagFault("--nic", part, rule)
		case key == "id":
			n.ID = value
		case key == "tap":
			n.HostDevName = value
		case key == "mac":
			n.MAC = value
		case key == "mtu":
			mtu, err := strconv.Atoi(value)
			if err != nil || mtu == 0 {
				return n, flagFault("--nic mtu", value, "68 to 65,535")
			}
			n.MTU = mtu
		default:
			return n, flagFault("--nic", part, rule)
		}
	}
	if n.ID == "" || n.HostDevName == "" {
		return n, flagFault("--nic", text, rule)
	}
	return n, nil
}
