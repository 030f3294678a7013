package firecracker

import "errors"

// undo takes back, in reverse order, what a verb has done so far.
type undo struct{ steps []func() error }

func (u *undo) push(f func() error) { u.steps = append(u.steps, f) }

// run does it; all steps are tried, whatever fails.
func (u *undo) run() error {
	var errs []error
	for i := len(u.steps) - 1; i >= 0; i-- {
		errs = append(errs, u.steps[i]())
	}
	u.steps = nil
	return errors.Join(errs...)
}

// keep makes what was done final.
func (u *undo) keep() { u.steps = nil }
