//go:build !linux

package fcapi

import (
	"strings"
	"testing"
)

func TestSocketPathThatIsTooLongIsAClearError(t *testing.T) {
	t.Parallel()
	err := New("/" + strings.Repeat("x", 200)).Pause(t.Context())
	if err == nil || !strings.Contains(err.Error(), "201 bytes") {
		t.Errorf("err = %v, want one that names the length", err)
	}
}
