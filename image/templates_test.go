//go:build linux

package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTemplatesListsDisksByName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, f := range []string{"debian-12.ext4", "alpine.squashfs", "notes.txt", ".hidden.ext4", "a..b.img", "sub.ext4/x"} {
		path := filepath.Join(dir, f)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(f), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink("debian-12.ext4", filepath.Join(dir, "stable.ext4")), os.Symlink("gone", filepath.Join(dir, "old.img"))); err != nil {
		t.Fatal(err)
	}
	list, err := NewTemplates(dir).List()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tpl := range list {
		names = append(names, tpl.Name)
	}
	if got, want := strings.Join(names, " "), "alpine debian-12 stable"; got != want {
		t.Errorf("templates %q, want %q", got, want)
	}
	if list[1].Size != int64(len("debian-12.ext4")) || list[1].Path != filepath.Join(dir, "debian-12.ext4") {
		t.Errorf("template %+v", list[1])
	}
}

func TestTemplatesNamesWhatIsThereWhenOneIsNot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if list, err := NewTemplates(filepath.Join(dir, "absent")).List(); err != nil || len(list) != 0 {
		t.Errorf("an absent folder: %v, %v", list, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.ext4"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b", "../a", "a.ext4", ""} {
		_, err := NewTemplates(dir).Get(name)
		if !errors.Is(err, ErrTemplateNotFound) || !strings.Contains(err.Error(), "there: a") {
			t.Errorf("Get(%q): %v", name, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a.img"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := NewTemplates(dir).Get("a"); err == nil || !strings.Contains(err.Error(), "a.ext4") || !strings.Contains(err.Error(), "a.img") {
		t.Errorf("two files of one name: %v", err)
	}
}

func TestTemplateDigestFollowsTheFileAndIsCached(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "a.ext4")
	write := func(text string) {
		t.Helper()
		tmp := path + ".new"
		if err := errors.Join(os.WriteFile(tmp, []byte(text), 0o644), os.Rename(tmp, path)); err != nil {
			t.Fatal(err)
		}
	}
	tpls := NewTemplates(dir)
	digest := func() string {
		t.Helper()
		d, err := tpls.Digest(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	write("one")
	first := digest()
	if first != sum(t, path) || digest() != first || len(tpls.digests) != 1 {
		t.Errorf("digest %s, cache %v", first, tpls.digests)
	}
	write("two")
	if second := digest(); second == first || second != sum(t, path) {
		t.Errorf("after a replacement the digest is still %s", second)
	}
	if _, err := tpls.Digest(t.Context(), "b"); !errors.Is(err, ErrTemplateNotFound) {
		t.Errorf("absent template: %v", err)
	}
}
