//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTheNestedHostsLastWordIsItsExitCode(t *testing.T) {
	t.Parallel()
	for output, want := range map[string]struct {
		passed string
		code   int
		fault  string
	}{
		"":     {"", 0, "ended before"},
		"a\nb": {"a\nb", 0, "ended before"},
		"=== RUN   TestA\nPASS\n\nhostinit: exit code 0\n": {"=== RUN   TestA\nPASS\n\n", 0, ""},
		"FAIL\n\nhostinit: exit code 137\n":                {"FAIL\n\n", 137, ""},
		"hostinit: exit code 1":                            {"", 1, ""},
		"hostinit: exit code one\n":                        {"", 0, "last word"},
	} {
		var passed strings.Builder
		code, err := pass(strings.NewReader(output), &passed)
		if code != want.code || passed.String() != want.passed || (err == nil) != (want.fault == "") || err != nil && !strings.Contains(err.Error(), want.fault) {
			t.Errorf("%q: %q, exit code %d, %v; want %+v", output, passed.String(), code, err, want)
		}
	}
}

func TestAProgramsLibrariesAreFound(t *testing.T) {
	t.Parallel()
	static := filepath.Join(t.TempDir(), "static")
	if err := build(t.Context(), "build", "-o", static, "./hostinit"); err != nil {
		t.Fatal(err)
	}
	if got, err := libraries(t.Context(), static); err != nil || len(got) != 0 {
		t.Errorf("a static program needs %q, %v", got, err)
	}
	if got, err := libraries(t.Context(), "nested_test.go"); err == nil {
		t.Errorf("what is no program needs %q", got)
	}
	dynamic, err := exec.LookPath("ls")
	if err != nil {
		t.Fatal(err)
	}
	got, err := libraries(t.Context(), dynamic)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) == 0 {
		t.Skipf("%s is static", dynamic)
	}
	for _, f := range got {
		if _, err := os.Stat(f); err != nil {
			t.Error(err)
		}
	}
	if !slices.ContainsFunc(got, func(f string) bool { return strings.Contains(f, "libc") }) {
		t.Errorf("%s needs %q, and no libc?", dynamic, got)
	}
}

// The disk is a real one: what is put on it can be read back.
func TestTheHostsDiskHoldsWhatItIsGiven(t *testing.T) {
	t.Parallel()
	debugfs, err := exec.LookPath("debugfs")
	if err != nil {
		if debugfs, err = exec.LookPath("/usr/sbin/debugfs"); err != nil {
			t.Skipf("no debugfs: %v (apt install e2fsprogs)", err)
		}
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("I am deep below"), 0o600); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(dir, "disk")
	s := &session{}
	size, err := disk(t.Context(), map[string]string{"/a/b/c/program": program, "/sbin/init": program}, s.order(), dst)
	if err != nil {
		t.Fatal(err)
	}
	if size != hostDiskMiB<<20 {
		t.Errorf("the disk has %d bytes", size)
	}
	for file, want := range map[string]string{"/a/b/c/program": "I am deep below", "/etc/order.json": hostTests} {
		out, err := exec.Command(debugfs, "-R", "cat "+file, dst).Output()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s has %q, %v", file, out, err)
		}
	}
}
