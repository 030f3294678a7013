package fcapi

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Version is a release of Firecracker. It can be compared with ==.
type Version struct{ Major, Minor, Patch int }

const (
	maxVersion = 64 // bytes of text
	maxDigits  = 5  // of each number
)

// ParseVersion understands what GET /version, firecracker --version (its word
// after "Firecracker ") and the repository's tags call a release: "1.16.1",
// "v1.7.0", "1.17.0-dev". What follows a "-" or "+" is dropped, so a development
// build counts as the release that it will become. Text of more than 64 bytes,
// numbers of more than 5 digits or with needless zeros, and characters outside
// A-Z, a-z, 0-9, "-", "+" and "." are ErrInvalidVersion.
func ParseVersion(s string) (Version, error) {
	wrong := func(why string) (Version, error) {
		return Version{}, fmt.Errorf("%w: %.*q: %s; want one like 1.16.1", ErrInvalidVersion, maxVersion, s, why)
	}
	if len(s) > maxVersion {
		return wrong(fmt.Sprintf("%d bytes are more than %d", len(s), maxVersion))
	}
	numbers := strings.TrimPrefix(s, "v")
	if i := strings.IndexAny(numbers, "-+"); i >= 0 {
		suffix := numbers[i+1:]
		if suffix == "" {
			return wrong("nothing behind the last sign")
		}
		for j := range len(suffix) {
			c := suffix[j]
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '+' || c == '.') {
				return wrong("a character that no version has")
			}
		}
		numbers = numbers[:i]
	}
	parts := strings.Split(numbers, ".")
	if len(parts) != 3 {
		return wrong("not three numbers")
	}
	var n [3]int
	for i, p := range parts {
		if p == "" || len(p) > maxDigits || strings.Trim(p, "0123456789") != "" || p[0] == '0' && len(p) > 1 {
			return wrong(fmt.Sprintf("%q is not a number of up to %d digits", p, maxDigits))
		}
		var err error
		if n[i], err = strconv.Atoi(p); err != nil {
			return wrong(err.Error())
		}
	}
	return Version{n[0], n[1], n[2]}, nil
}

// String returns the release as "1.16.1", which ParseVersion understands.
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// Compare returns -1, 0 or 1 when v is before, the same as or after w.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor), cmp.Compare(v.Patch, w.Patch))
}

// AtLeast reports whether v is w or newer.
func (v Version) AtLeast(w Version) bool { return v.Compare(w) >= 0 }

// beyondTable reports whether v belongs to a release line that the version
// table knows nothing of.
func (v Version) beyondTable() bool {
	return v.Major > newest.Major || v.Major == newest.Major && v.Minor > newest.Minor
}

// releases are those that brought something, oldest first: the last one to
// itself and all that are newer, those before it, to which it was carried back,
// only to the patch releases of their own line. None means oldest.
type releases []Version

func (r releases) or() releases {
	if len(r) == 0 {
		return releases{oldest}
	}
	return r
}

// has reports whether v has what r brought.
func (r releases) has(v Version) bool {
	r = r.or()
	last := len(r) - 1
	for _, since := range r[:last] {
		if v.Major == since.Major && v.Minor == since.Minor && v.Patch >= since.Patch {
			return true
		}
	}
	return v.AtLeast(r[last])
}

// String is like "1.14.4, 1.15.1 or 1.16.0".
func (r releases) String() string {
	var b strings.Builder
	for i, v := range r {
		switch {
		case i > 0 && i == len(r)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(v.String())
	}
	return b.String()
}
