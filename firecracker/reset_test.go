package firecracker

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tangle-network/microvm"
)

func TestWhatACutResetOfTheVsockLeftGoes(t *testing.T) {
	t.Parallel()
	c := testConfig(t)
	c.NoRecovery = true
	r := open(t, c)
	start(t, r, "a", microvm.Spec{})
	must(t, r.StopVM(bg, "a"))
	killedAt(t, c, string(fpStartIntended), step{Verb: "start", ID: "a"})
	path := filepath.Join(r.store.Dir("a"), runName, resetFile)
	must(t, os.WriteFile(path, []byte("devices"), 0o600))
	_, err := r.Recover(bg, RecoverOptions{})
	must(t, err)
	if isThere(path) {
		t.Errorf("%s is left", path)
	}
	must(t, r.StartVM(bg, "a"))
}
