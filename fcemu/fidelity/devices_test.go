package fidelity

import "strings"

func networkSequences() []sequence {
	const put = "PUT /network-interfaces/e "
	list := join(
		with(put+`{"iface_id":"e","host_dev_name":@}`, `"tap0"`, `""`, `"toolongname12345"`, `"lo"`, `"a/b"`, "null", "1"),
		with(put+`{"iface_id":"e","host_dev_name":"tap0","guest_mac":@}`, `"AA:FC:00:00:00:01"`, `"01:00:5e:00:00:01"`, `"aa-fc-00-00-00-01"`, `"aa:fc:00:00:00"`, `"aa:fc:00:00:00:01:02"`, `"aa:fc:00:00:00:g1"`, `"a:fc:00:00:00:01"`, `""`, "null", "1"),
		with(put+`{"iface_id":"e","host_dev_name":"tap0","mtu":@}`, "67", "68", "1500", "65535", "65536", "0", "null", `"1500"`),
		with(put+`{"iface_id":"e","host_dev_name":"tap0","rx_rate_limiter":@}`, "null", "{}", `{"ops":{"size":1,"refill_time":1}}`, `{"x":1}`),
		with(put+`{"iface_id":@,"host_dev_name":"tap0"}`, `"x"`, "null", `""`),
		each(put+`{"iface_id":"e"}`, put+`{"host_dev_name":"tap0"}`, put+`{"iface_id":"e","host_dev_name":"tap0","x":1}`, put+`{"iface_id":"e","host_dev_name":"tap0","allow_mmds_requests":true}`, put+"{}",
			`PUT /network-interfaces {"iface_id":"e","host_dev_name":"tap0"}`, `PUT /network-interfaces/e-1 {"iface_id":"e-1","host_dev_name":"tap0"}`, "PUT /network-interfaces/e",
			"GET /network-interfaces", "DELETE /network-interfaces/e-1", "DELETE /network-interfaces",
			`PATCH /network-interfaces/e {}`, `PATCH /network-interfaces/e {"iface_id":"x"}`, `PATCH /network-interfaces/e {"iface_id":"e","x":1}`, `PATCH /network-interfaces/e`),
		[]sequence{
			{name: "one MAC twice", steps: []string{put + `{"iface_id":"e","host_dev_name":"tap0","guest_mac":"aa:fc:00:00:00:01"}`, `PUT /network-interfaces/f {"iface_id":"f","host_dev_name":"tap1","guest_mac":"AA:FC:00:00:00:01"}`, "GET /vm/config"}},
			{name: "one TAP twice", steps: []string{put + `{"iface_id":"e","host_dev_name":"tap0"}`, `PUT /network-interfaces/f {"iface_id":"f","host_dev_name":"tap0"}`, "GET /vm/config"}},
			{name: "a second one replaces the first", steps: []string{put + `{"iface_id":"e","host_dev_name":"tap0"}`, put + `{"iface_id":"e","host_dev_name":"tap0","mtu":1400}`, put + `{"iface_id":"e","host_dev_name":"tap1"}`, "GET /vm/config"}},
			{name: "a refused second one", steps: []string{put + `{"iface_id":"e","host_dev_name":"tap0"}`, put + `{"iface_id":"e","host_dev_name":"toolongname12345"}`, "GET /vm/config"}},
			{name: "a refused second one by its MTU", steps: []string{put + `{"iface_id":"e","host_dev_name":"tap0"}`, put + `{"iface_id":"e","host_dev_name":"tap0","mtu":5}`, "GET /vm/config"}},
		})
	for i := range list {
		list[i].net = true
	}
	return list
}

func deviceSequences() []sequence {
	const (
		vsock    = `PUT /vsock {"guest_cid":@,"uds_path":"v.sock"}`
		path     = `PUT /vsock {"guest_cid":3,"uds_path":@}`
		balloon  = `PUT /balloon {"amount_mib":@,"deflate_on_oom":true}`
		balloon2 = `PUT /balloon {"amount_mib":1,"deflate_on_oom":true,@}`
		pmem     = `PUT /pmem/p {"id":"p","path_on_host":"pmem",@}`
		serial   = "PUT /serial "
		hotplug  = "PUT /hotplug/memory "
		cpu      = "PUT /cpu-config "
	)
	return join(
		with(vsock, "3", "0", "2", "4294967295", "4294967296", "-1", "null", `"3"`),
		with(path, `"./v.sock"`, `"text"`, `"folder"`, `"no/v.sock"`, `""`, "null", `"`+strings.Repeat("x", 107)+`"`, `"`+strings.Repeat("x", 108)+`"`),
		each(`PUT /vsock {"guest_cid":3}`, `PUT /vsock {"uds_path":"v.sock"}`, `PUT /vsock {"guest_cid":3,"uds_path":"v.sock","vsock_id":"v"}`, `PUT /vsock {"guest_cid":3,"uds_path":"v.sock","vsock_id":null}`,
			`PUT /vsock {"guest_cid":3,"uds_path":"v.sock","x":1}`, `PUT /vsock/more {"guest_cid":3,"uds_path":"v.sock"}`, "PUT /vsock", "GET /vsock", "PATCH /vsock {}", "DELETE /vsock"),
		with(balloon, "0", "128", "129", "4294967295", "4294967296", "-1", "null", "1.0"),
		with(balloon2, `"stats_polling_interval_s":1`, `"stats_polling_interval_s":65535`, `"stats_polling_interval_s":65536`, `"stats_polling_interval_s":null`,
			`"free_page_reporting":true`, `"free_page_reporting":null`, `"free_page_hinting":1`, `"x":1`, `"deflate_on_oom":true`),
		[]sequence{{name: "free page hinting", steps: []string{`PUT /balloon {"amount_mib":1,"deflate_on_oom":true,"free_page_hinting":true}`, "GET /balloon"}}},
		each(`PUT /balloon {"amount_mib":1}`, `PUT /balloon {"deflate_on_oom":true}`, "PUT /balloon {}", "PUT /balloon", "PATCH /balloon", "PATCH /balloon {}", `PATCH /balloon {"amount_mib":-1}`,
			`PATCH /balloon/statistics {}`, "PATCH /balloon/statistics", `PATCH /balloon/statistics {"stats_polling_interval_s":65536}`, `PATCH /balloon/x {"amount_mib":1}`,
			"PATCH /balloon/hinting", "PATCH /balloon/hinting/x", "PATCH /balloon/hinting/start {}", `PATCH /balloon/hinting/start {"x":1}`, `PATCH /balloon/hinting/start {"acknowledge_on_stop":1}`,
			"PATCH /balloon/hinting/stop {}", "DELETE /balloon", "GET /balloon", "GET /balloon/x", "GET /balloon/hinting", "GET /balloon/hinting/x", "PUT /balloon/statistics {}"),
		each("PUT /entropy {}", `PUT /entropy {"rate_limiter":null}`, `PUT /entropy {"rate_limiter":{"bandwidth":{"size":10,"refill_time":10}}}`, `PUT /entropy {"rate_limiter":{"ops":{"size":0,"refill_time":0}}}`,
			`PUT /entropy {"rate_limiter":1}`, `PUT /entropy {"x":1}`, "PUT /entropy []", "PUT /entropy [null]", "PUT /entropy", "PATCH /entropy {}", "GET /entropy"),
		each(serial+"{}", serial+`{"serial_out_path":"out"}`, serial+`{"serial_out_path":"no/out"}`, serial+`{"serial_out_path":1}`, serial+`{"rate_limiter":{"size":10,"refill_time":10}}`,
			serial+`{"rate_limiter":{"bandwidth":{"size":10,"refill_time":10}}}`, serial+`{"rate_limiter":null}`, serial+`{"x":1}`, "PUT /serial", "GET /serial", "PATCH /serial {}"),
		with(`PUT /logger {"level":@}`, `"Off"`, `"error"`, `"WARNING"`, `"Warn"`, `"info"`, `"DEBUG"`, `"trace"`, `"loud"`, `""`, "null", "1"),
		each("PUT /logger {}", `PUT /logger {"log_path":"l"}`, `PUT /logger {"log_path":"folder"}`, `PUT /logger {"log_path":"no/l"}`, `PUT /logger {"show_level":1}`, `PUT /logger {"show_level":true,"show_log_origin":true,"module":"x"}`,
			`PUT /logger {"x":1}`, "PUT /logger", "GET /logger", "PATCH /logger {}"),
		each(`PUT /metrics {"metrics_path":"m"}`, `PUT /metrics {"metrics_path":"m","x":1}`, `PUT /metrics {"metrics_path":"no/m"}`, `PUT /metrics {"metrics_path":"folder"}`, `PUT /metrics {"metrics_path":null}`,
			"PUT /metrics {}", "PUT /metrics", "GET /metrics"),
		[]sequence{
			{name: "metrics are configured once", steps: []string{`PUT /metrics {"metrics_path":"m"}`, `PUT /metrics {"metrics_path":"m2"}`, `PUT /metrics {"metrics_path":"no/m2"}`}},
			{name: "a refused metrics file may be mended", steps: []string{`PUT /metrics {"metrics_path":"no/m"}`, `PUT /metrics {"metrics_path":"m"}`}},
			{name: "logs are configured often", steps: []string{`PUT /logger {"log_path":"l1"}`, `PUT /logger {"log_path":"l2","level":"Off"}`, `PUT /logger {}`}},
			{name: "a second vsock replaces the first", steps: []string{`PUT /vsock {"guest_cid":3,"uds_path":"v.sock"}`, `PUT /vsock {"guest_cid":4,"uds_path":"v.sock"}`, `PUT /vsock {"guest_cid":5,"uds_path":"w.sock"}`, "GET /vm/config"}},
			{name: "a refused second vsock takes the first along", steps: []string{`PUT /vsock {"guest_cid":3,"uds_path":"v.sock"}`, `PUT /vsock {"guest_cid":4,"uds_path":"text"}`, "GET /vm/config"}},
			{name: "a second balloon replaces the first", steps: []string{`PUT /balloon {"amount_mib":1,"deflate_on_oom":true}`, "GET /balloon", `PUT /balloon {"amount_mib":2,"deflate_on_oom":false}`, "GET /balloon", `PUT /balloon {"amount_mib":2000,"deflate_on_oom":false}`, "GET /balloon"}},
		},
		with(pmem, `"read_only":true`, `"read_only":null`, `"root_device":true`, `"root_device":1`, `"rate_limiter":null`, `"rate_limiter":{"ops":{"size":1,"refill_time":1}}`, `"x":1`, `"id":"p"`),
		each(`PUT /pmem/p {"id":"p","path_on_host":"nope"}`, `PUT /pmem/p {"id":"p","path_on_host":"empty"}`, `PUT /pmem/p {"id":"p"}`, `PUT /pmem/p {"path_on_host":"pmem"}`, `PUT /pmem/p {"id":"q","path_on_host":"pmem"}`,
			`PUT /pmem {"id":"p","path_on_host":"pmem"}`, `PUT /pmem/a-b {"id":"a-b","path_on_host":"pmem"}`, "PUT /pmem/p", "GET /pmem/p", `PATCH /pmem/p {"id":"q"}`, `PATCH /pmem/p {}`, "PATCH /pmem/p", "DELETE /pmem"),
		[]sequence{
			{name: "one root pmem", steps: []string{`PUT /pmem/p {"id":"p","path_on_host":"pmem","root_device":true}`, `PUT /pmem/q {"id":"q","path_on_host":"pmem","root_device":true}`, `PUT /pmem/p {"id":"p","path_on_host":"pmem","root_device":false}`, "GET /vm/config"}},
		},
		with(hotplug+`{"total_size_mib":@}`, "128", "1024", "0", "64", "127", "1000", "-1", "null"),
		with(hotplug+`{"total_size_mib":1024,"block_size_mib":@}`, "1", "2", "3", "4", "128", "256", "1024", "0"),
		with(hotplug+`{"total_size_mib":1024,"slot_size_mib":@}`, "64", "127", "128", "129", "256", "512", "1024", "2048", "0"),
		with(hotplug+`{"total_size_mib":1024,"block_size_mib":256,"slot_size_mib":@}`, "128", "256", "384", "512"),
		each(hotplug+"{}", hotplug+`{"total_size_mib":1024,"x":1}`, hotplug+"[1024]", hotplug+"[1024,2,128]", "PUT /hotplug/memory", `PUT /hotplug/x {"total_size_mib":1024}`, `PUT /hotplug {"total_size_mib":1024}`, "PATCH /hotplug/memory", `PATCH /hotplug/memory {}`, `PATCH /hotplug/x {}`, "GET /hotplug", "GET /hotplug/x"),
		each(cpu+"{}", cpu+`{"kvm_capabilities":["1","!56"]}`, cpu+`{"kvm_capabilities":["x"]}`, cpu+`{"kvm_capabilities":["!"]}`, cpu+`{"kvm_capabilities":["4294967296"]}`, cpu+`{"kvm_capabilities":[1]}`, cpu+`{"kvm_capabilities":null}`,
			cpu+`{"cpuid_modifiers":[{"leaf":"0x1","subleaf":"0x0","flags":0,"modifiers":[{"register":"eax","bitmap":"0bx1"}]}]}`, cpu+`{"cpuid_modifiers":[{"leaf":"0b1","subleaf":"0x0","flags":1,"modifiers":[]}]}`,
			cpu+`{"cpuid_modifiers":[{"leaf":"1","subleaf":"0x0","flags":0,"modifiers":[]}]}`, cpu+`{"cpuid_modifiers":[{"leaf":"0xg","subleaf":"0x0","flags":0,"modifiers":[]}]}`, cpu+`{"cpuid_modifiers":[{"leaf":"0x1","flags":0,"modifiers":[]}]}`,
			cpu+`{"cpuid_modifiers":[{"leaf":"0x1","subleaf":"0x0","flags":0,"modifiers":[{"register":"foo","bitmap":"0b1"}]}]}`, cpu+`{"cpuid_modifiers":[{"leaf":"0x1","subleaf":"0x0","flags":0,"modifiers":[{"register":"eax","bitmap":"0b`+strings.Repeat("1", 33)+`"}]}]}`,
			cpu+`{"cpuid_modifiers":[{"leaf":"0x1","subleaf":"0x0","flags":0,"modifiers":[],"x":1}]}`, cpu+`{"msr_modifiers":[{"addr":"0x10","bitmap":"0b1x_0"}]}`, cpu+`{"msr_modifiers":[{"addr":"0x10","bitmap":"0b2"}]}`, cpu+`{"msr_modifiers":[{"addr":"0x10","bitmap":"1"}]}`,
			cpu+`{"msr_modifiers":[{"addr":"0x10"}]}`, cpu+`{"reg_modifiers":[]}`, cpu+`{"x":1}`, cpu+"[]", cpu+"1", "PUT /cpu-config", "GET /cpu-config", "PATCH /cpu-config {}"),
	)
}
