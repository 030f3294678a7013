package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/vmm"
)

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// rollBackCreate frees a name that a creation has taken whose program has died.
func (r *Runtime) rollBackCreate(id string) bool {
	if isThere(filepath.Join(r.store.Dir(id), "vm.json")) {
		return false
	}
	l, err := r.store.TryLock(id)
	if err != nil || l == nil {
		return false
	}
	defer l.Unlock()
	o := &op{Locked: l, r: r, ctx: r.ctx, verb: "recover"}
	if l.Rec != nil || !o.unfinishedCreate() {
		return false
	}
	if err := o.takeBackCreate(); err != nil {
		r.cfg.Log.Error("a VM that was never finished stays", "vm", id, "err", err)
		return false
	}
	return true
}

// unfinishedCreate says whether a VM without a record is one that was never
// finished. The intent is not fsynced: after a crash of the host it may be empty,
// and then a VM that has lost its record must not be taken for a new one.
func (o *op) unfinishedCreate() bool {
	if o.Intent == nil {
		return false
	}
	return o.Intent.Verb == "create" || o.Intent.Verb == "" && !isThere(o.hibernatePath())
}

// takeBackCreate removes all of a VM whose creation was cut off.
func (o *op) takeBackCreate() error {
	if err := o.endStrays(); err != nil {
		return err
	}
	if p := o.Intent.VsockPath; p != "" {
		var used *vmm.SocketInUseError
		if err := vmm.RemoveSocket(filepath.Dir(p), filepath.Base(p)); err != nil && !errors.As(err, &used) && !isMissing(err) {
			return err
		}
	}
	if err := o.releaseNetwork(); err != nil {
		return err
	}
	return o.Remove()
}

// endStrays ends VMMs that a cut verb has started and no record names: the one
// in the intent, and any whose working directory is the VM's.
func (o *op) endStrays() error {
	known := 0
	if o.Rec != nil && o.Rec.Process != nil {
		known = o.Rec.Process.PID
	}
	if p := o.Intent.Process; p != nil && p.PID != known {
		if err := o.endStray(identity(p)); err != nil {
			return err
		}
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	want, err := filepath.EvalSymlinks(o.runDir())
	if err != nil {
		if isMissing(err) {
			return nil
		}
		return err
	}
	for _, e := range procs {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == known || pid == os.Getpid() {
			continue
		}
		cwd, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		// Every VMM has its VM's uid among its arguments: somebody's shell in the
		// run directory has not.
		if err != nil || cwd != want || !hasArgument(pid, o.uid()) {
			continue
		}
		id, err := vmm.Identify(pid)
		if err != nil {
			if errors.Is(err, vmm.ErrGone) {
				continue
			}
			return err
		}
		// The identity was read after the link: look again that it is this one.
		if again, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd")); err != nil || again != want {
			continue
		}
		if err := o.endStray(id); err != nil {
			return err
		}
	}
	return nil
}

// lostVMM fails when a VMM of this VM answers at its socket that the record does
// not know: another one must not be started beside it, and only who destroys the
// VM has asked for its end.
func (o *op) lostVMM() error {
	pid, err := vmm.SocketOwner(o.runDir(), apiSocket)
	if err != nil || pid == 0 || !hasArgument(pid, o.uid()) {
		return nil // removing the socket tells more
	}
	return fmt.Errorf("%w: VMM %d of this VM runs, and the record does not know it: destroy the VM, or end the process", microvm.ErrHost, pid)
}

func hasArgument(pid int, arg string) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	// An intent that could not be read has no uid.
	return err == nil && arg != "" && slices.Contains(strings.Split(string(b), "\x00"), arg)
}

func (o *op) endStray(id vmm.Identity) error {
	proc, err := o.r.watcher.Open(id)
	if errors.Is(err, vmm.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer proc.Close()
	ctx, cancel := o.detached(o.r.cfg.TermGrace + 30*time.Second)
	defer cancel()
	if _, err := proc.Stop(ctx, o.r.cfg.TermGrace); err != nil {
		return fmt.Errorf("end VMM %d: %w", id.PID, err)
	}
	return nil
}

// resolveIntent finishes or takes back what a crash has cut off. It can itself
// be cut off and repeated.
func (o *op) resolveIntent() error {
	in := *o.Intent
	if err := o.endStrays(); err != nil {
		return err
	}
	o.stage = "resolve " + in.Verb
	switch in.Verb {
	case "destroy":
		if err := o.destroy(true); err != nil {
			return o.notDestroyed(err)
		}
		return nil
	case verbEgress:
		if err := o.finishEgress(); err != nil {
			return err
		}
	case "rename", "create", verbDeleteSnapshot:
		// The record has come as far as it could: its id is the directory's.
	default:
		// Who destroys the VM need not know; a VMM that is mute could not be
		// destroyed otherwise. Until the VMM is ended the intent stays.
		if o.verb == "destroy" {
			return nil
		}
		if err := o.askState(in); err != nil {
			return err
		}
	}
	if !o.Rec.Hibernated {
		if err := os.RemoveAll(o.hibernatePath()); err != nil {
			return err
		}
	}
	if o.Rec.Process == nil {
		if err := o.dropMemory(); err != nil {
			return err
		}
	}
	if err := errors.Join(os.RemoveAll(o.run(draftName)), removeFile(o.run(resetFile))); err != nil {
		return err
	}
	if err := o.r.snaps.Sweep(o.Rec.UID); err != nil {
		return err
	}
	if err := o.Save(); err != nil {
		return err
	}
	return o.ClearIntent()
}

// askState asks a living VMM how far a start, a stop or a snapshot had come.
func (o *op) askState(in record.Intent) error {
	// What was tracked may have been used up.
	o.Rec.Base, o.Rec.ColdBoot = nil, false
	m, err := o.machine()
	if errors.Is(err, vmm.ErrGone) {
		if o.hibernateWhole(in) {
			o.hibernated()
		}
		return nil
	}
	if err != nil {
		return err
	}
	if o.Rec.Status == microvm.StatusRunning && o.hibernateWhole(in) {
		// It has nothing to say any more, and may be mute.
		if err := o.endProcess(m); err != nil {
			return err
		}
		o.hibernated()
		return nil
	}
	timeout := o.r.cfg.APITimeout
	if in.PausedByUs || in.Mode == microvm.StopModeHibernate {
		// It may be writing a snapshot still, and answers behind it.
		timeout = o.r.transferTimeout(o.Rec.Spec.MemoryMiB)
	}
	ctx, cancel := context.WithTimeout(o.ctx, timeout)
	defer cancel()
	info, err := m.client(o.run(apiSocket)).Describe(ctx)
	if err != nil {
		return o.explain(m, err, timeout)
	}
	status := o.Rec.Status
	switch {
	case in.Verb == "stop" && info.State == fcapi.StatePaused && in.Mode == microvm.StopModePause:
		o.stopped(microvm.StopReason{Cause: microvm.StopPaused})
	case status == microvm.StatusRunning && info.State == fcapi.StatePaused:
		return o.unpause(m)
	case status != microvm.StatusRunning && info.State == fcapi.StateRunning:
		o.Rec.Status, o.Rec.StartedAt, o.Rec.StopReason = microvm.StatusRunning, time.Now().UTC(), nil
		o.Rec.Process.Booted = true
	}
	return nil
}

// hibernateWhole says whether a stop that was cut off had written the guest's
// memory: then it goes forward.
func (o *op) hibernateWhole(in record.Intent) bool {
	return in.Verb == "stop" && in.Hibernated &&
		isRegular(filepath.Join(o.hibernatePath(), stateFile)) && isRegular(filepath.Join(o.hibernatePath(), memoryFile))
}

func (o *op) hibernated() {
	o.Rec.Process, o.Rec.Hibernated = nil, true
	o.stopped(microvm.StopReason{Cause: microvm.StopHibernated})
}
