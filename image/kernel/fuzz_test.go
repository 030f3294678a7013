package kernel

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func FuzzUnpackDeb(f *testing.F) {
	f.Add(goodDeb(f))
	f.Add(debOf(f, file("../boot/vmlinuz", []byte("x"))))
	f.Add(arOf(member{"data.tar", tarOf(f, file("boot/vmlinuz-1", []byte("x")))}))
	f.Fuzz(func(t *testing.T, b []byte) {
		data, err := findData(bytes.NewReader(b))
		if err != nil {
			return
		}
		outer := t.TempDir()
		root, err := os.OpenRoot(mkdir(t, outer))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		err = unpackTar(t.Context(), io.LimitReader(data, 1<<20), root, 1<<20)
		entries, readErr := os.ReadDir(outer)
		if readErr != nil || len(entries) != 1 {
			t.Errorf("outside the root: %v, %v (unpack: %v)", entries, readErr, err)
		}
	})
}

func mkdir(t *testing.T, outer string) string {
	dir := filepath.Join(outer, "root")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func FuzzParseModinfo(f *testing.F) {
	f.Add(ko("a,b"))
	f.Add(koFile("softdep=pre: x post: y"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseModinfo(b)
		if err == nil && len(m.depends) > len(b) {
			t.Errorf("%d dependencies in %d bytes", len(m.depends), len(b))
		}
	})
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("CONFIG_ACPI=y\n# CONFIG_PCI is not set\nCONFIG_X=\"a=b\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c := parseConfig(b); c == nil || len(c) > len(b) {
			t.Errorf("%d options in %d bytes", len(c), len(b))
		}
	})
}
