package record

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
)

// locked is a VM with a record, in the hands of a verb.
func locked(t *testing.T, s *Store, id string) *Locked {
	t.Helper()
	create(t, s, id, "01")
	l, err := s.Lock(t.Context(), id)
	must(t, err)
	return l
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Ino
}

func TestAPreparedRecordIsSeenOnlyOnceItIsSaved(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	l := locked(t, s, "a")
	defer l.Unlock()
	next := *l.Rec
	next.Status = microvm.StatusRunning
	l.Prepare(next)
	<-l.draft.written
	must(t, l.draft.err)
	if got, err := s.Load("a"); err != nil || got.Status != microvm.StatusCreated {
		t.Errorf("before Save: %+v, %v", got, err)
	}
	prepared := inode(t, nextName(l.Dir, FileName))
	l.Rec.Status = microvm.StatusRunning
	must(t, l.Save())
	if got, err := s.Load("a"); err != nil || got.Status != microvm.StatusRunning {
		t.Errorf("after Save: %+v, %v", got, err)
	}
	if got := inode(t, filepath.Join(l.Dir, FileName)); got != prepared {
		t.Errorf("the file that was prepared (inode %d) was not used (%d)", prepared, got)
	}
}

func TestARecordThatHasBecomeAnotherIsWrittenAnew(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	l := locked(t, s, "a")
	defer l.Unlock()
	next := *l.Rec
	next.Status = microvm.StatusRunning
	l.Prepare(next)
	l.Rec.Status, l.Rec.Trouble = microvm.StatusStopped, "it came otherwise"
	must(t, l.Save())
	if got, err := s.Load("a"); err != nil || got.Status != microvm.StatusStopped || got.Trouble != l.Rec.Trouble {
		t.Errorf("read %+v, %v", got, err)
	}
}

func TestADraftThatNobodySavesIsGoneWithTheLock(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	l := locked(t, s, "a")
	next := *l.Rec
	next.Status = microvm.StatusRunning
	l.Prepare(next)
	l.Prepare(next) // the second takes the place of the first
	l.Unlock()
	if _, err := os.Lstat(nextName(l.Dir, FileName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the draft is left over: %v", err)
	}
	if got, err := s.Load("a"); err != nil || got.Status != microvm.StatusCreated {
		t.Errorf("read %+v, %v", got, err)
	}
}

// A disk that was full when the draft was written may have room again.
func TestASaveDoesNotDependOnItsDraft(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	l := locked(t, s, "a")
	defer l.Unlock()
	block := nextName(l.Dir, FileName)
	must(t, os.Mkdir(block, 0o700))
	next := *l.Rec
	next.Status = microvm.StatusRunning
	l.Prepare(next)
	<-l.draft.written
	if l.draft.err == nil {
		t.Fatal("the draft was written over a directory")
	}
	l.Rec.Status = microvm.StatusRunning
	if _, err := os.Lstat(block); err == nil {
		must(t, os.Remove(block))
	}
	must(t, l.Save())
	if got, err := s.Load("a"); err != nil || got.Status != microvm.StatusRunning {
		t.Errorf("read %+v, %v", got, err)
	}
}
