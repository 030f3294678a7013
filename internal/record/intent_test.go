package record

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

func TestIntentsAreWrittenInPlace(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	l := locked(t, s, "a")
	path := filepath.Join(l.Dir, intentFile)
	used := map[uint64]bool{}
	for range 3 { // verbs
		for _, mode := range []microvm.StopMode{microvm.StopModeHibernate, "", microvm.StopModePause} { // of different lengths
			want := Intent{Verb: "stop", UID: "01", Mode: mode}
			must(t, l.SetIntent(want))
			must(t, l.SyncIntent())
			used[inode(t, path)] = true
			if got, err := s.Intent("a"); err != nil || got.Mode != want.Mode || got.Verb != want.Verb {
				t.Errorf("read %+v, %v; want %+v", got, err, want)
			}
		}
		must(t, l.ClearIntent())
		if got, err := s.Intent("a"); err != nil || got != nil {
			t.Errorf("after the verb: %+v, %v", got, err)
		}
		l.Unlock()
		var err error
		l, err = s.Lock(t.Context(), "a")
		must(t, err)
		if l.Intent != nil {
			t.Errorf("the next verb finds %+v", l.Intent)
		}
	}
	l.Unlock()
	if len(used) != 1 {
		t.Errorf("%d files were used", len(used))
	}
}

// What is longer than a page can't be written in place whole.
func TestALongIntentTakesThePlaceOfTheOneBefore(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	l := locked(t, s, "a")
	defer l.Unlock()
	path := filepath.Join(l.Dir, intentFile)
	short := Intent{Verb: "create", UID: "01"}
	long := short
	for range 100 {
		long.InPlace = append(long.InPlace, strings.Repeat("d", 100))
	}
	last := uint64(0)
	for i, want := range []Intent{short, long, long, short, short} {
		must(t, l.SetIntent(want))
		if got, err := s.Intent("a"); err != nil || !slices.Equal(got.InPlace, want.InPlace) {
			t.Errorf("intent %d: %v, %v", i, got, err)
		}
		if now := inode(t, path); (now == last) != (i == 4) {
			t.Errorf("intent %d is in file %d, after %d", i, now, last)
		}
		last = inode(t, path)
	}
	must(t, l.ClearIntent())
	if got, err := s.Intent("a"); err != nil || got != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// A query reads it while a verb writes it.
func TestNobodyReadsHalfAnIntent(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	l := locked(t, s, "a")
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				in, err := s.Intent("a")
				if err != nil || in != nil && (in.UID != "01" || in.Verb != "stop" && in.Verb != "destroy") {
					t.Errorf("%+v, %v", in, err)
					return
				}
			}
		})
	}
	for i := range 3000 {
		in := Intent{Verb: "stop", UID: "01", Mode: microvm.StopModeHibernate}
		if i%2 == 0 {
			in = Intent{Verb: "destroy", UID: "01"}
		}
		must(t, l.SetIntent(in))
		if i%3 == 0 {
			must(t, l.ClearIntent())
		}
	}
	close(done)
	readers.Wait()
	l.Unlock()
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
