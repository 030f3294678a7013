package fcapi

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// releasesJSON is made by testdata/releases out of Firecracker's repository.
//
//go:embed testdata/releases.json
var releasesJSON []byte

// fact is what the files of one release tag say.
type fact struct {
	tag       string
	version   Version
	snapshot  Version
	changelog string // numbers of pull requests between spaces
	brings    []DefectID
	knows     map[string]bool // "PUT /pmem/*", "PUT /pmem/* rate_limiter.ops", "PATCH /vm state=Paused"
}

func facts(t testing.TB) []fact {
	t.Helper()
	var raw []struct {
		Tag, Version, Commit, Snapshot, Changelog string
		Adds, Drops                               []string
		AddsInCode                                []string `json:"adds_in_code"`
		Brings                                    []DefectID
	}
	if err := json.Unmarshal(releasesJSON, &raw); err != nil {
		t.Fatal(err)
	}
	var all []fact
	knows := map[string]bool{}
	for _, r := range raw {
		for _, thing := range slices.Concat(r.Adds, r.AddsInCode) {
			knows[thing] = true
		}
		for _, thing := range r.Drops {
			delete(knows, thing)
		}
		v, err := ParseVersion(r.Version)
		if err != nil || r.Tag != "main" && r.Tag != "v"+v.String() || len(r.Commit) != 40 {
			t.Fatalf("release %s %s at %s: %v", r.Tag, r.Version, r.Commit, err)
		}
		format, err := ParseVersion(r.Snapshot)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fact{r.Tag, v, format, " " + r.Changelog + " ", r.Brings, maps.Clone(knows)})
	}
	if len(all) < 22 || all[0].version != oldest || all[len(all)-1].version != newest {
		t.Fatalf("%d releases from %v to %v", len(all), all[0].version, all[len(all)-1].version)
	}
	return all
}

// misprints are in the description of the API and never were in the sources.
var misprints = map[string]bool{
	"v1.13.0 PUT /mmds/config imds_comat": true, // mended by #5418
}

// tableSays is everything in the table with the releases that brought it.
func tableSays() map[string]func(Version) bool {
	says := map[string]func(Version) bool{}
	var walk func(at, sep string, f field, has func(Version) bool)
	walk = func(at, sep string, f field, before func(Version) bool) {
		has := func(v Version) bool { return before(v) && f.since.has(v) }
		says[at] = has
		for value, since := range f.values {
			says[at+"="+value] = func(v Version) bool { return has(v) && since.has(v) }
		}
		for name, in := range f.in {
			walk(at+sep+name, ".", in, has)
		}
	}
	for endpoint, f := range endpoints {
		walk(endpoint, " ", f, func(Version) bool { return true })
	}
	return says
}

func TestTableSaysWhatTheFilesOfEachReleaseSay(t *testing.T) {
	t.Parallel()
	says := tableSays()
	for _, f := range facts(t) {
		for thing, has := range says {
			if has(f.version) != f.knows[thing] {
				t.Errorf("%s: %s: in the table %v, in the files %v", f.tag, thing, has(f.version), f.knows[thing])
			}
		}
		for thing := range f.knows {
			if misprints[f.tag+" "+thing] {
				continue
			}
			has := says[thing]
			if has == nil { // a value as old as its field
				name, _, isValue := strings.Cut(thing, "=")
				if has = says[name]; !isValue || has == nil {
					t.Errorf("%s: %s is not in the table", f.tag, thing)
					continue
				}
			}
			if !has(f.version) {
				t.Errorf("%s has %s, the table says no", f.tag, thing)
			}
		}
	}
}

func TestSnapshotFormatIsThatOfEachRelease(t *testing.T) {
	t.Parallel()
	for _, f := range facts(t) {
		if got, ok := SnapshotFormat(f.version); !ok || got != f.snapshot {
			t.Errorf("%s: %v, %v, want %v", f.tag, got, ok, f.snapshot)
		}
	}
	for _, v := range []Version{{}, {1, 6, 0}, {1, 18, 0}, {2, 0, 0}} {
		if got, ok := SnapshotFormat(v); ok || got != (Version{}) {
			t.Errorf("%v: %v, %v, want none", v, got, ok)
		}
	}
}

func TestFormatsLoadWithinTheirMajor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		own, written Version
		want         bool
	}{
		{Version{8, 0, 0}, Version{8, 0, 0}, true},
		{Version{8, 1, 0}, Version{8, 0, 3}, true},
		{Version{8, 0, 3}, Version{8, 1, 0}, false},
		{Version{9, 0, 0}, Version{8, 0, 0}, false},
		{Version{8, 0, 0}, Version{9, 0, 0}, false},
	} {
		if got := LoadsFormat(c.own, c.written); got != c.want {
			t.Errorf("%v loads %v: %v", c.own, c.written, got)
		}
	}
}

func TestUntrackedDiffsCameWhereTheChangelogSaysSo(t *testing.T) {
	t.Parallel()
	came := false
	for _, f := range facts(t) {
		came = came || strings.Contains(f.changelog, " 5274 ")
		if got := DiffsUntracked(f.version); got != came {
			t.Errorf("%s: %v, by the changelog %v", f.tag, got, came)
		}
	}
}

// Every released tag of the lines that the table covers is among the facts: a
// hole would hide what a release has brought.
func TestFactsHaveNoHoles(t *testing.T) {
	t.Parallel()
	all := facts(t)
	for i, f := range all[1:] {
		last := all[i].version
		patch := f.version == Version{last.Major, last.Minor, last.Patch + 1}
		line := f.version == Version{last.Major, last.Minor + 1, 0}
		if !patch && !line {
			t.Errorf("%s comes after %v", f.tag, last)
		}
	}
}

// structFields names the fields that a value of a type can send.
func structFields(prefix, sep string, typ reflect.Type) []string {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}
	if typ.Kind() != reflect.Struct {
		return nil
	}
	var all []string
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			name = f.Name
		}
		at := prefix + sep + name
		all = append(all, at)
		all = append(all, structFields(at, ".", f.Type)...)
	}
	return all
}

// TestTableAndTypesHaveTheSameFields takes the types of all requests from the
// table of calls, which another test keeps complete.
func TestTableAndTypesHaveTheSameFields(t *testing.T) {
	t.Parallel()
	ours := map[string]bool{}
	for _, tt := range calls() {
		method, rest, _ := strings.Cut(tt.wire, " ")
		path, _, _ := strings.Cut(rest, " ")
		endpoint := Request{Method: method, Path: path}.endpoint()
		ours[endpoint] = true
		if tt.request != nil && tt.request.Body != nil {
			for _, name := range structFields(endpoint, " ", reflect.TypeOf(tt.request.Body)) {
				ours[name] = true
			}
		}
	}
	table := map[string]bool{}
	for thing := range tableSays() {
		if !strings.Contains(thing, "=") {
			table[thing] = true
		}
	}
	if diff := cmp.Diff(table, ours); diff != "" {
		t.Errorf("endpoints and fields (-table +types):\n%s", diff)
	}
	if len(ours) < 200 {
		t.Errorf("only %d endpoints and fields", len(ours))
	}
}

func TestDefectsAreMendedWhereTheChangelogSaysSo(t *testing.T) {
	t.Parallel()
	// The changelogs of branches give it no number; its text is the same.
	unnumbered := map[DefectID][]Version{DefectPCIDeviceStatus: {{1, 14, 4}, {1, 15, 1}}}
	all := facts(t)
	seen := map[DefectID]bool{}
	for _, d := range defects {
		if seen[d.ID] || d.ID == "" || d.Summary == "" {
			t.Errorf("%q has no name or no text of its own", d.ID)
		}
		seen[d.ID] = true
		if (len(d.Pulls) == 0) != (len(d.FixedIn) == 0) || len(d.Pulls) == 0 && d.Since == (Version{}) {
			t.Errorf("%s has no source", d.ID)
		}
		named := slices.Clone(unnumbered[d.ID])
		for _, f := range all {
			for _, pull := range d.Pulls {
				if strings.Contains(f.changelog, fmt.Sprintf(" %d ", pull)) && !slices.Contains(named, f.version) {
					named = append(named, f.version)
				}
			}
		}
		slices.SortFunc(named, Version.Compare)
		if !slices.Equal(named, d.FixedIn) {
			t.Errorf("%s: mended in %v, by the changelogs in %v", d.ID, d.FixedIn, named)
		}
		if len(d.FixedIn) > 0 && d.Since.AtLeast(d.FixedIn[len(d.FixedIn)-1]) {
			t.Errorf("%s: mended in %v, before it came in %v", d.ID, d.FixedIn, d.Since)
		}
	}
}

func TestDefectsCameWithTheReleaseWhoseSourcesHaveThem(t *testing.T) {
	t.Parallel()
	all := facts(t)
	brought := map[DefectID]Version{}
	for i, f := range all {
		for _, id := range f.brings {
			brought[id] = f.version
		}
		// What is one format by its name and another by its contents is noticed by
		// the release that mends it.
		if i > 0 && strings.Contains(f.changelog, " 4907 ") {
			brought[DefectSnapshotFormat] = all[i-1].version
		}
	}
	// Seen there, and nobody has looked at older ones.
	brought[DefectAPIStuckAtGuestEnd] = Version{1, 16, 1}
	for _, d := range defects {
		if d.Since != brought[d.ID] {
			t.Errorf("%s: since %v, by the sources %v", d.ID, d.Since, brought[d.ID])
		}
		delete(brought, d.ID)
	}
	if len(brought) > 0 {
		t.Errorf("not in the table: %v", brought)
	}
}

func TestKnownDefectsAreThoseOfTheRelease(t *testing.T) {
	t.Parallel()
	ids := func(v Version) []DefectID {
		var all []DefectID
		for _, d := range KnownDefects(v) {
			all = append(all, d.ID)
		}
		return all
	}
	want := []DefectID{DefectAPIStuckAtGuestEnd, DefectVsockMuteAfterResume, DefectVsockSpins, DefectLoggerDeadlock, DefectHotplugSizeWraps, DefectTemplatesOnNewKernels}
	if diff := cmp.Diff(want, ids(Version{1, 16, 1})); diff != "" {
		t.Errorf("1.16.1 (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[:1], ids(Version{1, 17, 0})); diff != "" {
		t.Errorf("1.17.0 (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		id   DefectID
		has  []Version
		lack []Version
	}{
		{DefectVsockDeadOnRestore, []Version{{1, 16, 0}}, []Version{{1, 15, 1}, {1, 16, 1}}},
		{DefectDiffMemoryCorrupt, []Version{{1, 14, 0}, {1, 14, 1}}, []Version{{1, 13, 2}, {1, 14, 2}, {1, 15, 0}}},
		{DefectClockJumpsOnRestore, []Version{{1, 7, 0}, {1, 14, 3}, {1, 15, 0}}, []Version{{1, 14, 4}, {1, 15, 1}, {1, 16, 0}}},
		{DefectSnapshotFormat, []Version{{1, 10, 0}}, []Version{{1, 9, 1}, {1, 10, 1}}},
	} {
		for _, v := range tt.has {
			if !HasDefect(v, tt.id) {
				t.Errorf("%v does not have %s", v, tt.id)
			}
		}
		for _, v := range tt.lack {
			if HasDefect(v, tt.id) {
				t.Errorf("%v has %s", v, tt.id)
			}
		}
	}
	found := KnownDefects(Version{1, 16, 1})
	found[1].FixedIn[0], found[1].Pulls[0] = Version{}, 0
	if d := KnownDefects(Version{1, 16, 1})[1]; d.FixedIn[0] != (Version{1, 17, 0}) || d.Pulls[0] != 6100 {
		t.Errorf("the table was changed through a result: %v", d)
	}
}
