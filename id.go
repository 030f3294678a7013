package microvm

import (
	"fmt"
	"regexp"
	"strings"
)

// MaxIDLength is the longest id of a VM or name of a snapshot, in bytes.
const MaxIDLength = 64

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

const idRule = "1 to 64 of letters, digits, '.', '_' and '-', beginning with a letter or digit, without '..'"

// ValidateID checks the id of a VM: 1 to 64 ASCII letters, digits, '.', '_' and
// '-', the first a letter or digit, and no "..". A bad id is a *FieldError
// (ErrInvalidSpec); ids are never rewritten.
func ValidateID(id string) error { return validateName("id", id) }

// ValidateSnapshotID checks the name of a snapshot, by the rule of ValidateID.
func ValidateSnapshotID(name string) error { return validateName("snapshot", name) }

func validateName(field, s string) error {
	if idPattern.MatchString(s) && !strings.Contains(s, "..") && !strings.HasSuffix(s, "\n") {
		return nil
	}
	return &FieldError{Field: field, Value: fmt.Sprintf("%.80q", s), Rule: idRule}
}
