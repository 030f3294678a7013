package vmm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func inotifyInstances(t *testing.T) int {
	t.Helper()
	n := 0
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && to == "anon_inode:inotify" {
			n++
		}
	}
	return n
}

func waits(w *Watcher) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.waiting)
}

// A user has 128 inotify instances by default: not one for each start.
func TestAllWaitsShareOneInotifyInstance(t *testing.T) {
	before := inotifyInstances(t)
	w := newWatcher(t)
	p := start(t, w, sleeper())
	shared := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 40 {
		dir := shared
		if i%2 == 0 {
			dir = t.TempDir()
		}
		wg.Go(func() {
			if err := WaitReady(ctx, p, dir, "a.sock"); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	eventually(t, "all wait", func() bool { return waits(w) == 21 })
	if n := inotifyInstances(t); n != before+1 {
		t.Errorf("%d inotify instances, before %d", n, before)
	}
	cancel()
	wg.Wait()
	if n := waits(w); n != 0 {
		t.Errorf("%d directories are still watched", n)
	}
}

func TestWaitReadySeesASocketThatIsMovedIntoPlace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, newWatcher(t), sleeper())
	listen(t, dir, "tmp")
	time.AfterFunc(10*time.Millisecond, func() {
		if err := os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, "a.sock")); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var used *SocketInUseError // by this test
	if err := WaitReady(ctx, p, dir, "a.sock"); !errors.As(err, &used) {
		t.Errorf("%v", err)
	}
}

// Without inotify, from the beginning or from some moment on, the wait looks
// again by time.
func TestWaitReadyWorksWithoutInotify(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before", "during", "closed"} {
		w := newWatcher(t)
		end := func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.stopInotify()
		}
		if when == "before" {
			end()
		}
		dir := t.TempDir()
		p := start(t, w, sleeper())
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		ready := make(chan error, 1)
		go func() { ready <- WaitReady(ctx, p, dir, "a.sock") }()
		switch when {
		case "during":
			eventually(t, "it waits", func() bool { return waits(w) == 1 })
			end()
		case "closed":
			eventually(t, "it waits", func() bool { return waits(w) == 1 })
			pid := p.PID()
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			id, err := Identify(pid)
			if err != nil {
				t.Fatal(err)
			}
			again := open(t, newWatcher(t), id)
			defer again.Stop(context.Background(), 0)
		}
		time.Sleep(5 * time.Millisecond)
		listen(t, dir, "a.sock")
		var used *SocketInUseError // by this test
		if err := <-ready; !errors.As(err, &used) {
			t.Errorf("%s: %v", when, err)
		}
	}
}

func TestADirectoryThatIsRemovedEndsNoOtherWait(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	p := start(t, w, sleeper())
	gone := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(gone, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- WaitReady(ctx, p, gone, "a.sock") }()
	eventually(t, "it waits", func() bool { return waits(w) == 1 })
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Fatalf("the wait ended: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	dir := t.TempDir()
	c := helperCommand(t, "serve a.sock 5ms")
	c.Dir = dir
	next := start(t, w, c)
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := WaitReady(ctx, next, dir, "a.sock"); err != nil {
		t.Error(err)
	}
	if err := WaitReady(ctx, next, gone, "a.sock"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// The socket may have been there long before.
func TestWaitReadyOfAProcessThatIsReady(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	dir := t.TempDir()
	c := helperCommand(t, "serve a.sock 0s")
	c.Dir = dir
	p := start(t, w, c)
	eventually(t, "it listens", func() bool { pid, err := SocketOwner(dir, "a.sock"); return err == nil && pid == p.PID() })
	for range 3 {
		if err := WaitReady(t.Context(), p, dir, "a.sock"); err != nil {
			t.Error(err)
		}
	}
	adopted := open(t, newWatcher(t), p.Identity())
	if err := WaitReady(t.Context(), adopted, dir, "a.sock"); err != nil {
		t.Errorf("adopted: %v", err)
	}
}
