package record

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tangle-network/microvm"
)

func entries(t *testing.T, dir string) []string {
	t.Helper()
	es, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

func TestIntentsTakeTurnsInTheSameTwoFiles(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	l := locked(t, s, "a")
	defer l.Unlock()
	path := filepath.Join(l.Dir, intentFile)
	used := map[uint64]bool{}
	for range 3 { // verbs
		for _, mode := range []microvm.StopMode{microvm.StopModeHibernate, "", microvm.StopModePause} { // of different lengths
			want := Intent{Verb: "stop", UID: "01", Mode: mode}
			must(t, l.SetIntent(want))
			used[inode(t, path)] = true
			if got, err := s.Intent("a"); err != nil || got.Mode != want.Mode || got.Verb != want.Verb {
				t.Errorf("read %+v, %v; want %+v", got, err, want)
			}
		}
		must(t, l.ClearIntent())
		if got, err := s.Intent("a"); err != nil || got != nil {
			t.Errorf("after the verb: %+v, %v", got, err)
		}
	}
	// Each verb has two at a time; the second file of one may be gone for the next.
	if len(used) > 4 {
		t.Errorf("%d files were used", len(used))
	}
}

func TestADestroyedVMKeepsItsRecordAlone(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	l := locked(t, s, "a")
	defer l.Unlock()
	must(t, l.SetIntent(Intent{Verb: "destroy", UID: "01"}))
	must(t, l.SetIntent(Intent{Verb: "destroy", UID: "01", Stage: "destroy.killed"}))
	l.Rec.Status = microvm.StatusDestroyed
	must(t, l.Save())
	must(t, l.ClearIntent())
	if got, want := entries(t, l.Dir), []string{lockFile, FileName}; !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
}
