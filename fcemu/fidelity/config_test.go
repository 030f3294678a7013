package fidelity

import "strings"

func machineSequences() []sequence {
	const put, patch = "PUT /machine-config ", "PATCH /machine-config "
	return join(
		with(put+`{"vcpu_count":@,"mem_size_mib":128}`, "1", "2", "3", "31", "32", "0", "33", "255", "256", "-1", "1.0", "1e0", "01", `"1"`, "null", "true", "[]", "{}", "18446744073709551616"),
		with(put+`{"vcpu_count":1,"mem_size_mib":@}`, "1", "0", "3072", "4096", "1099511627776", "18446744073709551616", "-1", "-0", "1.5", `"128"`, "null"),
		with(put+`{"vcpu_count":@,"mem_size_mib":64,"smt":true}`, "1", "2", "3", "32", "31"),
		with(put+`{"vcpu_count":2,"mem_size_mib":64,"smt":@}`, "false", "null", "1", `"true"`),
		with(put+`{"vcpu_count":2,"mem_size_mib":64,"track_dirty_pages":@}`, "true", "false", "null", "0"),
		with(put+`{"vcpu_count":2,"mem_size_mib":64,"huge_pages":@}`, `"2M"`, `"None"`, `"1G"`, `"2m"`, "null", "2", `{"2M":null}`, `{"2M":1}`, `{}`, `["2M"]`),
		with(put+`{"vcpu_count":2,"mem_size_mib":@,"huge_pages":"2M"}`, "2", "63", "1"),
		with(put+`{"vcpu_count":2,"mem_size_mib":64,"cpu_template":@}`, `"T2"`, `"None"`, `"C3"`, `"T2S"`, `"T2CL"`, `"T2A"`, `"V1N1"`, `"t2"`, "null", "1"),
		each(put+"{}", put+`{"vcpu_count":2}`, put+`{"mem_size_mib":2}`, put+`{"vcpu_count":2,"mem_size_mib":64,"x":1}`,
			put+`{"VCPU_COUNT":2,"mem_size_mib":64}`, put+`{"vcpu_count":1,"vcpu_count":1,"mem_size_mib":64}`,
			put+`{"vcpu_count":1,"mem_size_mib":64} x`, put+`{"vcpu_count":1,"mem_size_mib":64,}`, put+`{"vcpu_count":1 "mem_size_mib":64}`,
			put+`{'vcpu_count':1}`, put+`{vcpu_count:1}`, put+`{`, put+`}`, put+` `, put+`nul`, put+`null`, put+`"x"`, put+`1`, put+`true`,
			put+"\xff\xfe", put+"\xef\xbb\xbf{}", put+"{\"\xff\":1}", put+"{\"a\x01\":1}", put+`{"\ud800":1}`, put+`{"\x":1}`,
			put+`[1,128]`, put+`[1,128,false]`, put+`[1]`, put+`[]`, put+`[1,128,false,null,true,"None"]`, put+`[1,128,false,null,true,"None",4]`,
			put+`{"\u0076cpu_count":2,"mem_size_mib":64}`, put+" \t\r\n{ \"vcpu_count\" : 2 , \"mem_size_mib\" : 64 }\n", put+`{"vcpu_count":2,"mem_size_mib":64,"mem_size_mib":64}`,
			put+`{/**/"vcpu_count":2,"mem_size_mib":64}`, put+`{"vcpu_count":2,"mem_size_mib":0x40}`, put+`{"vcpu_count":+2,"mem_size_mib":64}`,
			put+`{"vcpu_count":NaN,"mem_size_mib":64}`,
			"PUT /machine-config", "PATCH /machine-config", "DELETE /machine-config", "DELETE /machine-config {}"),
		each(patch+"{}", patch+`{"vcpu_count":4}`, patch+`{"vcpu_count":0}`, patch+`{"vcpu_count":33}`, patch+`{"vcpu_count":null}`, patch+`{"mem_size_mib":64}`,
			patch+`{"mem_size_mib":0}`, patch+`{"smt":true}`, patch+`{"smt":null}`, patch+`{"track_dirty_pages":true}`, patch+`{"huge_pages":"2M"}`,
			patch+`{"huge_pages":"1G"}`, patch+`{"cpu_template":"T2"}`, patch+`{"cpu_template":null}`, patch+`{"x":1}`, patch+`[]`, patch+`[2]`, patch+`[2,64,false,null,null,null]`, patch+"null", patch+`{`,
			patch+`{"vcpu_count":2,"vcpu_count":2}`),
		[]sequence{
			{name: "a list 127 deep", steps: []string{put + strings.Repeat("[", 127) + strings.Repeat("]", 127)}},
			{name: "a list 200 deep", steps: []string{put + strings.Repeat("[", 200) + strings.Repeat("]", 200)}},
			{name: "PUT replaces, PATCH changes", steps: []string{
				put + `{"vcpu_count":2,"mem_size_mib":64,"smt":true,"track_dirty_pages":true,"huge_pages":"2M","cpu_template":"T2"}`, "GET /machine-config",
				put + `{"vcpu_count":2,"mem_size_mib":64}`, "GET /machine-config", patch + `{"cpu_template":"None","smt":true}`, "GET /machine-config",
				patch + `{"vcpu_count":3}`, patch + `{"vcpu_count":3,"smt":false}`, "GET /machine-config"}},
			{name: "memory below the balloon", steps: []string{`PUT /balloon {"amount_mib":100,"deflate_on_oom":true}`,
				put + `{"vcpu_count":1,"mem_size_mib":99}`, put + `{"vcpu_count":1,"mem_size_mib":100}`, patch + `{"mem_size_mib":50}`, "GET /vm/config"}},
			{name: "huge pages and the balloon", steps: []string{`PUT /balloon {"amount_mib":10,"deflate_on_oom":true}`, put + `{"vcpu_count":1,"mem_size_mib":100,"huge_pages":"2M"}`, "GET /vm/config"}},
			{name: "huge pages, then the balloon", steps: []string{put + `{"vcpu_count":1,"mem_size_mib":100,"huge_pages":"2M"}`, `PUT /balloon {"amount_mib":10,"deflate_on_oom":true}`, "GET /vm/config"}},
		})
}

func bootSequences() []sequence {
	const put = "PUT /boot-source "
	args := func(s string) string { return put + `{"kernel_image_path":"vmlinux","boot_args":"` + s + `"}` }
	const start = `PUT /actions {"action_type":"InstanceStart"}`
	var list []sequence
	for _, kernel := range []string{"text", "folder", "empty", "cut"} {
		list = append(list, sequence{name: "a start with the kernel " + kernel, guest: true, steps: []string{
			put + `{"kernel_image_path":"` + kernel + `"}`, start, "GET /vm/config", put + `{"kernel_image_path":"vmlinux"}`, "GET /vm/config"}})
	}
	return join(list,
		with(put+`{"kernel_image_path":@}`, `"vmlinux"`, `"./vmlinux"`, `"nope"`, `"folder"`, `"text"`, `"empty"`, `""`, `"vmlinux/x"`, `"a\u0000b"`, "1", "null", "[]"),
		with(put+`{"kernel_image_path":"vmlinux","initrd_path":@}`, `"initrd"`, `"nope"`, `"folder"`, `"empty"`, `""`, "null", "1"),
		with(put+`{"kernel_image_path":"vmlinux","boot_args":@}`, "null", "1", "[]", `""`, `" "`, `"a"`, `"a -- b"`, `"a -- b -- c"`, `"--"`, `" -- b"`, `"a=\"x -- y\" b"`, `"é"`, `"a\nb"`, `"a\u0000b"`),
		each(args(strings.Repeat("a", 2047)), args(strings.Repeat("a", 2048)), args(strings.Repeat("a", 1020)+" -- "+strings.Repeat("b", 1023)),
			args(strings.Repeat("a", 1020)+" -- "+strings.Repeat("b", 1024)), args(strings.Repeat("é", 1023)), args(strings.Repeat("é", 1024)),
			put+`["vmlinux",null,null]`, put+`["vmlinux"]`, put+`["vmlinux",null]`, put+`{}`, put+`{"kernel_image_path":"vmlinux","args":1}`,
			put+`{"kernel_image_path":"vmlinux","kernel_image_path":"vmlinux"}`, put+`{`, "PUT /boot-source", "GET /boot-source", `PATCH /boot-source {}`, "DELETE /boot-source", put[:len(put)-1]+`/more {"kernel_image_path":"vmlinux"}`),
		[]sequence{
			{name: "a second one replaces the first", steps: []string{args("one"), put + `{"kernel_image_path":"vmlinux","initrd_path":"initrd"}`, "GET /vm/config"}},
			{name: "a refused one leaves the first", steps: []string{args("one"), put + `{"kernel_image_path":"nope"}`, "GET /vm/config"}},
			{name: "a start without a kernel", guest: true, steps: []string{start, start, "GET /vm/config"}},
			{name: "a start that fails can be mended", guest: true, steps: []string{put + `{"kernel_image_path":"text"}`, start, "GET /", put + `{"kernel_image_path":"vmlinux"}`, `PUT /machine-config {"vcpu_count":1,"mem_size_mib":16}`, start}},
			{name: "a start with a serial output that can't be opened", guest: true, steps: []string{args("tiny=c"), `PUT /serial {"serial_out_path":"no/dir"}`, start, "GET /", `PUT /serial {"serial_out_path":"out"}`, start}},
			{name: "a start with too much memory", guest: true, steps: []string{args("tiny=c"), `PUT /machine-config {"vcpu_count":1,"mem_size_mib":1099511627776}`, start, "GET /"}},
			{name: "a start with a pmem whose file is missing", guest: true, steps: []string{args("tiny=c"), `PUT /pmem/p {"id":"p","path_on_host":"nope"}`, start, "GET /"}},
			{name: "a kernel that is unlinked before the start", guest: true, steps: []string{args("tiny=c"), `PUT /machine-config {"vcpu_count":1,"mem_size_mib":16}`, "!remove vmlinux", start}},
			{name: "a drive that is unlinked before the start", guest: true, steps: []string{args("tiny=c"), `PUT /drives/d {"drive_id":"d","path_on_host":"disk","is_root_device":true}`, "!remove disk", start}},
		})
}

func driveSequences() []sequence {
	const put = "PUT /drives/d "
	extra := put + `{"drive_id":"d","path_on_host":"disk","is_root_device":false,@}`
	limit := put + `{"drive_id":"d","path_on_host":"disk","is_root_device":false,"rate_limiter":@}`
	return join(
		with(put+`{"drive_id":"d","path_on_host":@,"is_root_device":false}`, `"disk"`, `"nope"`, `"folder"`, `"empty"`, `"odd"`, `""`, `"a\u0000b"`, "null", "1", `"/dev/null"`),
		with(put+`{"drive_id":@,"path_on_host":"disk","is_root_device":false}`, `"x"`, `""`, "null", "1", `"D"`),
		with(put+`{"drive_id":"d","path_on_host":"disk","is_root_device":@}`, "true", "null", `"true"`, "1"),
		with(`PUT /drives/@ {"drive_id":"a-b","path_on_host":"disk","is_root_device":false}`, "a-b", "..", "a.b", "a%20b", ""),
		with(`PUT /drives/@ {"drive_id":"ä_9Z","path_on_host":"disk","is_root_device":false}`, "ä_9Z", "ä_9Z/", "ä_9Z/more", "/ä_9Z"),
		with(extra, `"cache_type":"Writeback"`, `"cache_type":"Unsafe"`, `"cache_type":"unsafe"`, `"cache_type":null`, `"cache_type":"Foo"`,
			`"io_engine":"Sync"`, `"io_engine":"Async"`, `"io_engine":"Foo"`, `"io_engine":null`, `"is_read_only":true`, `"is_read_only":null`, `"is_read_only":1`,
			`"partuuid":"0eaa91a0-01"`, `"partuuid":null`, `"partuuid":1`, `"socket":null`, `"socket":"s"`, `"x":1`, `"drive_id":"d"`, ``),
		with(limit, `null`, `{}`, `[]`, `1`, `{"bandwidth":null}`, `{"bandwidth":{}}`, `{"bandwidth":{"size":1}}`, `{"bandwidth":{"refill_time":1}}`, `{"bandwidth":{"size":1,"refill_time":1}}`,
			`{"bandwidth":{"size":0,"refill_time":1}}`, `{"bandwidth":{"size":1,"refill_time":0}}`, `{"ops":{"size":1,"refill_time":1,"one_time_burst":0}}`,
			`{"ops":{"size":1,"refill_time":1,"one_time_burst":5}}`, `{"ops":{"size":1,"refill_time":1,"one_time_burst":null}}`, `{"ops":{"size":1,"refill_time":1,"x":1}}`,
			`{"ops":{"size":-1,"refill_time":1}}`, `{"ops":{"size":1,"refill_time":18446744073709551615}}`, `{"ops":{"size":1.5,"refill_time":1}}`, `{"foo":1}`, `{"ops":[1,null,1]}`, `{"ops":[1]}`,
			`{"ops":{"size":1,"size":1,"refill_time":1}}`),
		each(put+`{"drive_id":"d","is_root_device":false}`, put+`{"drive_id":"d","path_on_host":"disk"}`, put+`{"path_on_host":"disk","is_root_device":false}`, put+"{}", put+"[]",
			`PUT /drives {"drive_id":"d","path_on_host":"disk","is_root_device":false}`, "PUT /drives/d", "GET /drives/d", "GET /drives", "DELETE /drives", "DELETE /drives/a-b", "PATCH /drives/d", "PATCH /drives/d {}",
			`PATCH /drives/d {"drive_id":"x"}`, `PATCH /drives/d {"drive_id":"d","x":1}`, `PATCH /drives/a-b {"drive_id":"a-b"}`, `PATCH /drives {"drive_id":"d"}`),
		[]sequence{
			{name: "vhost-user", steps: []string{put + `{"drive_id":"d","socket":"s","is_root_device":false}`}},
			{name: "vhost-user with a path", steps: []string{put + `{"drive_id":"d","socket":"s","path_on_host":"disk","is_root_device":false}`}},
			{name: "one root, which can be given up", steps: []string{
				`PUT /drives/a {"drive_id":"a","path_on_host":"disk2","is_root_device":false}`, put + `{"drive_id":"d","path_on_host":"disk","is_root_device":true}`,
				`PUT /drives/a {"drive_id":"a","path_on_host":"disk2","is_root_device":true}`, "GET /vm/config", put + `{"drive_id":"d","path_on_host":"disk","is_root_device":false}`,
				`PUT /drives/a {"drive_id":"a","path_on_host":"disk2","is_root_device":true}`, `PUT /pmem/p {"id":"p","path_on_host":"disk","root_device":true}`, "GET /vm/config"}},
			{name: "a root of pmem, then a root drive", steps: []string{`PUT /pmem/p {"id":"p","path_on_host":"pmem","root_device":true}`, put + `{"drive_id":"d","path_on_host":"disk","is_root_device":true}`, "GET /vm/config"}},
			{name: "the same file twice", steps: []string{put + `{"drive_id":"d","path_on_host":"disk","is_root_device":false}`, `PUT /drives/e {"drive_id":"e","path_on_host":"disk","is_root_device":false}`, "GET /vm/config"}},
			{name: "a refused second one leaves the first", steps: []string{put + `{"drive_id":"d","path_on_host":"disk","is_root_device":true}`, put + `{"drive_id":"d","path_on_host":"nope","is_root_device":true}`, "GET /vm/config"}},
		})
}
