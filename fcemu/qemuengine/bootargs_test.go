package qemuengine

import (
	"strings"
	"testing"
)

func TestBootArgsKeepTheUsersAndAddOurs(t *testing.T) {
	t.Parallel()
	root := &rootDrive{}
	for _, c := range []struct {
		name  string
		args  *string
		root  *rootDrive
		accel string
		want  string
	}{
		{"the default", nil, nil, "kvm", defaultBootArgs},
		{"none", ptr(""), nil, "kvm", ""},
		{"a root drive", ptr("quiet"), root, "kvm", "quiet root=/dev/vda rw"},
		{"a read-only root drive", ptr("quiet"), &rootDrive{readOnly: true}, "kvm", "quiet root=/dev/vda ro"},
		{"a root partition", ptr("quiet"), &rootDrive{partUUID: "0f-1"}, "kvm", "quiet root=PARTUUID=0f-1 rw"},
		{"TCG", ptr("quiet"), root, "tcg", "quiet no_timer_check root=/dev/vda rw"},
		{"only a root drive", ptr(""), root, "kvm", "root=/dev/vda rw"},
		{"arguments of init", ptr("quiet -- a b"), root, "kvm", "quiet root=/dev/vda rw -- a b"},
		{"no pci=off", ptr("pci=off quiet pci=off,x pci=off -- pci=off"), root, "kvm", "quiet pci=off,x root=/dev/vda rw -- pci=off"},
		{"blanks and repeats", ptr(`a  a "b  c"`), nil, "kvm", `a  a "b  c"`},
		{"two dashes in a word", ptr("a=--b c--"), root, "kvm", "a=--b c-- root=/dev/vda rw"},
	} {
		if got := bootArgs(c.args, c.root, c.accel); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzBootArgs(f *testing.F) {
	for _, s := range []string{"", "a b", "pci=off", "--", "a -- b", "a --b -- -- pci=off", " -- "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := bootArgs(&s, &rootDrive{}, "kvm")
		if !strings.Contains(got, "root=/dev/vda rw") {
			t.Fatalf("%q became %q", s, got)
		}
		_, tail, found := cutInitArgs(s)
		if _, gotTail, ok := cutInitArgs(got); ok != found || gotTail != tail {
			t.Fatalf("%q became %q: init's arguments %q, want %q", s, got, gotTail, tail)
		}
		head, _, _ := cutInitArgs(got)
		for _, word := range strings.Split(head, " ") {
			if word == "pci=off" {
				t.Fatalf("%q became %q", s, got)
			}
		}
	})
}
