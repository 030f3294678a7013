package fidelity

func pathSequences() []sequence {
	return join(
		with("GET @", "/", "//", "/version", "/version/", "//version", "///version//", "/version/x", "/version/x/y", "/version?x=1", "/version#a", "/%76ersion", "/Version", "/vm", "/vm/config", "/vm/config/x", "/vm/x", "/vm//config",
			"/machine-config", "/machine-config/x", "/mmds", "/mmds/config", "/actions", "/snapshot", "/snapshot/create", "/foo", "/foo/bar", "version", "*", "http://localhost/version", "http://localhost", "http://", "http:///version", "https://localhost/version",
			"/./version", "/../version", "/balloon", "/balloon/", "/balloon/statistics", "/hotplug/memory", "/balloon/hinting/status", "/balloon/hinting/status/x", "/é", "/cpu-config", "/serial", "/entropy"),
		with("PUT @ {}", "/", "/foo", "/snapshot", "/snapshot/", "/snapshot/x", "/snapshot/create/x", "/mmds/foo", "/actions/x", "/version", "/vm", "/vm/config", "foo", "/hotplug"),
		with("PATCH @ {}", "/", "/foo", "/vm", "/vm/x", "/vm/config", "/actions", "/snapshot", "/version", "/hotplug"),
		with("DELETE @", "/", "/foo", "/vm", "/mmds", "/actions", "/snapshot", "/hotplug/memory", "/drives/", "/pmem/"),
		each("GET / {}", "GET /version {}", "GET /foo {}", "PUT /foo", "PATCH /foo", "PUT /", "PATCH /vm", "DELETE /foo {}", "DELETE /drives/d {}"))
}

func orderSequences() []sequence {
	const load = `PUT /snapshot/load {"snapshot_path":"state","mem_backend":{"backend_path":"mem","backend_type":"File"}}`
	list := join(
		with("@", `PUT /actions {"action_type":"FlushMetrics"}`, `PUT /actions {"action_type":"SendCtrlAltDel"}`, `PUT /actions {"action_type":"InstanceStart"}`, `PUT /actions {"action_type":"Halt"}`, `PUT /actions {"action_type":"InstanceStart","payload":"x"}`,
			`PUT /actions {"action_type":null}`, "PUT /actions {}", "PUT /actions", "PUT /actions []", `PUT /actions ["FlushMetrics"]`, `PUT /actions {"action_type":{"FlushMetrics":null}}`,
			`PATCH /vm {"state":"Paused"}`, `PATCH /vm {"state":"Resumed"}`, `PATCH /vm {"state":"Running"}`, `PATCH /vm {"state":"Paused","x":1}`, `PATCH /vm []`,
			`PATCH /drives/d {"drive_id":"d","path_on_host":"x"}`, `PATCH /network-interfaces/e {"iface_id":"e"}`, `PATCH /pmem/p {"id":"p"}`, `PATCH /balloon {"amount_mib":1}`, `PATCH /balloon/statistics {"stats_polling_interval_s":1}`,
			"PATCH /balloon/hinting/start", "PATCH /balloon/hinting/stop", `PATCH /hotplug/memory {"requested_size_mib":128}`, "DELETE /drives/d", "DELETE /network-interfaces/e", "DELETE /pmem/p",
			`PUT /snapshot/create {"snapshot_path":"a","mem_file_path":"b"}`, `PUT /snapshot/create {"snapshot_path":"a"}`, `PUT /snapshot/create {"mem_file_path":"b"}`, `PUT /snapshot/create {"snapshot_path":"a","mem_file_path":"b","snapshot_type":"Big"}`,
			`PUT /snapshot/create {"snapshot_path":"a","mem_file_path":"b","x":1}`, `PUT /snapshot/create {"snapshot_path":"a","mem_file_path":"b","version":"1.0.0"}`, `PUT /snapshot/create ["Full","a","b"]`, "PUT /snapshot/create",
			"PUT /snapshot/load {}", `PUT /snapshot/load {"snapshot_path":"s"}`, `PUT /snapshot/load {"mem_file_path":"m"}`, `PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"File"},"mem_file_path":"m"}`,
			`PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"X"}}`, `PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_path":"m"}}`, `PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"File","x":1}}`,
			`PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"File"},"huge_pages":"2M"}`, `PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"File"},"resume_vm":null}`,
			`PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"File"},"network_overrides":null}`, `PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"File"},"network_overrides":[{"iface_id":"e"}]}`,
			`PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"File"},"vsock_override":{}}`, `PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"File"},"clock_realtime":1}`, "PUT /snapshot/load"))
	for _, first := range []string{`PUT /boot-source {"kernel_image_path":"vmlinux"}`, `PUT /boot-source {"kernel_image_path":"nope"}`, `PUT /machine-config {"vcpu_count":0,"mem_size_mib":64}`, `PATCH /machine-config {"vcpu_count":2}`,
		`PUT /drives/d {"drive_id":"d","path_on_host":"disk","is_root_device":true}`, `PUT /drives/d {"drive_id":"d","path_on_host":"nope","is_root_device":true}`, `PUT /vsock {"guest_cid":3,"uds_path":"text"}`, "PUT /entropy {}",
		`PUT /balloon {"amount_mib":0,"deflate_on_oom":true}`, `PUT /pmem/p {"id":"p","path_on_host":"pmem"}`, `PUT /hotplug/memory {"total_size_mib":1024}`, `PUT /hotplug/memory {"total_size_mib":1000}`, `PUT /mmds/config {"network_interfaces":[]}`} {
		list = append(list, sequence{name: "a load after " + first, steps: []string{first, load, "GET /"}})
	}
	for _, first := range []string{"PUT /logger {}", `PUT /metrics {"metrics_path":"m"}`, "PUT /serial {}", "PUT /mmds {}", "PUT /cpu-config {}", `PUT /machine-config {`, "GET /vm/config", `PATCH /vm {"state":"Paused"}`} {
		list = append(list, sequence{name: "a load, which fails for want of files, after " + first, steps: []string{first, load, "!exit"}})
	}
	return list
}
