package fcapi

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLacksAreWhatTheFilesOfTheReleaseDoNotHave(t *testing.T) {
	t.Parallel()
	all := facts(t)
	last := all[len(all)-1]
	for _, f := range all {
		missing := map[string]bool{}
		for _, l := range Lacks(f.version) {
			missing[l.What] = true
			if f.knows[l.What] || !last.knows[l.What] || releases(l.Since).has(f.version) {
				t.Errorf("%s lacks %s, which came with %v", f.tag, l.What, l.Since)
			}
		}
		for thing, has := range tableSays() {
			if !has(f.version) && !covered(missing, thing) {
				t.Errorf("%s does not have %s, and does not lack it", f.tag, thing)
			}
		}
	}
}

// covered says whether the thing, or what it is a part of, is in the set.
func covered(set map[string]bool, thing string) bool {
	for end := len(thing); end > 0; end-- {
		if set[thing[:end]] {
			return true
		}
	}
	return false
}

func TestTheNewestLacksNothing(t *testing.T) {
	t.Parallel()
	if got := Lacks(newest); len(got) != 0 {
		t.Errorf("%v", got)
	}
	want := []Lack{
		{"PATCH /machine-config huge_pages=Transparent", []Version{{1, 17, 0}}},
		{"PUT /machine-config huge_pages=Transparent", []Version{{1, 17, 0}}},
		{"PUT /metrics emit_id", []Version{{1, 17, 0}}},
		{"PUT /metrics properties", []Version{{1, 17, 0}}},
		{"PUT /snapshot/load huge_pages", []Version{{1, 17, 0}}},
	}
	if diff := cmp.Diff(want, Lacks(Version{1, 16, 1})); diff != "" {
		t.Errorf("1.16.1 (-want +got):\n%s", diff)
	}
	Lacks(Version{1, 16, 1})[2].Since[0] = Version{}
	if got := Lacks(Version{1, 16, 1})[2].Since[0]; got != (Version{1, 17, 0}) {
		t.Errorf("the table was changed through a result: %v", got)
	}
}
