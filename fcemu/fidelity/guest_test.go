package fidelity

const start = `PUT /actions {"action_type":"InstanceStart"}`

// small configures a guest of 16 MiB.
var small = []string{`PUT /boot-source {"kernel_image_path":"vmlinux","boot_args":"reboot=k panic=1 tiny=c"}`, `PUT /machine-config {"vcpu_count":1,"mem_size_mib":16}`}

var (
	boot   = steps(small, start)
	pause  = `PATCH /vm {"state":"Paused"}`
	resume = `PATCH /vm {"state":"Resumed"}`
)

const (
	disk    = `PUT /drives/d {"drive_id":"d","path_on_host":"disk","is_root_device":true}`
	disk2   = `PUT /drives/e {"drive_id":"e","path_on_host":"disk2","is_root_device":false}`
	balloon = `PUT /balloon {"amount_mib":0,"deflate_on_oom":true,"stats_polling_interval_s":1}`
	vsock   = `PUT /vsock {"guest_cid":3,"uds_path":"v.sock"}`
	iface   = `PUT /network-interfaces/e {"iface_id":"e","host_dev_name":"tap0","guest_mac":"aa:fc:00:00:00:01"}`
	flush   = `PUT /actions {"action_type":"FlushMetrics"}`
	cad     = `PUT /actions {"action_type":"SendCtrlAltDel"}`
)

// guestSequences asks each thing of a running guest, and again of a paused one.
func guestSequences() []sequence {
	var list []sequence
	ask := func(name string, before []string, asked ...string) {
		list = append(list, sequence{name: name, guest: true, steps: steps(before, boot, asked, pause, asked, "GET /vm/config", resume)})
	}
	for _, r := range []string{
		start, `PUT /boot-source {"kernel_image_path":"vmlinux"}`, `PUT /machine-config {"vcpu_count":1,"mem_size_mib":8}`, `PUT /machine-config {"vcpu_count":0,"mem_size_mib":8}`, `PATCH /machine-config {"vcpu_count":1}`, "PATCH /machine-config {}", vsock,
		balloon, "PUT /logger {}", `PUT /metrics {"metrics_path":"m"}`, "PUT /serial {}", "PUT /entropy {}", "PUT /cpu-config {}", `PUT /mmds/config {"network_interfaces":["e"]}`, `PUT /mmds/config {"network_interfaces":[]}`, `PUT /hotplug/memory {"total_size_mib":1024}`,
		`PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"File"}}`, disk, iface, `PUT /pmem/p {"id":"p","path_on_host":"pmem"}`, "DELETE /drives/d", "DELETE /network-interfaces/e", "DELETE /pmem/p",
		flush, "GET /version", "GET /machine-config", "GET /balloon", "GET /balloon/statistics", "GET /balloon/hinting/status", "GET /hotplug/memory", "GET /mmds", `PUT /mmds {"a":1}`, `PATCH /mmds {"a":1}`,
		`PATCH /drives/d {"drive_id":"d","path_on_host":"disk2"}`, `PATCH /drives/d {"drive_id":"d"}`, `PATCH /network-interfaces/e {"iface_id":"e"}`, `PATCH /network-interfaces/e {"iface_id":"e","rx_rate_limiter":{"ops":{"size":1,"refill_time":1}}}`,
		`PATCH /pmem/p {"id":"p"}`, `PATCH /pmem/p {"id":"p","rate_limiter":{"ops":{"size":1,"refill_time":5}}}`, `PATCH /balloon {"amount_mib":1}`, `PATCH /balloon/statistics {"stats_polling_interval_s":1}`, "PATCH /balloon/hinting/start", "PATCH /balloon/hinting/stop",
		`PATCH /hotplug/memory {"requested_size_mib":128}`, `PATCH /vm {"state":"Halted"}`, `PATCH /vm {}`, "PUT /foo {}", "PUT /machine-config {",
	} {
		ask("a bare guest and "+r, nil, r)
	}
	drive := func(r string) { ask("a guest with drives and "+r, []string{disk, disk2}, r) }
	for _, r := range []string{`{"drive_id":"d","path_on_host":"disk2"}`, `{"drive_id":"d"}`, `{"drive_id":"d","path_on_host":"nope"}`, `{"drive_id":"d","path_on_host":"folder"}`, `{"drive_id":"d","path_on_host":"empty"}`, `{"drive_id":"d","path_on_host":"odd"}`,
		`{"drive_id":"d","rate_limiter":{"ops":{"size":7,"refill_time":10}}}`, `{"drive_id":"d","rate_limiter":{"ops":{"size":0,"refill_time":0}}}`, `{"drive_id":"d","rate_limiter":{}}`, `{"drive_id":"d","rate_limiter":null}`, `{"drive_id":"d","path_on_host":null}`,
		`{"drive_id":"d","path_on_host":"disk2","rate_limiter":{"bandwidth":{"size":7,"refill_time":10,"one_time_burst":3}}}`, `{"drive_id":"d","is_read_only":true}`} {
		drive("PATCH /drives/d " + r)
	}
	for _, r := range []string{`{"amount_mib":1}`, `{"amount_mib":15}`, `{"amount_mib":16}`, `{"amount_mib":17}`, `{"amount_mib":0}`} {
		ask("a guest with a balloon and PATCH /balloon "+r, []string{balloon}, "PATCH /balloon "+r)
	}
	for _, r := range []string{"GET /balloon", "GET /balloon/statistics", "GET /balloon/hinting/status", `PATCH /balloon/statistics {"stats_polling_interval_s":0}`, `PATCH /balloon/statistics {"stats_polling_interval_s":1}`, `PATCH /balloon/statistics {"stats_polling_interval_s":2}`, "PATCH /balloon/hinting/start", "PATCH /balloon/hinting/stop"} {
		ask("a guest with a balloon and "+r, []string{balloon}, r)
	}
	silent := `PUT /balloon {"amount_mib":0,"deflate_on_oom":true}`
	for _, r := range []string{"GET /balloon/statistics", `PATCH /balloon/statistics {"stats_polling_interval_s":0}`, `PATCH /balloon/statistics {"stats_polling_interval_s":1}`} {
		ask("a guest with a balloon without statistics and "+r, []string{silent}, r)
	}
	for _, r := range []string{"GET /hotplug/memory", `PATCH /hotplug/memory {"requested_size_mib":0}`, `PATCH /hotplug/memory {"requested_size_mib":3}`, `PATCH /hotplug/memory {"requested_size_mib":2048}`, `PATCH /hotplug/memory {"requested_size_mib":128}`} {
		ask("a guest with hotpluggable memory and "+r, []string{`PUT /hotplug/memory {"total_size_mib":1024}`}, r)
	}
	for _, r := range []string{`{"id":"p"}`, `{"id":"p","rate_limiter":{"ops":{"size":1,"refill_time":5}}}`, `{"id":"p","rate_limiter":{}}`, `{"id":"p","x":1}`} {
		ask("a guest with pmem and PATCH /pmem/p "+r, []string{`PUT /pmem/p {"id":"p","path_on_host":"pmem"}`}, "PATCH /pmem/p "+r)
	}
	ask("a guest with entropy, vsock, metrics and serial", []string{"PUT /entropy {}", vsock, `PUT /metrics {"metrics_path":"m"}`, `PUT /serial {"serial_out_path":"out"}`}, flush, "GET /vm/config")
	for _, r := range []string{`{"iface_id":"e"}`, `{"iface_id":"e","rx_rate_limiter":{"ops":{"size":1,"refill_time":1}}}`, `{"iface_id":"e","tx_rate_limiter":{"bandwidth":{"size":0,"refill_time":0}}}`, `{"iface_id":"e","rx_rate_limiter":{"x":1}}`} {
		ask("a guest with an interface and PATCH /network-interfaces/e "+r, []string{iface}, "PATCH /network-interfaces/e "+r)
		list[len(list)-1].net = true
	}
	ask("a guest with metadata", []string{iface, `PUT /mmds/config {"network_interfaces":["e"],"version":"V2"}`}, `PUT /mmds {"a":1}`, `PATCH /mmds {"b":1}`, "GET /mmds")
	list[len(list)-1].net = true
	return append(list,
		sequence{name: "states may be asked for twice", guest: true, steps: steps(boot, "GET /", resume, pause, pause, "GET /", resume, resume)},
		sequence{name: "Ctrl-Alt-Del ends it", guest: true, steps: steps(boot, cad, "!exit")},
		sequence{name: "Ctrl-Alt-Del of a paused guest waits", guest: true, steps: steps(boot, pause, cad, "GET /", resume, "!exit")},
		sequence{name: "32 vCPUs", guest: true, steps: steps(small[0], `PUT /machine-config {"vcpu_count":32,"mem_size_mib":16}`, start, pause)},
		sequence{name: "default boot args", guest: true, steps: steps(`PUT /boot-source {"kernel_image_path":"vmlinux"}`, small[1], start, "GET /vm/config")},
		sequence{name: "an initrd", guest: true, steps: steps(`PUT /boot-source {"kernel_image_path":"vmlinux","initrd_path":"initrd","boot_args":"tiny=c"}`, small[1], start, "GET /vm/config")},
	)
}

func hotplugSequences() []sequence {
	var list []sequence
	for _, c := range []struct{ name, section, id, body, bad string }{
		{"a drive", "drives", "n", `{"drive_id":"n","path_on_host":"disk2","is_root_device":false}`, `{"drive_id":"n","path_on_host":"nope","is_root_device":false}`},
		{"pmem", "pmem", "n", `{"id":"n","path_on_host":"pmem"}`, `{"id":"n","path_on_host":"nope"}`},
		{"an interface", "network-interfaces", "n", `{"iface_id":"n","host_dev_name":"tap1"}`, `{"iface_id":"n","host_dev_name":"toolongname12345"}`},
	} {
		path := " /" + c.section + "/" + c.id
		list = append(list,
			sequence{name: c.name + " comes and goes", steps: steps(disk, boot, "PUT"+path+" "+c.bad, "PUT"+path+" "+c.body, "GET /vm/config", "PUT"+path+" "+c.body, "DELETE"+path, "DELETE"+path, "GET /vm/config", "PUT"+path+" "+c.body)},
			sequence{name: c.name + " comes while paused", steps: steps(disk, boot, pause, "PUT"+path+" "+c.body, "DELETE"+path, "GET /vm/config", resume)},
			sequence{name: c.name + " before boot", steps: steps("PUT"+path+" "+c.body, "DELETE"+path, boot, "PUT"+path+" "+c.body, "DELETE"+path, "GET /vm/config")})
	}
	list = append(list,
		sequence{name: "a root drive stays", steps: steps(disk, boot, "DELETE /drives/d", `PUT /drives/r {"drive_id":"r","path_on_host":"disk2","is_root_device":true}`, "GET /vm/config")},
		sequence{name: "a first root drive", steps: steps(boot, `PUT /drives/r {"drive_id":"r","path_on_host":"disk2","is_root_device":true}`, "GET /vm/config")},
		sequence{name: "a root of pmem stays", steps: steps(`PUT /pmem/p {"id":"p","path_on_host":"pmem","root_device":true}`, boot, "DELETE /pmem/p", `PUT /pmem/r {"id":"r","path_on_host":"pmem","root_device":true}`, "GET /vm/config")},
		sequence{name: "one MAC twice", steps: steps(iface, boot, `PUT /network-interfaces/f {"iface_id":"f","host_dev_name":"tap1","guest_mac":"aa:fc:00:00:00:01"}`, "GET /vm/config")},
		sequence{name: "one TAP twice", steps: steps(iface, boot, `PUT /network-interfaces/f {"iface_id":"f","host_dev_name":"tap0"}`, "GET /vm/config")},
		sequence{name: "an MTU that is too small", steps: steps(boot, `PUT /network-interfaces/f {"iface_id":"f","host_dev_name":"tap0","mtu":5}`)},
		sequence{name: "ids of another section", steps: steps(disk, boot, "DELETE /pmem/d", "DELETE /network-interfaces/d", `PUT /pmem/d {"id":"d","path_on_host":"pmem"}`, "GET /vm/config")},
		sequence{name: "what never comes", steps: steps(boot, vsock, balloon, "PUT /entropy {}", `PUT /hotplug/memory {"total_size_mib":1024}`)},
	)
	for i := range list {
		list[i].guest, list[i].net, list[i].args = true, true, []string{"--enable-pci"}
	}
	return list
}
