package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestTheReleaseInUseIsDescribed(t *testing.T) {
	t.Parallel()
	has := func(v VMM, id string) bool {
		return slices.ContainsFunc(v.Defects, func(d Defect) bool { return d.ID == id && d.Summary != "" })
	}
	v := VMM{Version: "1.16.0"}
	v.describe()
	if !has(v, "vsock-dead-on-restore") || !has(v, "vsock-mute-after-resume") || len(v.Lacks) == 0 {
		t.Errorf("1.16.0: %+v", v)
	}
	old := VMM{Version: "1.11.0"}
	old.describe()
	if has(old, "vsock-dead-on-restore") {
		t.Errorf("1.11.0 has a defect of 1.16.0: %+v", old.Defects)
	}
	if !slices.ContainsFunc(old.Lacks, func(l Lack) bool {
		return l.What == "PUT /snapshot/load network_overrides" && slices.Equal(l.Since, []string{"1.12.0"})
	}) {
		t.Errorf("1.11.0 does not lack network_overrides: %+v", old.Lacks)
	}
	emulator := VMM{Version: "1.16.0-fcemu", Emulator: true}
	emulator.describe()
	if len(emulator.Defects) > 0 || len(emulator.Lacks) != len(v.Lacks) {
		t.Errorf("the emulator: %+v", emulator)
	}
	strange := VMM{Version: "tuesday"}
	strange.describe()
	if len(strange.Defects)+len(strange.Lacks) > 0 {
		t.Errorf("%+v", strange)
	}
}

func TestTheJailerBesideTheVMMShouldBeOfItsRelease(t *testing.T) {
	dir := t.TempDir()
	v := VMM{Path: filepath.Join(dir, "firecracker"), Version: "1.16.1"}
	if _, ok := v.findJailer(t.Context()); ok {
		t.Error("a jailer was found where none is")
	}
	for says, want := range map[string]Status{"Jailer v1.16.1": OK, "Jailer v1.15.0": Limited, "nothing": Missing} {
		path := filepath.Join(dir, "jailer")
		if err := os.WriteFile(path, fmt.Appendf(nil, "#!/bin/sh\necho %s\n", says), 0o755); err != nil {
			t.Fatal(err)
		}
		c, ok := v.findJailer(t.Context())
		if !ok || c.Status != want || c.Detail == "" || want != OK && c.Remedy == "" || v.Jailer != path {
			t.Errorf("%s: %+v, %v", says, c, ok)
		}
	}
}
