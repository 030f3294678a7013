// Command releases writes ../releases.json: what each Firecracker release from
// 1.7 knows, from the files of its tag. It is a module of its own, so that a
// parser of YAML is no dependency of the client's. See README.md.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	swaggerFile = "src/firecracker/swagger/firecracker.yaml"
	formatFile  = "src/vmm/src/persist.rs"
)

// release is what one tag says. Adds and Drops are the difference to the
// release before it in the list: "PUT /drives/*" for an endpoint, "PUT
// /drives/* rate_limiter.ops.size" for a field of its body, "PUT /drives/*
// io_engine=Sync" for a value that the description lists.
type release struct {
	Tag     string `json:"tag"`
	Version string `json:"version"`
	Commit  string `json:"commit"`
	// Snapshot is SNAPSHOT_VERSION.
	Snapshot string `json:"snapshot"`
	// Changelog has the pull requests that the release's own section names.
	Changelog string   `json:"changelog"`
	Adds      []string `json:"adds,omitempty"`
	Drops     []string `json:"drops,omitempty"`
	// AddsInCode is what only the sources have, not the API's description.
	AddsInCode []string `json:"adds_in_code,omitempty"`
	// Brings are the defects of the table whose code came with this release.
	Brings []string `json:"brings,omitempty"`
}

// probe finds in the sources what the description of the API leaves out in some
// releases: thing is there when file holds text.
type probe struct{ thing, file, text string }

const (
	routes = "src/firecracker/src/api_server/parsed_request.rs"
	x86    = "src/vmm/src/cpu_config/x86_64/custom_cpu_template.rs"
	arm    = "src/vmm/src/cpu_config/aarch64/custom_cpu_template.rs"
	cpu    = "PUT /cpu-config "
)

var probes = []probe{
	{"DELETE /drives/*", routes, `Method::Delete, "drives"`},
	{"DELETE /pmem/*", routes, `Method::Delete, "pmem"`},
	{"DELETE /network-interfaces/*", routes, `Method::Delete, "network-interfaces"`},
	{"PUT /mmds/config imds_compat", "src/vmm/src/vmm_config/mmds.rs", "pub imds_compat: bool"},
	{cpu + "kvm_capabilities", x86, "pub kvm_capabilities: Vec<KvmCapability>"},
	{cpu + "cpuid_modifiers", x86, "pub cpuid_modifiers: Vec<CpuidLeafModifier>"},
	{cpu + "msr_modifiers", x86, "pub msr_modifiers: Vec<RegisterModifier>"},
	{cpu + "reg_modifiers", arm, "pub reg_modifiers: Vec<RegisterModifier>"},
	{cpu + "vcpu_features", arm, "pub vcpu_features: Vec<VcpuFeatures>"},
	{cpu + "cpuid_modifiers.leaf", x86, "pub leaf: u32"},
	{cpu + "cpuid_modifiers.subleaf", x86, "pub subleaf: u32"},
	{cpu + "cpuid_modifiers.flags", x86, "pub flags: KvmCpuidFlags"},
	{cpu + "cpuid_modifiers.modifiers", x86, "pub modifiers: Vec<CpuidRegisterModifier>"},
	{cpu + "cpuid_modifiers.modifiers.register", x86, "pub register: CpuidRegister"},
	{cpu + "cpuid_modifiers.modifiers.bitmap", x86, "pub bitmap: RegisterValueFilter<u32>"},
	{cpu + "cpuid_modifiers.modifiers.register=eax", x86, `"eax" => CpuidRegister::Eax`},
	{cpu + "cpuid_modifiers.modifiers.register=ebx", x86, `"ebx" => CpuidRegister::Ebx`},
	{cpu + "cpuid_modifiers.modifiers.register=ecx", x86, `"ecx" => CpuidRegister::Ecx`},
	{cpu + "cpuid_modifiers.modifiers.register=edx", x86, `"edx" => CpuidRegister::Edx`},
	{cpu + "msr_modifiers.addr", x86, "pub addr: u32"},
	{cpu + "msr_modifiers.bitmap", x86, "pub bitmap: RegisterValueFilter<u64>"},
	{cpu + "reg_modifiers.addr", arm, "pub addr: u64"},
	{cpu + "reg_modifiers.bitmap", arm, "pub bitmap: RegisterValueFilter<u128>"},
	{cpu + "vcpu_features.index", arm, "pub index: u32"},
	{cpu + "vcpu_features.bitmap", arm, "pub bitmap: RegisterValueFilter<u32>"},
}

// origins tell since when a defect is there: thing is its ID, and the code that
// has it came with text.
var origins = []probe{
	{"ctrl-alt-del-ignored", "src/vmm/src/acpi/mod.rs", "create_acpi_tables"},
	{"diff-memory-corrupt", "src/vmm/src/vstate/memory.rs", "plugged_slots"},
	{"hotplug-block-slots", "src/vmm/src/vmm_config/memory_hotplug.rs", "slot_size_mib"},
	{"hotplug-size-wraps", "src/vmm/src/vmm_config/memory_hotplug.rs", "total_size_mib"},
	{"jailer-refuses-symlinks", "src/jailer/src/main.rs", "O_NOFOLLOW"},
	{"log-fifo-without-reader", "src/vmm/src/utils/mod.rs", "open_file_write_nonblock"},
	{"network-dead-on-restore", "src/vmm/src/devices/virtio/net/device.rs", "build_tap_offload_features"},
	{"pci-device-status", "src/vmm/src/devices/virtio/transport/pci/device.rs", "VirtioPciDevice"},
	{"vmgenid-unbound", "src/vmm/src/devices/acpi/vmgenid.rs", "VmGenId"},
	{"vsock-dead-on-restore", "src/vmm/src/devices/virtio/vsock/device.rs", "pop_or_enable_notification"},
	{"vsock-mute-after-resume", "src/vmm/src/devices/virtio/vsock/device.rs", "pending_event_ack"},
	{"vsock-reset-late", "src/vmm/src/devices/virtio/transport/pci/device.rs", "VirtioPciDevice"},
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 4 {
		log.Fatal("usage: go run . REPOSITORY DEVELOPMENT-COMMIT OUTPUT")
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func run(repo, head, output string) error {
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", repo}, args...)...).Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
		}
		return string(out), nil
	}
	list, err := git("tag", "--list", "v1.*")
	if err != nil {
		return err
	}
	var tags []string
	for tag := range strings.FieldsSeq(list) {
		if number(tag) >= number("v1.7.0") && !strings.Contains(tag, "-") {
			tags = append(tags, tag)
		}
	}
	slices.SortFunc(tags, func(a, b string) int { return cmp.Compare(number(a), number(b)) })

	var releases []release
	var before []string
	brought := map[string]bool{}
	for _, tag := range append(tags, head) {
		r := release{Tag: tag}
		if tag == head {
			r.Tag = "main"
		}
		if r.Commit, err = git("rev-parse", tag+"^{commit}"); err != nil {
			return err
		}
		r.Commit = strings.TrimSpace(r.Commit)
		show := func(file string) (string, error) { return git("show", tag+":"+file) }
		persist, err := show(formatFile)
		if err != nil {
			return err
		}
		m := regexp.MustCompile(`SNAPSHOT_VERSION: Version = Version::new\((\d+), (\d+), (\d+)\)`).FindStringSubmatch(persist)
		if m == nil {
			return fmt.Errorf("%s: no SNAPSHOT_VERSION in %s", tag, formatFile)
		}
		r.Snapshot = strings.Join(m[1:], ".")
		text, err := show(swaggerFile)
		if err != nil {
			return err
		}
		var api swagger
		if err := yaml.Unmarshal([]byte(text), &api); err != nil {
			return fmt.Errorf("%s: %w", tag, err)
		}
		r.Version = api.Info.Version
		described := api.things()
		things := slices.Clone(described)
		for _, p := range probes {
			source, err := show(p.file)
			if err != nil {
				return err
			}
			if strings.Contains(source, p.text) {
				things = append(things, p.thing)
			}
		}
		for _, o := range origins {
			// A file that is not there yet is an error of git's.
			source, err := show(o.file)
			if err == nil && strings.Contains(source, o.text) && !brought[o.thing] {
				brought[o.thing] = true
				r.Brings = append(r.Brings, o.thing)
			}
		}
		slices.Sort(things)
		things = slices.Compact(things)
		added := minus(things, before)
		r.AddsInCode = minus(added, described)
		r.Adds, r.Drops = minus(added, r.AddsInCode), minus(before, things)
		before = things
		changelog, err := show("CHANGELOG.md")
		if err != nil {
			return err
		}
		r.Changelog = pulls(changelog, strings.TrimSuffix(r.Version, "-dev"), tag == head)
		releases = append(releases, r)
	}
	for _, o := range origins {
		if !brought[o.thing] {
			return fmt.Errorf("%s: no release has %q in %s", o.thing, o.text, o.file)
		}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(releases); err != nil {
		return err
	}
	return os.WriteFile(output, out.Bytes(), 0o644)
}

// number orders tags.
func number(tag string) int {
	n := 0
	for p := range strings.SplitSeq(strings.TrimPrefix(tag, "v"), ".") {
		d, err := strconv.Atoi(p)
		if err != nil {
			return 0
		}
		n = n*1000 + d
	}
	return n
}

// pulls finds the numbers of pull requests in a release's section.
func pulls(changelog, version string, development bool) string {
	// The changelogs of some branches write [v1.15.0] or \[1.8.0\].
	heading := regexp.MustCompile(`(?m)^## \\?\[v?` + regexp.QuoteMeta(version) + `\\?\]$`)
	if development {
		heading = regexp.MustCompile(`(?m)^## \[Unreleased\]$`)
	}
	at := heading.FindStringIndex(changelog)
	if at == nil {
		return ""
	}
	section, _, _ := strings.Cut(changelog[at[1]:], "\n## ")
	var found []int
	for _, m := range regexp.MustCompile(`firecracker/(?:pull|issues)/(\d+)\)`).FindAllStringSubmatch(section, -1) {
		n, err := strconv.Atoi(m[1])
		if err == nil {
			found = append(found, n)
		}
	}
	slices.Sort(found)
	return strings.Trim(fmt.Sprint(slices.Compact(found)), "[]")
}

func minus(a, b []string) []string {
	var rest []string
	for _, s := range a {
		if !slices.Contains(b, s) {
			rest = append(rest, s)
		}
	}
	return rest
}
