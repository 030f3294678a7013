package firecracker

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/image"
	"github.com/tangle-network/microvm/snapshot"
)

// captured are the state and memory files of a paused guest.
type captured struct {
	dir string
	// base is the memory file that memory is a diff over; empty when it is whole.
	base string
}

// diffFile holds a diff until it is composed with its base.
const diffFile = "memory.diff"

// planCapture decides, before the guest stands still, how its memory is written.
// Dirty tracking is used up by each snapshot, whether it succeeds or not: the
// record forgets it before, and remembers it when the next one can build on this.
func (o *op) planCapture(m *machine) error {
	l, err := o.r.releaseOf(m.ident.Version)
	if err != nil {
		return err
	}
	if o.Rec.Spec.HugePages == string(fcapi.HugePages2M) {
		return fmt.Errorf("huge_pages 2M: %w: Firecracker can't restore such memory from a file", microvm.ErrUnsupported)
	}
	corrupt := corruptsDiffs(l, o.Rec.Spec.MemoryMiB)
	if b := o.Rec.Base; b != nil && !corrupt && b.PID == m.ident.PID && isRegular(filepath.Join(o.Dir, b.File)) {
		o.base = filepath.Join(o.Dir, b.File)
	}
	tracked := isTrue(o.Rec.Spec.TrackDirtyPages)
	// A guest that booted in this process has its memory in anonymous pages: those
	// that were never touched are zero, and a diff leaves them out. Without
	// tracking it is made with mincore(2), which misses pages in swap.
	o.wholeDiff = o.Rec.ColdBoot && !corrupt && (tracked || fcapi.DiffsUntracked(l.Version) && !swapInUse())
	if !tracked {
		return nil // nothing is used up
	}
	o.Rec.Base, o.Rec.ColdBoot = nil, false
	return o.Save()
}

// capture lets the VMM write the paused guest's state and memory into the run
// directory, as planCapture has decided. Its undo removes them.
func (o *op) capture(m *machine) (captured, error) {
	c := captured{dir: o.run(draftName)}
	if err := os.RemoveAll(c.dir); err != nil {
		return c, err
	}
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return c, err
	}
	o.undo.push(func() error { return os.RemoveAll(c.dir) })
	kind, memory := fcapi.SnapshotFull, memoryFile
	switch {
	case o.base != "":
		kind, memory, c.base = fcapi.SnapshotDiff, diffFile, o.base
	case o.wholeDiff:
		kind = fcapi.SnapshotDiff
	}
	o.writing = true
	err := o.sendOne(o.ctx, m, fcapi.CreateSnapshotRequest(fcapi.SnapshotCreate{
		SnapshotType: kind,
		SnapshotPath: filepath.Join(draftName, stateFile),
		MemFilePath:  filepath.Join(draftName, memory),
	}), o.r.transferTimeout(o.Rec.Spec.MemoryMiB))
	o.saved = err == nil
	var refused *fcapi.Error
	o.writing = err != nil && !errors.As(err, &refused)
	return c, err
}

func swapInUse() bool {
	b, err := os.ReadFile("/proc/swaps")
	return err != nil || bytes.Count(bytes.TrimSpace(b), []byte("\n")) > 0
}

// compose makes the memory whole: a copy of the base with the diff over it.
func (o *op) compose(c captured) error {
	if c.base == "" {
		return nil
	}
	o.stage = "compose the memory"
	whole, diff := filepath.Join(c.dir, memoryFile), filepath.Join(c.dir, diffFile)
	if _, err := image.Clone(o.ctx, c.base, whole, image.CloneOptions{}); err != nil {
		return err
	}
	if err := snapshot.Overlay(o.ctx, diff, whole); err != nil {
		return err
	}
	return os.Remove(diff)
}

func isRegular(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode().IsRegular()
}
