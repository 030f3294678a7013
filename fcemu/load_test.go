package fcemu_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const load = `{"snapshot_path":"DIR/state","mem_backend":{"backend_path":"DIR/mem","backend_type":"File"}}`

// snapshot makes state and mem of a guest with a drive and a vsock, and ends
// it.
func snapshot(t *testing.T, args ...string) (dir string) {
	t.Helper()
	v := start(t, args...)
	v.must("PUT", "/drives/d", `{"drive_id":"d","path_on_host":"DIR/disk","is_root_device":false}`)
	v.must("PUT", "/vsock", `{"guest_cid":3,"uds_path":"DIR/v.sock"}`)
	v.boot("fcemu.seed=5")
	v.must("PATCH", "/vm", `{"state":"Paused"}`)
	v.must("PUT", "/snapshot/create", `{"snapshot_path":"DIR/state","mem_file_path":"DIR/mem"}`)
	v.stop()
	if err := os.Remove(filepath.Join(v.dir, "v.sock")); err != nil {
		t.Fatal(err)
	}
	return v.dir
}

func TestALoadedGuestIsPausedUntilItIsResumed(t *testing.T) {
	t.Parallel()
	v := startIn(t, snapshot(t), "--id", "clone")
	v.walk([]step{
		{"PUT", "/snapshot/load", load, 204, ""},
		{"GET", "/", "", 200, `"id":"clone","state":"Paused"`},
		{"GET", "/vm/config", "", 200, `"boot_args":"fcemu.seed=5"`},
		{"PUT", "/snapshot/load", load, 400, tooLate},
		{"PATCH", "/vm", `{"state":"Resumed"}`, 204, ""},
		{"GET", "/", "", 200, `"state":"Running"`},
		{"PUT", "/actions", `{"action_type":"SendCtrlAltDel"}`, 204, ""},
	})
	if code := v.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestALoadTakesOverridesAndDeprecatedFields(t *testing.T) {
	t.Parallel()
	v := startIn(t, snapshot(t))
	a := v.do("PUT", "/snapshot/load", `{"snapshot_path":"DIR/state","mem_file_path":"DIR/mem","enable_diff_snapshots":true,"resume_vm":true,"vsock_override":{"uds_path":"DIR/other.sock"}}`)
	if a.status != 204 || !a.deprecated {
		t.Fatalf("%v, deprecated %v", a, a.deprecated)
	}
	v.walk([]step{
		{"GET", "/", "", 200, `"state":"Running"`},
		{"GET", "/vm/config", "", 200, `"uds_path":"DIR/other.sock"`},
		{"GET", "/machine-config", "", 200, `"track_dirty_pages":true`},
	})
}

func TestALoadThatFailsIsAnsweredAndEndsTheProcess(t *testing.T) {
	t.Parallel()
	remove := func(name string) func(string) error {
		return func(dir string) error { return os.Remove(filepath.Join(dir, name)) }
	}
	none := func(string) error { return nil }
	for name, c := range map[string]struct {
		spoil func(dir string) error
		body  string
	}{
		"no state":           {remove("state"), load},
		"no memory":          {remove("mem"), load},
		"no drive":           {remove("disk"), load},
		"short memory":       {func(dir string) error { return os.Truncate(filepath.Join(dir, "mem"), 4096) }, load},
		"another's state":    {func(dir string) error { return os.WriteFile(filepath.Join(dir, "state"), []byte("x"), 0o644) }, load},
		"vsock in use":       {func(dir string) error { return os.WriteFile(filepath.Join(dir, "v.sock"), nil, 0o644) }, load},
		"unknown interface":  {none, strings.TrimSuffix(load, "}") + `,"network_overrides":[{"iface_id":"e","host_dev_name":"t"}]}`},
		"no handler of uffd": {none, strings.ReplaceAll(load, "File", "Uffd")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := snapshot(t)
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			v := startIn(t, dir)
			if a := v.do("PUT", "/snapshot/load", c.body); a.status != 400 || a.body == "" {
				t.Errorf("answer %v", a)
			}
			if code := v.exit(); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			if got := v.file("stderr"); !strings.Contains(got, "Error: RunWithApi(BuildMicroVmError(Restore))") {
				t.Errorf("standard error: %s", got)
			}
		})
	}
}

func TestALoadThatIsRefusedBeforehandLeavesTheProcess(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{}`, `{"snapshot_path":"s"}`,
		`{"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"File"},"mem_file_path":"m"}`,
		`{"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"X"}}`,
		`{"snapshot_path":"s","mem_backend":{"backend_path":"m","backend_type":"File"},"huge_pages":"2M"}`,
	} {
		either(t).walk([]step{{"PUT", "/snapshot/load", body, 400, ""}, {"GET", "/", "", 200, "Not started"}})
	}
	const after = "not allowed after configuring boot-specific resources"
	for _, first := range []step{
		{"PUT", "/boot-source", `{"kernel_image_path":"DIR/nope"}`, 400, ""},
		{"PUT", "/machine-config", `{"vcpu_count":0,"mem_size_mib":64}`, 400, ""},
		{"PUT", "/drives/d", `{"drive_id":"d","path_on_host":"DIR/disk","is_root_device":true}`, 204, ""},
		{"PUT", "/vsock", `{"guest_cid":3,"uds_path":"DIR/text"}`, 400, ""},
		{"PUT", "/entropy", `{}`, 204, ""},
		{"PUT", "/mmds/config", `{"network_interfaces":[]}`, 400, ""},
	} {
		either(t).walk([]step{first, {"PUT", "/snapshot/load", load, 400, after}, {"GET", "/", "", 200, "Not started"}})
	}
}

func TestAConfigFileBootsAGuestWithAndWithoutAnAPI(t *testing.T) {
	t.Parallel()
	config := func(dir string) string {
		return write(t, dir, "vm.json", fmt.Sprintf(`{"boot-source":{"kernel_image_path":"%[1]s/vmlinux","boot_args":"fcemu.reboot_after=0s"},
			"drives":[{"drive_id":"d","path_on_host":"%[1]s/disk","is_root_device":true}],"machine-config":{"vcpu_count":1,"mem_size_mib":8},"unknown":1}`, dir))
	}
	dir := shortDir(t)
	furnish(t, dir)
	if code := func() int { p := process(t, dir, "--no-api", "--config-file", config(dir)); return p.Run(t.Context()) }(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	write(t, dir, "bad.json", `{"drives":[]}`)
	for _, args := range [][]string{{"--no-api"}, {"--api-sock", "DIR/b.sock"}} {
		p := process(t, dir, append(args, "--config-file", "DIR/bad.json")...)
		if code := p.Run(t.Context()); code != 1 {
			t.Errorf("%v: exit code %d for a bad file, want 1", args, code)
		}
	}
}

func TestTheCommandLineIsJudgedAsTheOriginalJudgesIt(t *testing.T) {
	t.Parallel()
	sock := []string{"--api-sock", "DIR/a.sock"}
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"--version"}, 0}, {[]string{"--help"}, 0}, {[]string{"--snapshot-version"}, 0},
		{[]string{"--bogus", "--version"}, 0}, {[]string{"--bogus"}, 153}, {[]string{"bogus"}, 153},
		{[]string{"--id=a"}, 153}, {[]string{"--id"}, 153}, {[]string{"--id", "--api-sock"}, 153},
		{[]string{"--id", "a", "--id", "b"}, 153}, {[]string{"--no-api"}, 153},
		{[]string{"--no-seccomp", "--seccomp-filter", "x"}, 153},
		{append(sock, "--level", "loud"), 152}, {append(sock, "--id", "a_b"), 134},
		{append(sock, "--id", strings.Repeat("a", 65)), 134}, {append(sock, "--config-file", "DIR/nope"), 134},
		{append(sock, "--metadata", "DIR/text"), 134}, {append(sock, "--http-api-max-payload-size", "x"), 134},
		{append(sock, "--log-path", "DIR/no/log"), 1}, {append(sock, "--metrics-path", "DIR/no/m"), 1},
		{append(sock, "--seccomp-filter", "DIR/nope"), 1}, {[]string{"--api-sock", "DIR/text"}, 1},
		{[]string{"--api-sock", "DIR/no/a.sock"}, 1}, {[]string{"--api-sock", strings.Repeat("x", 108)}, 1},
		{[]string{"--describe-snapshot", "DIR/nope"}, 1}, {[]string{"--describe-snapshot", "DIR/text"}, 1},
		{append(sock, "--engine", "xen"), 1},
	} {
		dir := shortDir(t)
		furnish(t, dir)
		p := process(t, dir, append([]string(nil), c.args...)...)
		if code := p.Run(t.Context()); code != c.code {
			t.Errorf("%v: exit code %d, want %d", c.args, code, c.code)
		}
		out, err := os.ReadFile(filepath.Join(dir, "stdout"))
		if err != nil || len(out) == 0 {
			t.Errorf("%v: nothing on standard output (%v)", c.args, err)
		}
	}
}
