package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/firecracker"
)

// fleets are many VMs at once: what they weigh, how fast they are adopted, listed
// and destroyed.
func fleets(ctx context.Context, set setting, s *samples, log io.Writer) error {
	perVM := 4 << 20 // bytes of memory, to begin with
	for _, vms := range []int{10, 100, 1000} {
		free, err := memAvailable()
		if err != nil {
			return err
		}
		if fit := free * 8 / 10 / perVM; fit < vms {
			fmt.Fprintf(log, "bench: %d VMs need about %d MiB, and %d MiB are free: %d fit\n", vms, vms*perVM>>20, free>>20, fit/10*10)
			if vms = fit / 10 * 10; vms <= 100 {
				return nil
			}
		}
		fmt.Fprintf(log, "bench: %d running VMs\n", vms)
		took, err := fleet(ctx, set, vms, s)
		if err != nil {
			return err
		}
		if vms >= 100 {
			perVM = max(took/vms, 1<<20)
		}
	}
	return nil
}

// fleet makes so many VMs, adopts them and destroys them. It returns how much of
// the machine's memory they took.
func fleet(ctx context.Context, set setting, vms int, s *samples) (took int, err error) {
	state := filepath.Join(set.dir, fmt.Sprintf("fleet-%d", vms))
	o := order{VMs: vms, Config: set.config(state)}
	before, err := memAvailable()
	if err != nil {
		return 0, err
	}
	for _, step := range []order{{Do: "make"}, {Do: "adopt", Times: 10}, {Do: "destroy", Times: 30}} {
		step.VMs, step.Config = o.VMs, o.Config
		if rerr := step.run(ctx, s); rerr != nil {
			// Whatever is there must not stay.
			o.Do = "destroy"
			return 0, errors.Join(rerr, o.run(context.WithoutCancel(ctx), &samples{}))
		}
		if step.Do == "make" {
			after, err := memAvailable()
			if err != nil {
				return 0, err
			}
			took = before - after
		}
	}
	return took, os.RemoveAll(state)
}

// queriesOfMany lists up to 10,000 stopped VMs. One is made, started and shut
// down; the others have a copy of its record under a name and a uid of their own.
func queriesOfMany(ctx context.Context, set setting, s *samples, log io.Writer) error {
	for _, vms := range []int{10, 100, 1000, 10000} {
		fmt.Fprintf(log, "bench: %d stopped VMs\n", vms)
		if err := queriesOf(ctx, set, vms, s); err != nil {
			return err
		}
	}
	return nil
}

func queriesOf(ctx context.Context, set setting, vms int, s *samples) error {
	state := filepath.Join(set.dir, fmt.Sprintf("stopped-%d", vms))
	config := set.config(state)
	config.ShutdownGrace = -1
	r, err := firecracker.Open(ctx, config)
	if err != nil {
		return err
	}
	first := vmName(0)
	err = errors.Join(r.CreateVM(ctx, first), r.StartVM(ctx, first), r.StopVMMode(ctx, first, microvm.StopModeShutdown))
	if err == nil {
		err = copyRecord(ctx, r, first, vms)
	}
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	began := time.Now()
	if r, err = firecracker.Open(ctx, config); err != nil {
		return err
	}
	s.time(1, time.Since(began), "Open", "stopped", vms)
	if err := errors.Join(ask(ctx, r, vms, "stopped", s), r.Close()); err != nil {
		return err
	}
	return os.RemoveAll(state)
}

func copyRecord(ctx context.Context, r *firecracker.Runtime, id string, vms int) error {
	v, err := r.GetVM(ctx, id)
	if err != nil {
		return err
	}
	dir, err := r.Dir(id)
	if err != nil {
		return err
	}
	rec, err := os.ReadFile(filepath.Join(dir, "vm.json"))
	if err != nil {
		return err
	}
	for i := 1; i < vms; i++ {
		other := filepath.Join(filepath.Dir(dir), vmName(i))
		if err := os.Mkdir(other, 0o700); err != nil {
			return err
		}
		one := bytes.ReplaceAll(rec, []byte(v.UID), fmt.Appendf(nil, "%020x", i))
		one = bytes.ReplaceAll(one, []byte(strconv.Quote(id)), []byte(strconv.Quote(vmName(i))))
		if err := os.WriteFile(filepath.Join(other, "vm.json"), one, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// memAvailable is how many bytes of memory can be had (proc_meminfo(5)).
func memAvailable() (int, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(b, []byte("MemAvailable:"))
	var kb int
	if _, err := fmt.Sscan(string(rest), &kb); err != nil {
		return 0, fmt.Errorf("MemAvailable in /proc/meminfo: %w", err)
	}
	return kb << 10, nil
}
