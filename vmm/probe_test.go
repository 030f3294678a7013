package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// These tests are not parallel: a program that another test starts meanwhile
// could hold the script open for writing, and it could not be run (ETXTBSY).

// script makes a binary out of lines of shell.
func script(t *testing.T, lines string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vmm")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+lines+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProbeReadsTheFirstLineOnly(t *testing.T) {
	const say = `case "$1" in --version) echo "%s"; echo;; *) echo %s;; esac; echo "2026-11-25T03:52:22 [anonymous-instance:main] Firecracker exiting successfully. exit_code=0"`
	for _, tc := range []struct {
		version, snapshot string
		want              Binary
	}{
		{"Firecracker v1.16.1", "v10.0.0", Binary{Name: "Firecracker", Version: "1.16.1", SnapshotVersion: "10.0.0"}},
		{"Firecracker v1.7.0", "1.0.0", Binary{Name: "Firecracker", Version: "1.7.0", SnapshotVersion: "1.0.0"}},
		{"Firecracker v1.17.0-dev", "v11.0.0", Binary{Name: "Firecracker", Version: "1.17.0-dev", SnapshotVersion: "11.0.0"}},
		{"Firecracker v1.16.1-fcemu (an emulator)", "v10.0.0", Binary{Name: "Firecracker", Version: "1.16.1-fcemu", Emulator: true, SnapshotVersion: "10.0.0"}},
		{"Jailer v1.16.1", "", Binary{Name: "Jailer", Version: "1.16.1"}},
	} {
		path := script(t, fmt.Sprintf(say, tc.version, tc.snapshot))
		tc.want.Path = path
		got, err := Probe(context.Background(), path)
		if err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v", tc.version, got, err)
		}
	}
}

func TestProbeOfSomethingElseSaysWhatItIs(t *testing.T) {
	for name, tc := range map[string]struct{ script, text string }{
		"another program":   {`echo "GNU bash, version 5"`, "GNU bash"},
		"fails":             {`echo "no KVM here" >&2; exit 3`, "no KVM here"},
		"silent":            {`exit 0`, `""`},
		"no number":         {`echo "Firecracker vX"`, "vX"},
		"much output":       {`head -c 3000000 /dev/zero | tr '\0' x`, "xxxxx"},
		"control sequences": {`printf 'Firecracker v1.2.3\033[31m\n'`, `\x1b`},
		"no snapshot":       {`[ "$1" = --version ] && echo Firecracker v1.2.3`, "--snapshot-version"},
	} {
		b, err := Probe(context.Background(), script(t, tc.script))
		if err == nil || !strings.Contains(err.Error(), tc.text) || len(err.Error()) > 600 {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
	}
	if _, err := Probe(context.Background(), "/none/firecracker"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestProbeIsBoundInTime(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := Probe(ctx, script(t, `sleep 3600 & wait`))
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > patience {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
}

func FuzzParseVersion(f *testing.F) {
	for _, s := range []string{"Firecracker v1.16.1", "Jailer v1.7.0-dev", "Firecracker v1.16.1-fcemu x", "Firecracker", "v1..2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := parseVersion(s)
		if err == nil && (len(b.Version) > 64 || strings.ContainsFunc(b.Version, func(r rune) bool { return r < '+' || r > 'z' })) {
			t.Errorf("%q became %+v", s, b)
		}
	})
}

func TestProbeGivesTheBinaryTheEnvironmentThatItIsTold(t *testing.T) {
	t.Setenv("SAYS", "Firecracker v1.2.3")
	path := script(t, `case "$1" in --version) echo "$SAYS";; *) echo v1.0.0;; esac`)
	if b, err := Probe(context.Background(), path); err == nil {
		t.Errorf("the environment of this program went through: %+v", b)
	}
	b, err := Probe(context.Background(), path, "SAYS=Firecracker v1.9.0")
	if err != nil || b.Version != "1.9.0" {
		t.Errorf("%+v, %v", b, err)
	}
}
