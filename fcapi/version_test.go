package fcapi

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParseVersionUnderstandsWhatFirecrackerIsCalled(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]Version{
		"1.16.1":                      {1, 16, 1},
		"v1.7.0":                      {1, 7, 0},
		"1.17.0-dev":                  {1, 17, 0},
		"1.16.1-fcemu":                {1, 16, 1},
		"1.13.0-dev-12-g0a1b2c-dirty": {1, 13, 0},
		"1.14.0+build.5":              {1, 14, 0},
		"0.25.2":                      {0, 25, 2},
		"99999.99999.99999":           {99999, 99999, 99999},
	} {
		if v, err := ParseVersion(s); err != nil || v != want {
			t.Errorf("%q: %v, %v, want %v", s, v, err, want)
		}
	}
}

func TestParseVersionRefusesEverythingElse(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "v", "1", "1.16", "1.16.", ".16.1", "1..1", "1.16.1.2", "1.16.1-", "1.16.1 ", " 1.16.1", "V1.16.1", "vv1.16.1",
		"1.-16.1", "+1.16.1", "-1.16.1", "1.0x10.1", "1.1_6.1", "1.٣.1", "01.16.1", "1.016.1", "1.16.100000",
		"99999999999999999999.1.1", "1.16.1-\n", "1.16.1-ä", "1.16.1-a b", "Firecracker v1.16.1", "1.16.1\x00",
		"1.16.1-" + strings.Repeat("a", maxVersion),
	} {
		v, err := ParseVersion(s)
		if !errors.Is(err, ErrInvalidVersion) || v != (Version{}) {
			t.Errorf("%q: %v, %v, want ErrInvalidVersion", s, v, err)
		}
		if err != nil && len(err.Error()) > 5*maxVersion {
			t.Errorf("%q: an error of %d bytes", s, len(err.Error()))
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	for _, s := range []string{"1.16.1", "v1.7.0", "1.17.0-dev", "1.16.1-fcemu", "", "1.16", "1.016.1", "1.2.3+", "\xff.1.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVersion(s)
		if err != nil {
			if !errors.Is(err, ErrInvalidVersion) || len(err.Error()) > 1000 {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if v.Major < 0 || v.Minor < 0 || v.Patch < 0 || v.Major > 99999 || v.Minor > 99999 || v.Patch > 99999 {
			t.Fatalf("%q: %v", s, v)
		}
		if !strings.HasPrefix(strings.TrimPrefix(s, "v"), v.String()) {
			t.Fatalf("%q is taken for %v", s, v)
		}
		if again, err := ParseVersion(v.String()); err != nil || again != v {
			t.Fatalf("%v: %v, %v", v, again, err)
		}
	})
}

func TestVersionsAreOrderedByNumber(t *testing.T) {
	t.Parallel()
	sorted := []Version{{}, {0, 25, 2}, {1, 7, 0}, {1, 9, 0}, {1, 9, 1}, {1, 10, 0}, {1, 16, 1}, {1, 16, 10}, {2, 0, 0}}
	for i, v := range sorted {
		for j, w := range sorted {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := v.Compare(w); got != want {
				t.Errorf("%v compared with %v: %d, want %d", v, w, got, want)
			}
			if v.AtLeast(w) != (want >= 0) {
				t.Errorf("%v at least %v: %v", v, w, v.AtLeast(w))
			}
		}
	}
	shuffled := []Version{{2, 0, 0}, {1, 9, 1}, {1, 10, 0}}
	slices.SortFunc(shuffled, Version.Compare)
	if want := []Version{{1, 9, 1}, {1, 10, 0}, {2, 0, 0}}; !slices.Equal(shuffled, want) {
		t.Error(shuffled)
	}
}

func TestWhatWasCarriedBackIsOnlyInItsLines(t *testing.T) {
	t.Parallel()
	r := releases{{1, 14, 4}, {1, 15, 1}, {1, 16, 0}}
	for v, want := range map[Version]bool{
		{1, 13, 9}: false, {1, 14, 3}: false, {1, 14, 4}: true, {1, 14, 5}: true, {1, 15, 0}: false, {1, 15, 1}: true,
		{1, 16, 0}: true, {1, 16, 1}: true, {1, 18, 0}: true, {2, 0, 0}: true, {0, 14, 4}: false, {2, 14, 4}: true,
	} {
		if got := r.has(v); got != want {
			t.Errorf("%v: %v, want %v", v, got, want)
		}
	}
	if got := r.String(); got != "1.14.4, 1.15.1 or 1.16.0" {
		t.Error(got)
	}
}
