package firecracker

import (
	"errors"
	"fmt"
	"os"

	"github.com/tangle-network/microvm"
)

// inPlaceFiles are the files of a spec that the VM itself writes to.
func inPlaceFiles(s microvm.Spec) []string {
	var files []string
	for _, d := range plannedDisks(s) {
		if d.InPlace {
			files = append(files, d.Source)
		}
	}
	return files
}

// checkInPlace sees that nobody else writes to the VM's disks in place: two
// guests on one file system destroy it. The VM's intent names its files before
// this looks at the others', so of two that are created at once at least one
// sees the other.
func (o *op) checkInPlace() error {
	var errs []error
	for i, d := range o.Rec.Spec.Drives {
		if !d.InPlace || isTrue(d.ReadOnly) {
			continue
		}
		owner, err := o.writerOf(d.Path)
		if err != nil {
			return err
		}
		if owner != "" {
			errs = append(errs, &microvm.FieldError{
				Field: fmt.Sprintf("drives[%d].path", i), Value: fmt.Sprintf("%q", d.Path),
				Rule: fmt.Sprintf("a file that no other VM writes in place; VM %q does", owner),
			})
		}
	}
	return errors.Join(errs...)
}

// writerOf is the VM that has the file in place; empty if none.
func (o *op) writerOf(path string) (string, error) {
	file, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	ids, err := o.r.store.IDs()
	if err != nil {
		return "", err
	}
	for _, id := range ids {
		if id == o.ID {
			continue
		}
		for _, f := range o.r.writes(id) {
			if other, err := os.Stat(f); err == nil && os.SameFile(file, other) {
				return id, nil
			}
		}
	}
	return "", nil
}

// writes are the files that a VM, finished or in the making, has in place. Of one
// that can't be read nothing is known: Recover reports it.
func (r *Runtime) writes(id string) []string {
	rec, err := r.store.Load(id)
	if errors.Is(err, microvm.ErrVMNotFound) {
		if r.rollBackCreate(id) {
			return nil
		}
		if in, err := r.store.Intent(id); err == nil && in != nil {
			return in.InPlace
		}
	}
	if err != nil {
		return nil
	}
	var files []string
	for _, d := range rec.Disks {
		if d.InPlace {
			files = append(files, d.Source)
		}
	}
	return files
}
