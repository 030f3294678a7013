package fcemu

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAStateFileHoldsWhatWasWritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	disk := "disk"
	cfg := Config{Machine: MachineConfig{VCPUCount: 2, MemSizeMiB: 64, HugePages: "None"}, Drives: []Drive{{DriveID: "d", PathOnHost: &disk}}}
	if err := WriteState(path, "null", &cfg, strings.NewReader("engine"), 6); err != nil {
		t.Fatal(err)
	}
	s, err := OpenState(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	blob, err := io.ReadAll(s.Blob)
	if err != nil || string(blob) != "engine" || s.Engine != "null" || s.Format != (FormatVersion{10, 0, 0}) || s.Version != EmulatedVersion+"-fcemu" {
		t.Errorf("%q, %v, %+v", blob, err, s)
	}
	if len(s.Config.Drives) != 1 || *s.Config.Drives[0].PathOnHost != "disk" || s.Config.Machine != cfg.Machine {
		t.Errorf("configuration %+v", s.Config)
	}
}

func TestAnyDamageToAStateFileIsFound(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	cfg := Config{Machine: MachineConfig{VCPUCount: 1, MemSizeMiB: 1, HugePages: "None"}}
	if err := WriteState(path, "null", &cfg, strings.NewReader("engine"), 6); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, b []byte) {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if s, err := OpenState(path); !errors.Is(err, ErrBadState) {
			t.Errorf("%s: %v, want ErrBadState", what, err)
			if err == nil {
				s.Close()
			}
		}
	}
	for i := range good {
		b := append([]byte(nil), good...)
		b[i] ^= 0x40
		check("a flipped bit", b)
	}
	for _, n := range []int{0, 1, stateFixed, len(good) - 1} {
		check("a short file", good[:n])
	}
	check("a long file", append(append([]byte(nil), good...), 0))
}
