package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/firecracker"
)

// order is what one operator's program does in a process of its own: what it
// needs for its VMs is then not mixed with what the benchmark needs.
type order struct {
	Do     string // make, adopt or destroy
	VMs    int
	Times  int
	Config firecracker.Config
}

const (
	atOnce  = 50 // VMs that are made or destroyed at a time
	queries = 50 // samples of each query
)

// run starts this program anew as an operator's, and takes its samples over.
func (o order) run(ctx context.Context, s *samples) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-operator", string(b))
	cmd.Env, cmd.Stderr = os.Environ(), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("operator that is to %s %d VMs: %w", o.Do, o.VMs, err)
	}
	got, err := readSamples(bytes.NewReader(out))
	if err != nil {
		return err
	}
	for _, one := range got.lines {
		s.add(one)
	}
	return nil
}

// operate is that program.
func operate(ctx context.Context, text string, out io.Writer) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	s := &samples{to: out}
	switch o.Do {
	case "make":
		return o.make(ctx, s)
	case "adopt":
		return o.adopt(ctx, s)
	case "destroy":
		return o.destroy(ctx, s)
	}
	return fmt.Errorf("no such order: %q", o.Do)
}

func vmName(i int) string { return "vm-" + strconv.Itoa(i) }

// make creates and starts the VMs, and weighs what they are to the program that
// made them.
func (o order) make(ctx context.Context, s *samples) error {
	r, err := firecracker.Open(ctx, o.Config)
	if err != nil {
		return err
	}
	before := weigh()
	for at := 0; at < o.VMs; at += atOnce {
		var ids []string
		for i := at; i < min(at+atOnce, o.VMs); i++ {
			ids = append(ids, vmName(i))
		}
		if err := each(ids, func(id string) error {
			return errors.Join(r.CreateVM(ctx, id), r.StartVM(ctx, id))
		}); err != nil {
			return errors.Join(err, r.Close())
		}
	}
	weigh().since(before, o.VMs, s, "made")
	return r.Close()
}

// adopt opens the state directory in which they run, several times.
func (o order) adopt(ctx context.Context, s *samples) error {
	for i := range o.Times {
		before := weigh()
		began := time.Now()
		r, err := firecracker.Open(ctx, o.Config)
		if err != nil {
			return err
		}
		s.time(1, time.Since(began), "Open", "running", o.VMs)
		weigh().since(before, o.VMs, s, "adopted")
		if i == 0 {
			err = ask(ctx, r, o.VMs, "running", s)
		}
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return nil
}

// ask takes the times of the queries. The first list reads all records.
func ask(ctx context.Context, r *firecracker.Runtime, vms int, state string, s *samples) error {
	for range max(5, queries*10/max(10, vms)) {
		began := time.Now()
		views, err := r.ListVMs(ctx)
		if err != nil {
			return err
		}
		if len(views) != vms {
			return fmt.Errorf("%d VMs are listed, not %d", len(views), vms)
		}
		s.time(1, time.Since(began), "ListVMs", state, vms)
	}
	for i := range queries {
		began := time.Now()
		v, err := r.GetVM(ctx, vmName(i*vms/queries))
		if err != nil {
			return err
		}
		s.time(1, time.Since(began), "GetVM", state, vms)
		if want := microvm.Status(state); v.Status != want {
			return fmt.Errorf("vm %q is %s, not %s", v.ID, v.Status, want)
		}
	}
	return nil
}

// destroy ends them, and looks itself whether they are gone.
func (o order) destroy(ctx context.Context, s *samples) error {
	r, err := firecracker.Open(ctx, o.Config)
	if err != nil {
		return err
	}
	one := func(id string) error {
		v, err := r.GetVM(ctx, id)
		if err != nil {
			return err
		}
		if err := r.DestroyVM(ctx, id); err != nil {
			return err
		}
		dir, err := r.Dir(id)
		if err != nil {
			return err
		}
		if alive(v.PID) {
			return fmt.Errorf("vm %q is destroyed, and its process %d lives", id, v.PID)
		}
		for _, gone := range []string{filepath.Join(dir, "run"), filepath.Join(dir, "console.log")} {
			if _, err := os.Lstat(gone); !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("vm %q is destroyed, and %s is there: %v", id, gone, err)
			}
		}
		return nil
	}
	i := 0
	for ; i < min(o.Times, o.VMs); i++ {
		began := time.Now()
		if err := one(vmName(i)); err != nil {
			return errors.Join(err, r.Close())
		}
		s.time(1, time.Since(began), "DestroyToClean", "at", 1)
	}
	for i < o.VMs {
		var ids []string
		for ; i < o.VMs && len(ids) < atOnce; i++ {
			ids = append(ids, vmName(i))
		}
		began := time.Now()
		if err := each(ids, one); err != nil {
			return errors.Join(err, r.Close())
		}
		if len(ids) == atOnce {
			s.time(len(ids), time.Since(began), "DestroyToClean", "at", atOnce)
		}
	}
	return r.Close()
}

// alive says whether there is such a process. One whose maker has ended may be a
// zombie until the machine's init collects it: that one is dead.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := bytes.Cut(stat, []byte(") "))
	return !bytes.HasPrefix(state, []byte("Z"))
}

// weight is what this process needs.
type weight struct{ bytes, goroutines, descriptors int }

func weigh() weight {
	runtime.GC()
	runtime.GC() // what the first has finalised
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		fds = nil
	}
	return weight{int(m.HeapAlloc + m.StackInuse), runtime.NumGoroutine(), len(fds)}
}

// since adds what was needed more, for each VM.
func (w weight) since(before weight, vms int, s *samples, how string) {
	n := float64(vms)
	s.add(sample{title("Footprint", how, vms), 1, []value{
		{float64(w.bytes-before.bytes) / n, "B/vm"},
		{float64(w.goroutines-before.goroutines) / n, "goroutines/vm"},
		{float64(w.descriptors-before.descriptors) / n, "descriptors/vm"},
	}})
}
