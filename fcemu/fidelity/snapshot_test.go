package fidelity

import "strings"

const (
	full = `PUT /snapshot/create {"snapshot_path":"state","mem_file_path":"mem"}`
	diff = `PUT /snapshot/create {"snapshot_type":"Diff","snapshot_path":"state","mem_file_path":"mem"}`
)

func loadWith(fields string) string {
	return `PUT /snapshot/load {"snapshot_path":"state","mem_backend":{"backend_path":"mem","backend_type":"File"}` + fields + `}`
}

func snapshotSequences() []sequence {
	load := loadWith("")
	list := []sequence{
		{name: "not of a running guest", steps: steps(boot, full, diff, "GET /")},
		{name: "full", steps: steps(boot, pause, full, full, "GET /", resume)},
		{name: "diff", steps: steps(boot, pause, diff, diff, "GET /", resume)},
		{name: "diff with tracking", steps: steps(small[0], `PUT /machine-config {"vcpu_count":1,"mem_size_mib":16,"track_dirty_pages":true}`, start, pause, full, resume, pause, diff, "GET /machine-config")},
		{name: "into a missing directory", steps: steps(boot, pause, `PUT /snapshot/create {"snapshot_path":"no/state","mem_file_path":"mem"}`, `PUT /snapshot/create {"snapshot_path":"state","mem_file_path":"no/mem"}`, full)},
		{name: "over a directory", steps: steps(boot, pause, `PUT /snapshot/create {"snapshot_path":"folder","mem_file_path":"mem"}`, `PUT /snapshot/create {"snapshot_path":"state","mem_file_path":"folder"}`, full)},
		{name: "empty paths", steps: steps(boot, pause, `PUT /snapshot/create {"snapshot_path":"","mem_file_path":""}`)},
		{name: "both into one file", steps: steps(boot, pause, `PUT /snapshot/create {"snapshot_path":"one","mem_file_path":"one"}`)},
		{name: "fields", steps: steps(boot, pause, `PUT /snapshot/create {"snapshot_path":"a"}`, `PUT /snapshot/create {"snapshot_path":"a","mem_file_path":"b","snapshot_type":"Big"}`, `PUT /snapshot/create {"snapshot_path":"a","mem_file_path":"b","x":1}`, `PUT /snapshot/create ["Full","a","b"]`)},
		{name: "metrics and metadata of a paused guest", steps: steps(boot, pause, flush, `PUT /mmds {"a":1}`, full)},
	}
	made := steps(disk, vsock, balloon, "PUT /entropy {}", boot, pause, full, "!restart", "!remove v.sock")
	loads := func(name string, after ...string) {
		list = append(list, sequence{name: "load: " + name, steps: steps(made, after)})
	}
	loads("paused", load, "GET /", "GET /vm/config", load, resume)
	loads("resumed", loadWith(`,"resume_vm":true`), "GET /", pause, full)
	loads("tracked", loadWith(`,"track_dirty_pages":true`), "GET /machine-config", resume, pause, diff)
	loads("the deprecated fields", `PUT /snapshot/load {"snapshot_path":"state","mem_file_path":"mem"}`, "GET /machine-config")
	loads("the deprecated tracking", loadWith(`,"enable_diff_snapshots":true`), "GET /machine-config")
	loads("a vsock elsewhere", loadWith(`,"vsock_override":{"uds_path":"w.sock","x":1}`), "GET /vm/config")
	loads("the clock", loadWith(`,"clock_realtime":true`))
	loads("nulls", loadWith(`,"vsock_override":null,"mem_file_path":null`))
	loads("logger and metrics before", "PUT /logger {}", `PUT /metrics {"metrics_path":"m"}`, "PUT /serial {}", load, flush)
	loads("configuration before", `PUT /machine-config {"vcpu_count":1,"mem_size_mib":16}`, load)
	loads("a start after", load, start, `PUT /boot-source {"kernel_image_path":"vmlinux"}`, `PATCH /drives/d {"drive_id":"d","path_on_host":"disk2"}`, "GET /vm/config")
	loads("Ctrl-Alt-Del after", loadWith(`,"resume_vm":true`), cad, "!exit")
	loads("a body that is refused", loadWith(`,"x":1`), load)
	loads("no state", "!remove state", load, "!exit")
	loads("no memory", "!remove mem", load, "!exit")
	loads("no drive", "!remove disk", load, "!exit")
	loads("short memory", "!short mem", load, "!exit")
	loads("short state", "!short state", load, "!exit")
	loads("empty state", "!touch state", load, "!exit")
	loads("empty memory", "!touch mem", load, "!exit")
	loads("the vsock's name is taken", "!touch v.sock", load, "!exit")
	loads("the vsock's directory is missing", loadWith(`,"vsock_override":{"uds_path":"no/v.sock"}`), "!exit")
	loads("an interface that is not there", loadWith(`,"network_overrides":[{"iface_id":"e","host_dev_name":"tap0"}]`), "!exit")
	loads("no handler of page faults", strings.Replace(load, `"File"`, `"Uffd"`, 1), "!exit")
	loads("a directory for memory", strings.Replace(load, `"mem"`, `"folder"`, 1), "!exit")
	bare := steps(boot, pause, full, "!restart")
	list = append(list,
		sequence{name: "load: a vsock for a guest without one", steps: steps(bare, loadWith(`,"vsock_override":{"uds_path":"w.sock"}`), "!exit")},
		sequence{name: "load: a bare guest", steps: steps(bare, load, "GET /vm/config", resume, "DELETE /drives/d")},
		sequence{name: "load: without PCI what had it", args: []string{"--enable-pci"}, steps: steps(bare, load, "DELETE /drives/d")},
		sequence{name: "load: of a load", steps: steps(bare, load, full, "!restart", load, resume)},
		sequence{name: "load: another's files for the state", steps: steps(`PUT /snapshot/load {"snapshot_path":"text","mem_backend":{"backend_path":"disk","backend_type":"File"}}`, "!exit")},
		sequence{name: "load: the same interface", net: true, steps: steps(iface, boot, pause, full, "!restart", load, "GET /vm/config")},
		sequence{name: "load: another TAP", net: true, steps: steps(iface, boot, pause, full, "!restart", loadWith(`,"network_overrides":[{"iface_id":"e","host_dev_name":"tap7","x":1}]`), "GET /vm/config")},
		sequence{name: "load: one interface named twice", net: true, steps: steps(iface, boot, pause, full, "!restart", loadWith(`,"network_overrides":[{"iface_id":"e","host_dev_name":"tap7"},{"iface_id":"e","host_dev_name":"tap8"}]`), "GET /vm/config")},
		sequence{name: "load: a TAP with too long a name", net: true, steps: steps(iface, boot, pause, full, "!restart", loadWith(`,"network_overrides":[{"iface_id":"e","host_dev_name":"toolongname12345"}]`), "!exit")},
		sequence{name: "load: metadata is not in the state", net: true, steps: steps(iface, `PUT /mmds/config {"network_interfaces":["e"],"version":"V2"}`, `PUT /mmds {"a":1}`, boot, pause, full, "!restart", load, "GET /mmds", `PUT /mmds {"b":1}`, "GET /vm/config")},
	)
	for i := range list {
		list[i].guest = true
	}
	return list
}
