package record

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tangle-network/microvm"
)

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "vms"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// create makes a VM with a record, unlocked.
func create(t *testing.T, s *Store, id, uid string) {
	t.Helper()
	l, err := s.Reserve(t.Context(), id, Intent{Verb: "create", UID: uid})
	must(t, err)
	defer l.Unlock()
	l.Rec = &Record{UID: uid, Status: microvm.StatusCreated}
	must(t, l.Save())
	must(t, l.ClearIntent())
}

func TestAReservedNameIsTakenAndHasNoRecordYet(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	l, err := s.Reserve(t.Context(), "a", Intent{Verb: "create", UID: "01"})
	must(t, err)
	defer l.Unlock()
	if _, err := s.Reserve(t.Context(), "a", Intent{Verb: "create", UID: "02"}); !errors.Is(err, microvm.ErrVMExists) {
		t.Errorf("a second reservation: %v", err)
	}
	if _, err := s.Load("a"); !errors.Is(err, microvm.ErrVMNotFound) {
		t.Errorf("a query: %v", err)
	}
	if got, err := s.TryLock("a"); got != nil || err != nil {
		t.Errorf("recovery got the lock of a creation in flight: %v, %v", got, err)
	}
	if left, err := s.Leftovers(); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestACreationThatWasCutOffShowsItsIntent(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	l, err := s.Reserve(t.Context(), "a", Intent{Verb: "create", UID: "01"})
	must(t, err)
	l.Unlock() // the program has died
	l, err = s.TryLock("a")
	must(t, err)
	if l.Rec != nil || l.Intent == nil || l.Intent.UID != "01" {
		t.Fatalf("record %v, intent %v", l.Rec, l.Intent)
	}
	must(t, l.Remove())
	l.Unlock()
	create(t, s, "a", "02")
}

func TestTheRecordIsReadBackAsItWasSaved(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	create(t, s, "a", "01")
	l, err := s.Lock(t.Context(), "a")
	must(t, err)
	code := 1
	l.Rec.Status, l.Rec.StopReason = microvm.StatusStopped, &microvm.StopReason{Cause: microvm.StopGuest, ExitCode: &code}
	l.Rec.Process = &Process{PID: 7, StartTime: 8, BootID: "b", Version: "1.16.1"}
	must(t, l.Save())
	want := *l.Rec
	l.Unlock()
	for range 2 { // the second comes from the cache
		got, err := s.Load("a")
		must(t, err)
		if diff := cmp.Diff(want, *got); diff != "" {
			t.Error(diff)
		}
	}
	other, err := Open(s.Root())
	must(t, err)
	got, err := other.Load("a")
	must(t, err)
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Errorf("another program sees\n%s", diff)
	}
}

func TestARenameKeepsTheLockAndTheOldNameIsFree(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	create(t, s, "a", "01")
	create(t, s, "taken", "02")
	l, err := s.Lock(t.Context(), "a")
	must(t, err)
	if err := l.Rename("taken"); !errors.Is(err, microvm.ErrVMExists) {
		t.Fatalf("onto a used name: %v", err)
	}
	must(t, l.SetIntent(Intent{Verb: "rename", UID: "01", NewID: "b"}))
	must(t, l.Rename("b"))
	// Cut here, the directory's name and the intent tell the new id.
	if rec, err := s.Load("b"); err != nil || rec.ID != "b" {
		t.Fatalf("%v, %v", rec, err)
	}
	if got, err := s.TryLock("b"); got != nil || err != nil {
		t.Errorf("the lock was lost by the rename: %v, %v", got, err)
	}
	must(t, l.Save())
	must(t, l.ClearIntent())
	l.Unlock()
	create(t, s, "a", "03")
	ids, err := s.IDs()
	must(t, err)
	if diff := cmp.Diff([]string{"a", "b", "taken"}, ids); diff != "" {
		t.Error(diff)
	}
}

func TestALockWaitsUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	other, err := Open(s.Root()) // as another program
	must(t, err)
	create(t, s, "a", "01")
	l, err := s.Lock(t.Context(), "a")
	must(t, err)
	for _, store := range []*Store{s, other} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := store.Lock(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		cancel()
	}
	l.Unlock()
	l, err = other.Lock(t.Context(), "a")
	must(t, err)
	l.Unlock()
	if len(s.locks) != 0 || len(other.locks) != 0 {
		t.Errorf("locks are kept: %v, %v", s.locks, other.locks)
	}
}

func TestWhoWaitsForAVMThatGoesAwayIsTold(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	create(t, s, "a", "01")
	l, err := s.Lock(t.Context(), "a")
	must(t, err)
	other, err := Open(s.Root())
	must(t, err)
	got := make(chan error, 2)
	for _, store := range []*Store{s, other} {
		go func() {
			l, err := store.Lock(context.Background(), "a")
			if err == nil {
				l.Unlock()
			}
			got <- err
		}()
	}
	time.Sleep(10 * time.Millisecond) // lets them come to the lock; the result is the same if they do not
	must(t, l.Remove())
	l.Unlock()
	for range 2 {
		if err := <-got; !errors.Is(err, microvm.ErrVMNotFound) {
			t.Errorf("%v", err)
		}
	}
}

func TestOneVMHasOneVerbAtATimeAlsoAcrossPrograms(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	other, err := Open(s.Root())
	must(t, err)
	create(t, s, "a", "01")
	var holders, most atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		store := []*Store{s, other}[i%2]
		wg.Go(func() {
			for range 20 {
				l, err := store.Lock(context.Background(), "a")
				if err != nil {
					t.Error(err)
					return
				}
				if n := holders.Add(1); n > most.Load() {
					most.Store(n)
				}
				l.Rec.SnapshotSeq++
				if err := l.Save(); err != nil {
					t.Error(err)
				}
				holders.Add(-1)
				l.Unlock()
			}
		})
	}
	wg.Wait()
	rec, err := s.Load("a")
	must(t, err)
	if most.Load() != 1 || rec.SnapshotSeq != 16*20 {
		t.Errorf("%d at a time, %d of 320 changes are left", most.Load(), rec.SnapshotSeq)
	}
}

func TestOneOfManyReservationsWins(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			l, err := s.Reserve(context.Background(), "a", Intent{Verb: "create", UID: fmt.Sprintf("%02x", i)})
			switch {
			case err == nil:
				won.Add(1)
				l.Unlock()
			case !errors.Is(err, microvm.ErrVMExists):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d won", won.Load())
	}
	if left, err := s.Leftovers(); err != nil || len(left) != 0 {
		t.Errorf("losers have left %v, %v", left, err)
	}
}

// One bad file must neither hide the others nor be lost.
func TestABadRecordIsSetAsideAndItsNameStaysTaken(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "outside.json")
	must(t, os.WriteFile(outside, []byte(`{"format":1,"uid":"01","id":"bad"}`), 0o600))
	for name, damage := range map[string]func(path string) error{
		"empty":                      func(p string) error { return os.Truncate(p, 0) },
		"half":                       func(p string) error { return os.Truncate(p, 20) },
		"a newer format":             func(p string) error { return os.WriteFile(p, []byte(`{"format":99,"uid":"01","id":"bad"}`), 0o600) },
		"another id":                 func(p string) error { return os.WriteFile(p, []byte(`{"format":1,"uid":"01","id":"good"}`), 0o600) },
		"a uid that is a path":       func(p string) error { return os.WriteFile(p, []byte(`{"format":1,"uid":"../..","id":"bad"}`), 0o600) },
		"a link out of the state":    func(p string) error { return errors.Join(os.Remove(p), os.Symlink(outside, p)) },
		"a directory in its place":   func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
		"more than can be a record":  func(p string) error { return os.Truncate(p, maxBytes+1) },
		"something that is not JSON": func(p string) error { return os.WriteFile(p, []byte("\x00\x01"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t)
			create(t, s, "good", "02")
			create(t, s, "bad", "01")
			must(t, damage(filepath.Join(s.Dir("bad"), FileName)))
			if _, err := s.Load("bad"); !errors.Is(err, ErrUnreadable) {
				t.Errorf("Load: %v", err)
			}
			if _, err := s.Lock(t.Context(), "bad"); !errors.Is(err, ErrUnreadable) {
				t.Errorf("Lock: %v", err)
			}
			if _, err := s.Reserve(t.Context(), "bad", Intent{UID: "03"}); !errors.Is(err, microvm.ErrVMExists) {
				t.Errorf("Reserve: %v", err)
			}
			if _, err := s.Load("good"); err != nil {
				t.Errorf("the other one: %v", err)
			}
		})
	}
}

func TestAnIntentThatACrashHasEmptiedIsStillAnIntent(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	create(t, s, "a", "01")
	must(t, os.WriteFile(filepath.Join(s.Dir("a"), intentFile), nil, 0o600))
	l, err := s.Lock(t.Context(), "a")
	must(t, err)
	defer l.Unlock()
	if l.Intent == nil || l.Intent.Verb != "" {
		t.Errorf("%+v", l.Intent)
	}
}

func TestNothingButVMsIsListed(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	create(t, s, "b", "01")
	create(t, s, "a", "02")
	must(t, os.Mkdir(filepath.Join(s.Root(), ".new-03"), 0o700))
	must(t, os.WriteFile(filepath.Join(s.Root(), "file"), nil, 0o600))
	must(t, os.Symlink("a", filepath.Join(s.Root(), "link")))
	ids, err := s.IDs()
	must(t, err)
	if diff := cmp.Diff([]string{"a", "b"}, ids); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Lock(t.Context(), "link"); !errors.Is(err, microvm.ErrVMNotFound) {
		t.Errorf("a link was followed: %v", err)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"format":1,"uid":"01","id":"a","status":"running","process":{"pid":1}}`))
	f.Add([]byte(`{"format":1,"uid":"01","id":"a","spec":{"drives":[{"id":"x"}]}}`))
	dir := f.TempDir()
	s, err := Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "a"), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		must(t, os.WriteFile(filepath.Join(dir, "a", FileName), b, 0o600))
		rec, err := s.read("a", false)
		if err != nil {
			if !errors.Is(err, ErrUnreadable) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		if rec.ID != "a" || rec.UID == "" || validUID(rec.UID) != nil {
			t.Fatalf("accepted: %+v", rec)
		}
	})
}

// Who opens the directory before it goes, and its lock after, must not keep it.
func TestAVMIsRemovedUnderTheEyesOfOthers(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	other, err := Open(s.Root())
	must(t, err)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if l, err := other.TryLock("a"); err == nil && l != nil {
					l.Unlock()
				}
			}
		})
	}
	for range 15 {
		create(t, s, "a", "01")
		l, err := s.Lock(t.Context(), "a")
		must(t, err)
		if err := l.Remove(); err != nil {
			t.Error(err)
		}
		l.Unlock()
	}
	close(stop)
	wg.Wait()
	if left, err := s.Leftovers(); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
