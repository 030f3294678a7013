package record

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
)

// failing is a disk whose steps of one kind fail while it is broken. What is
// prepared is written by another goroutine: it is waited for before a change.
type failing struct {
	op     Op
	broken bool
}

func (f *failing) fault(op Op, _ string) error {
	if f.broken && op == f.op {
		return unix.EIO
	}
	return nil
}

// A record that could not be made durable is not seen, whatever step failed, and
// can be saved once the disk works again.
func TestARecordThatWasNotSavedIsTheOldOne(t *testing.T) {
	t.Parallel()
	for _, op := range []Op{OpWrite, OpSync, OpSyncDir} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			disk := &failing{op: op}
			s := openStore(t)
			s.FailWith(disk.fault)
			l := locked(t, s, "a")
			defer l.Unlock()
			before := entries(t, l.Dir)
			for _, prepared := range []bool{false, true} {
				l.Rec.Status = microvm.StatusRunning
				disk.broken = true
				if prepared {
					l.Prepare(*l.Rec)
				}
				if err := l.Save(); !errors.Is(err, unix.EIO) {
					t.Errorf("%v", err)
				}
				if got, err := s.Load("a"); err != nil || got.Status != microvm.StatusCreated {
					t.Errorf("it is seen: %+v, %v", got, err)
				}
				if got := entries(t, l.Dir); !slices.Equal(got, before) {
					t.Errorf("left: %v, before: %v", got, before)
				}
				disk.broken = false
				must(t, l.Save())
				if got, err := s.Load("a"); err != nil || got.Status != microvm.StatusRunning {
					t.Errorf("with a sound disk: %+v, %v", got, err)
				}
				l.Rec.Status = microvm.StatusCreated
				must(t, l.Save())
			}
		})
	}
}

func TestANewVMThatWasNotSavedHasNoRecord(t *testing.T) {
	t.Parallel()
	for _, op := range []Op{OpWrite, OpSync, OpSyncDir} {
		disk := &failing{op: op}
		s := openStore(t)
		s.FailWith(disk.fault)
		l, err := s.Reserve(t.Context(), "a", Intent{Verb: "create", UID: "01"})
		must(t, err)
		l.Rec = &Record{UID: "01", Status: microvm.StatusCreated}
		disk.broken = true
		if err := l.SaveNew(); !errors.Is(err, unix.EIO) {
			t.Errorf("%s: %v", op, err)
		}
		if got, err := s.Load("a"); !errors.Is(err, microvm.ErrVMNotFound) {
			t.Errorf("%s: it is seen: %+v, %v", op, got, err)
		}
		disk.broken = false
		must(t, l.SaveNew())
		l.Unlock()
	}
}

func TestANameThatDoesNotLastIsNotTaken(t *testing.T) {
	t.Parallel()
	disk := &failing{op: OpSyncDir}
	s := openStore(t)
	s.FailWith(disk.fault)
	l := locked(t, s, "a")
	defer l.Unlock()
	must(t, l.SetIntent(Intent{Verb: "rename", UID: "01", NewID: "b"}))
	disk.broken = true
	if err := l.Rename("b"); !errors.Is(err, unix.EIO) {
		t.Errorf("%v", err)
	}
	if ids, err := s.IDs(); err != nil || !slices.Equal(ids, []string{"a"}) || l.ID != "a" || l.Dir != s.Dir("a") {
		t.Errorf("%v, %v; held as %s in %s", ids, err, l.ID, l.Dir)
	}
	disk.broken = false
	must(t, l.Rename("b"))
	must(t, l.Save())
	if got, err := s.Load("b"); err != nil || got.ID != "b" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := os.Lstat(filepath.Join(s.Root(), "a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old name: %v", err)
	}
}
