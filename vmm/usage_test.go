package vmm

import (
	"errors"
	"testing"
	"time"
)

func TestUsageOfAProcessAndOfItsChildren(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	// The shell works itself, and so does its child.
	p := start(t, w, Command{Path: "/bin/sh", Args: []string{"-c", "while :; do :; done & while :; do :; done"}})
	var own, children Usage
	eventually(t, "both have used time", func() bool {
		var err error
		if own, err = p.Usage(); err != nil {
			t.Fatal(err)
		}
		if children, err = p.ChildrenUsage(); err != nil {
			t.Fatal(err)
		}
		return own.CPUTime > 0 && children.CPUTime > 0
	})
	for _, u := range []Usage{own, children} {
		if u.ResidentBytes < 4096 || u.ResidentBytes > 1<<30 || u.CPUTime%(10*time.Millisecond) != 0 {
			t.Errorf("%+v", u)
		}
	}
	after, err := p.Usage()
	if err != nil || after.CPUTime < own.CPUTime {
		t.Errorf("%v, %+v after %+v", err, after, own)
	}
	idle := start(t, w, sleeper())
	if u, err := idle.ChildrenUsage(); err != nil || u != (Usage{}) {
		t.Errorf("children of a process without any: %+v, %v", u, err)
	}
}

func TestUsageOfADeadProcessIsGone(t *testing.T) {
	t.Parallel()
	w := newWatcher(t)
	p := start(t, w, sleeper())
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	waitDone(t, p)
	if u, err := p.Usage(); !errors.Is(err, ErrGone) {
		t.Errorf("%+v, %v", u, err)
	}
	// Another process has its pid.
	other := start(t, w, sleeper())
	stranger := &Process{id: Identity{PID: other.PID(), StartTime: other.id.StartTime + 1}}
	if u, err := stranger.Usage(); !errors.Is(err, ErrGone) {
		t.Errorf("%+v, %v", u, err)
	}
}
