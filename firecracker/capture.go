package firecracker

import (
	"bytes"
	"os"
	"path/filepath"

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

// capture lets the VMM write the paused guest's state and memory into the run
// directory. Its undo removes them. What is tracked is used up by it, whether it
// succeeds or not: the next one starts over unless this one is kept.
func (o *op) capture(m *machine) (captured, error) {
	c := captured{dir: o.run(draftName)}
	if err := os.RemoveAll(c.dir); err != nil {
		return c, err
	}
	if err := os.Mkdir(c.dir, 0o700); err != nil {
		return c, err
	}
	o.undo.push(func() error { return os.RemoveAll(c.dir) })
	v, err := parseVersion(m.ident.Version)
	if err != nil {
		return c, err
	}
	kind, memory := fcapi.SnapshotFull, memoryFile
	switch {
	case o.Rec.Base != nil && o.Rec.Base.PID == m.ident.PID && isRegular(filepath.Join(o.Dir, o.Rec.Base.File)):
		kind, memory, c.base = fcapi.SnapshotDiff, diffFile, filepath.Join(o.Dir, o.Rec.Base.File)
	case o.Rec.ColdBoot && o.wholeDiff(v):
		// A guest that booted in this process has its memory in anonymous pages:
		// those that were never touched are zero, and a diff leaves them out.
		kind = fcapi.SnapshotDiff
	}
	o.Rec.Base, o.Rec.ColdBoot = nil, false
	o.undo.push(o.Save) // the record must not promise a chain that this has broken
	return c, o.sendOne(o.ctx, m, fcapi.CreateSnapshotRequest(fcapi.SnapshotCreate{
		SnapshotType: kind,
		SnapshotPath: filepath.Join(draftName, stateFile),
		MemFilePath:  filepath.Join(draftName, memory),
	}), transferTimeout(o.Rec.Spec.MemoryMiB))
}

// wholeDiff says whether a first Diff holds all of the guest's memory. Without
// dirty tracking it is made with mincore(2), which misses pages in swap.
func (o *op) wholeDiff(v version) bool {
	if o.Rec.Spec.HugePages == string(fcapi.HugePages2M) {
		return false
	}
	if isTrue(o.Rec.Spec.TrackDirtyPages) {
		return true
	}
	return v.has(sinceMincoreDiff) && !swapInUse()
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
