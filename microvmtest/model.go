package microvmtest

import (
	"errors"
	"maps"
	"slices"

	"github.com/tangle-network/microvm"
)

// model is the contract in small: what every verb does to which VM, and what it
// answers. Where two rules are broken at once, either answer is right.
type model map[string]*machine

type machine struct {
	status    microvm.Status
	memory    bool // something that a snapshot could hold
	snapshots []string
	cold      map[string]bool // of the snapshots
}

// do carries out a step and returns the answers that are right: no error for
// none.
func (m model) do(s step) (want []error) {
	vm := m[s.id]
	refuse := func(when bool, err error) {
		if when {
			want = append(want, err)
		}
	}
	if s.verb != "create" && s.verb != "restore" {
		if vm == nil {
			return []error{microvm.ErrVMNotFound}
		}
		refuse(s.verb != "delete" && vm.status == microvm.StatusDestroyed, microvm.ErrInvalidTransition)
	} else {
		refuse(vm != nil, microvm.ErrVMExists)
	}
	switch s.verb {
	case "create":
		if want == nil {
			m[s.id] = &machine{status: microvm.StatusCreated, cold: map[string]bool{}}
		}
	case "restore":
		src := m[s.other]
		refuse(src == nil || !slices.Contains(src.snapshots, s.snapshot), microvm.ErrSnapshotNotFound)
		if want == nil {
			vm = &machine{status: microvm.StatusStopped, memory: true, cold: map[string]bool{}}
			if s.resume {
				vm.status = microvm.StatusRunning
			}
			if src.cold[s.snapshot] {
				vm.status, vm.memory = microvm.StatusCreated, false
			}
			m[s.id] = vm
		}
	case "start":
		refuse(vm.status == microvm.StatusRunning, microvm.ErrInvalidTransition)
		if want == nil {
			vm.status, vm.memory = microvm.StatusRunning, true
		}
	case "stop":
		refuse(vm.status != microvm.StatusRunning, microvm.ErrInvalidTransition)
		if want == nil {
			vm.status, vm.memory = microvm.StatusStopped, !s.forgets
		}
	case "snapshot":
		refuse(slices.Contains(vm.snapshots, s.snapshot), microvm.ErrSnapshotExists)
		if want == nil {
			vm.snapshots = append(vm.snapshots, s.snapshot)
			vm.cold[s.snapshot] = !vm.memory
		}
	case "destroy":
		if want == nil {
			vm.status = microvm.StatusDestroyed
		}
	case "rename":
		refuse(m[s.other] != nil, microvm.ErrVMExists)
		if want == nil {
			delete(m, s.id)
			m[s.other] = vm
		}
	case "delete":
		refuse(!slices.Contains(vm.snapshots, s.snapshot), microvm.ErrSnapshotNotFound)
		if want == nil {
			vm.snapshots = slices.DeleteFunc(vm.snapshots, func(n string) bool { return n == s.snapshot })
		}
	}
	return want
}

// allows says whether a step would succeed and change something.
func (m model) allows(s step) bool {
	trial := maps.Clone(m)
	if s.verb == "prune" {
		return trial.prune() != nil
	}
	if vm := m[s.id]; vm != nil {
		c := *vm
		c.snapshots, c.cold = slices.Clone(vm.snapshots), maps.Clone(vm.cold)
		trial[s.id] = &c
	}
	return trial.do(s) == nil
}

// prune returns the ids that Prune takes, sorted.
func (m model) prune() (ids []string) {
	for id, vm := range m {
		if vm.status == microvm.StatusDestroyed && len(vm.snapshots) == 0 {
			delete(m, id)
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// right says whether err is one of the wanted answers.
func right(err error, want []error) bool {
	if len(want) == 0 {
		return err == nil
	}
	return slices.ContainsFunc(want, func(w error) bool { return errors.Is(err, w) })
}
