package firecracker

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tangle-network/microvm"
)

// event is one thing that a caller did or saw: it took effect at some moment
// between its call and its return, or had none.
type event struct {
	Who       string
	Verb      string // a verb, or "see" (a VM's status) or "list" (its snapshots)
	ID, Other string
	Mode      microvm.StopMode
	Resume    bool // of a restore
	Bad       bool // the spec can't work
	Cancelled bool // the caller has given up
	Err       string
	Seen      string // what "see" and "list" saw: a status ("" for none), names
	Call, Ret int64  // CLOCK_MONOTONIC, the same in all programs
}

func (e event) String() string {
	return fmt.Sprintf("%d..%d %s: %s %s %s %s -> %q %q", e.Call/1000, e.Ret/1000, e.Who, e.Verb, e.ID, e.Other, e.Mode, e.Err, e.Seen)
}

// Kinds of errors.
const (
	errNone      = ""
	errNotFound  = "no VM"
	errExists    = "VM exists"
	errNoSnap    = "no snapshot"
	errSnap      = "snapshot exists"
	errState     = "transition"
	errCancelled = "cancelled"
	errBad       = "bad spec"
)

// modelVM is what the law knows of a VM.
type modelVM struct {
	status string
	snaps  string // sorted, each with a blank behind it
	// ending says that its guest was asked to shut down by a caller who then left:
	// it may stop at any time.
	ending bool
	// unreported says that a destroy was finished whose caller was told of an
	// error: one DestroyVM more may succeed.
	unreported bool
}

// modelState is all VMs. It is not changed but copied.
type modelState struct {
	vms map[string]modelVM
	// moved are renames in flight whose caller gave up, by the number of their
	// event: they may still be taken back.
	moved string
}

func (s modelState) with(id string, vm modelVM) modelState {
	next := modelState{vms: make(map[string]modelVM, len(s.vms)+1), moved: s.moved}
	for k, v := range s.vms {
		next.vms[k] = v
	}
	if vm.status == "" {
		delete(next.vms, id)
	} else {
		next.vms[id] = vm
	}
	return next
}

func (s modelState) key() string {
	ids := make([]string, 0, len(s.vms))
	for id := range s.vms {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var b strings.Builder
	for _, id := range ids {
		vm := s.vms[id]
		b.WriteString(id + "=" + vm.status + " " + vm.snaps)
		if vm.ending {
			b.WriteString("ending ")
		}
		if vm.unreported {
			b.WriteString("unreported ")
		}
		b.WriteByte(';')
	}
	return b.String() + s.moved
}

// history is searched for an order of its events that the law allows: each at one
// moment between its call and its return (Wing and Gong's search, with what was
// seen before kept).
type history struct {
	events []event
	claims map[string][]int // events that may have held a name for a while
	done   []bool
	hash   uint64
	left   int
	first  int // no event before it is left
	seen   map[string]bool
	nodes  int
	// The furthest that the search came.
	best      int
	bestState modelState
	bestStuck int
}

// maxNodes bounds the search: a history that is not decided by then is one fault
// more.
const maxNodes = 3_000_000

// checkHistory returns nil when there is such an order.
func checkHistory(events []event) error {
	h := &history{claims: map[string][]int{}, seen: map[string]bool{}, best: math.MaxInt}
	for _, e := range events {
		h.events = append(h.events, e)
		switch {
		case e.Verb == "restore" && e.Err == errNone:
			// Two moments: the snapshot is found, then the name is taken.
			find := e
			find.Verb = "find"
			h.events = append(h.events, find)
		case e.Verb == "rename" && e.Err == errCancelled:
			// It may be taken back, which others may see.
			back := e
			back.Verb = "rename back"
			h.events = append(h.events, back)
		}
	}
	slices.SortStableFunc(h.events, func(a, b event) int {
		switch {
		case a.Call < b.Call:
			return -1
		case a.Call > b.Call:
			return 1
		}
		return 0
	})
	for i, e := range h.events {
		switch e.Verb {
		case "create", "restore":
			h.claims[e.ID] = append(h.claims[e.ID], i)
		case "rename":
			h.claims[e.Other] = append(h.claims[e.Other], i)
		}
		if unknown := !slices.Contains([]string{errNone, errNotFound, errExists, errNoSnap, errSnap, errState, errCancelled, errBad}, e.Err); unknown || e.Err == errCancelled && !e.Cancelled || e.Err == errBad && !e.Bad {
			return fmt.Errorf("an error that the law does not know: %s", e)
		}
	}
	h.done, h.left = make([]bool, len(h.events)), len(h.events)
	if h.search(modelState{vms: map[string]modelVM{}}) {
		return nil
	}
	if h.nodes > maxNodes {
		return fmt.Errorf("not decided after %d steps", maxNodes)
	}
	var b strings.Builder
	for i, e := range h.events {
		if s := h.events[h.bestStuck]; e.Ret >= s.Call && e.Call <= s.Ret && (i == h.bestStuck || e.ID == s.ID || e.Other == s.ID || e.ID == s.Other) {
			fmt.Fprintf(&b, "\n  %s", e)
		}
	}
	return fmt.Errorf("no order of these %d events is lawful; the best one ends before\n  %s\nwith %s; at the same time:%s", len(h.events), h.events[h.bestStuck], h.bestState.key(), b.String())
}

func (h *history) mark(i int, done bool) {
	h.done[i] = done
	h.hash ^= (uint64(i) + 1) * 0x9E3779B97F4A7C15 * (uint64(i)*2 + 1)
	if done {
		h.left--
	} else {
		h.left++
		h.first = min(h.first, i)
	}
}

// open are the events that may come next: none of them was called after another
// one had returned. last is the one that must not wait for much longer.
func (h *history) open() (open []int, last int) {
	end := int64(math.MaxInt64)
	last = -1
	for h.first < len(h.done) && h.done[h.first] {
		h.first++
	}
	for i := h.first; i < len(h.events) && h.events[i].Call <= end; i++ {
		if !h.done[i] && h.events[i].Ret < end {
			end, last = h.events[i].Ret, i
		}
	}
	for i := h.first; i < len(h.events) && h.events[i].Call <= end; i++ {
		if !h.done[i] {
			open = append(open, i)
		}
	}
	return open, last
}

func (h *history) search(s modelState) bool {
	var trail []int
	var open []int
	last := -1
	// What changes nothing and is true now is best put here.
	for progress := true; progress; {
		progress = false
		open, last = h.open()
		for _, i := range open {
			if h.holds(s, i) {
				h.mark(i, true)
				trail = append(trail, i)
				progress = true
			}
		}
	}
	undo := func() bool {
		for _, i := range trail {
			h.mark(i, false)
		}
		return false
	}
	if h.left == 0 {
		return true
	}
	if h.left < h.best {
		h.best, h.bestState, h.bestStuck = h.left, s, last
	}
	key := strconv.FormatUint(h.hash, 16) + s.key()
	if h.nodes++; h.seen[key] || h.nodes > maxNodes {
		return undo()
	}
	h.seen[key] = true
	slices.SortFunc(open, func(a, b int) int { return int(min(max(h.events[a].Ret-h.events[b].Ret, -1), 1)) })
	try := func(i int, next modelState) bool {
		h.mark(i, true)
		if h.search(next) {
			return true
		}
		h.mark(i, false)
		return false
	}
	// Those that succeeded first; of those whose callers gave up, that they had no
	// effect is the likelier.
	for _, i := range open {
		if e := h.events[i]; e.Err != errCancelled {
			for _, next := range h.effects(s, i) {
				if try(i, next) {
					return true
				}
			}
		}
	}
	if h.events[last].Err == errCancelled && try(last, h.settled(s, last)) {
		return true
	}
	for _, i := range open {
		if e := h.events[i]; e.Err == errCancelled {
			for _, next := range h.effects(s, i) {
				if try(i, next) {
					return true
				}
			}
		}
	}
	return undo()
}

// settled is the state after an event whose caller gave up, without effect.
func (h *history) settled(s modelState, i int) modelState {
	e := h.events[i]
	if e.Verb != "rename back" {
		return s
	}
	next := s.with("", modelVM{})
	next.moved = strings.ReplaceAll(s.moved, e.Who+" ", "")
	return next
}

// claimed says that a name may have been taken for a while by another event that
// came to nothing.
func (h *history) claimed(id string, i int) bool {
	for _, j := range h.claims[id] {
		if a, b := h.events[i], h.events[j]; j != i && a.Who != b.Who && a.Call <= b.Ret && b.Call <= a.Ret {
			return true
		}
	}
	return false
}

// holds says whether an event is true of a state and does not change it.
func (h *history) holds(s modelState, i int) bool {
	e := h.events[i]
	vm, there := s.vms[e.ID]
	sure := !vm.ending // else it may have another status by now
	switch e.Err {
	case errBad:
		return true
	case errNotFound:
		return !there
	case errExists:
		if e.Verb == "rename" {
			_, taken := s.vms[e.Other]
			return taken || h.claimed(e.Other, i)
		}
		return there || h.claimed(e.ID, i)
	case errNoSnap:
		if e.Verb == "delete" {
			return there && !strings.Contains(vm.snaps, e.Other+" ")
		}
		from, name, _ := strings.Cut(e.Other, "/")
		src, ok := s.vms[from]
		return !ok || !strings.Contains(src.snaps, name+" ")
	case errSnap:
		return there && strings.Contains(vm.snaps, e.Other+" ")
	case errState:
		if !there {
			return false
		}
		switch e.Verb {
		case "start":
			return vm.status == "running" || vm.status == "destroyed"
		case "stop":
			return vm.status != "running" || !sure
		case "destroy":
			return vm.status == "destroyed" && !vm.unreported
		}
		return vm.status == "destroyed"
	case errNone:
		switch e.Verb {
		case "see":
			return e.Seen == vm.status
		case "list":
			return e.Seen == vm.snaps
		case "find":
			from, name, _ := strings.Cut(e.Other, "/")
			src, ok := s.vms[from]
			return ok && strings.Contains(src.snaps, name+" ")
		}
	}
	return false
}

// effects are the states that an event can make of s.
func (h *history) effects(s modelState, i int) []modelState {
	e := h.events[i]
	vm, there := s.vms[e.ID]
	if there && vm.ending && vm.status == "running" {
		// The guest may have shut down by now.
		vm.ending, vm.status = false, "stopped"
		stopped := s.with(e.ID, vm)
		if e.Err != errCancelled && h.holds(stopped, i) {
			return []modelState{stopped}
		}
		return append(h.effect(s, i), h.effect(stopped, i)...)
	}
	return h.effect(s, i)
}

func (h *history) effect(s modelState, i int) []modelState {
	e := h.events[i]
	if e.Err != errNone && e.Err != errCancelled {
		return nil
	}
	vm, there := s.vms[e.ID]
	alive := there && vm.status != "destroyed"
	to := func(change func(*modelVM)) []modelState {
		change(&vm)
		return []modelState{s.with(e.ID, vm)}
	}
	switch {
	case e.Verb == "create" && e.Err == errNone && !there:
		return []modelState{s.with(e.ID, modelVM{status: "created"})}
	case e.Verb == "restore" && e.Err == errNone && !there:
		if h.waits("find", e) {
			return nil
		}
		warm := "stopped"
		if e.Resume {
			warm = "running"
		}
		return []modelState{s.with(e.ID, modelVM{status: warm}), s.with(e.ID, modelVM{status: "created"})}
	case e.Verb == "start" && alive && vm.status != "running":
		return to(func(v *modelVM) { v.status, v.ending = "running", false })
	case e.Verb == "stop" && alive && vm.status == "running":
		all := []modelState{}
		if e.Err == errCancelled && e.Mode == microvm.StopModeShutdown && !vm.ending {
			asked := vm
			asked.ending = true
			all = append(all, s.with(e.ID, asked))
		}
		return append(all, to(func(v *modelVM) { v.status, v.ending = "stopped", false })...)
	case e.Verb == "snapshot" && alive && !strings.Contains(vm.snaps, e.Other+" "):
		return to(func(v *modelVM) { v.snaps = sortedNames(v.snaps + e.Other + " ") })
	case e.Verb == "delete" && there && strings.Contains(vm.snaps, e.Other+" "):
		return to(func(v *modelVM) { v.snaps = strings.Replace(v.snaps, e.Other+" ", "", 1) })
	case e.Verb == "destroy" && alive:
		return to(func(v *modelVM) { v.status, v.ending, v.unreported = "destroyed", false, e.Err == errCancelled })
	case e.Verb == "destroy" && there && vm.unreported:
		return to(func(v *modelVM) { v.unreported = false })
	case e.Verb == "prune" && e.Err == errNone && there && !alive && vm.snaps == "":
		return to(func(v *modelVM) { v.status = "" })
	case e.Verb == "rename" && alive:
		if _, taken := s.vms[e.Other]; taken {
			return nil
		}
		next := s.with(e.ID, modelVM{}).with(e.Other, vm)
		if e.Err == errCancelled {
			next.moved += e.Who + " "
		}
		return []modelState{next}
	case e.Verb == "rename back" && strings.Contains(s.moved, e.Who+" "):
		moved, ok := s.vms[e.Other]
		if _, taken := s.vms[e.ID]; taken || !ok {
			return nil
		}
		next := s.with(e.Other, modelVM{}).with(e.ID, moved)
		next.moved = strings.ReplaceAll(next.moved, e.Who+" ", "")
		return []modelState{next}
	}
	return nil
}

// waits says that the part of an event that comes first was not placed yet.
func (h *history) waits(part string, e event) bool {
	for i := h.first; i < len(h.events) && h.events[i].Call <= e.Ret; i++ {
		if o := h.events[i]; o.Verb == part && o.Who == e.Who {
			return !h.done[i]
		}
	}
	return false
}

func sortedNames(snaps string) string {
	names := strings.Fields(snaps)
	slices.Sort(names)
	if len(names) == 0 {
		return ""
	}
	return strings.Join(names, " ") + " "
}

func TestTheCheckerOfHistoriesTellsTheLawfulFromTheUnlawful(t *testing.T) {
	t.Parallel()
	at := func(call, ret int64, e event) event {
		e.Call, e.Ret, e.Who = call, ret, fmt.Sprint(call, ret, e.Verb, e.ID)
		return e
	}
	create := event{Verb: "create", ID: "a"}
	exists := event{Verb: "create", ID: "a", Err: errExists}
	run := event{Verb: "start", ID: "a"}
	snap := event{Verb: "snapshot", ID: "a", Other: "s"}
	cancelled := func(e event) event { e.Cancelled, e.Err = true, errCancelled; return e }
	see := func(id, status string) event { return event{Verb: "see", ID: id, Seen: status} }
	for name, c := range map[string]struct {
		lawful bool
		events []event
	}{
		"one after the other":                     {true, []event{at(1, 2, create), at(3, 4, run), at(5, 6, see("a", "running"))}},
		"two at once, in the one possible order":  {true, []event{at(1, 9, run), at(2, 8, create)}},
		"a start before any creation":             {false, []event{at(1, 2, run), at(3, 4, create)}},
		"two winners of one name":                 {false, []event{at(1, 5, create), at(2, 6, create)}},
		"two winners, with a destroy between":     {false, []event{at(1, 2, create), at(3, 4, event{Verb: "destroy", ID: "a"}), at(5, 6, create)}},
		"two winners, pruned between":             {true, []event{at(1, 2, create), at(3, 4, event{Verb: "destroy", ID: "a"}), at(4, 5, event{Verb: "prune", ID: "a"}), at(6, 7, create)}},
		"a name that nobody had":                  {false, []event{at(1, 2, exists)}},
		"a name that a cancelled one had":         {true, []event{at(1, 9, cancelled(create)), at(2, 3, exists), at(10, 11, see("a", ""))}},
		"a cancelled creation that left a VM":     {false, []event{at(1, 9, cancelled(create)), at(10, 11, see("a", "created"))}},
		"an old status is seen":                   {false, []event{at(1, 2, create), at(3, 4, run), at(5, 6, see("a", "created"))}},
		"a VM is lost":                            {false, []event{at(1, 2, create), at(3, 4, see("a", ""))}},
		"a cancelled start that worked":           {true, []event{at(1, 2, create), at(3, 4, cancelled(run)), at(5, 6, see("a", "running"))}},
		"a cancelled start that works later":      {false, []event{at(1, 2, create), at(3, 4, cancelled(run)), at(5, 6, see("a", "created")), at(7, 8, see("a", "running"))}},
		"one start too many":                      {false, []event{at(1, 2, create), at(3, 6, run), at(4, 7, run)}},
		"a snapshot is lost":                      {false, []event{at(1, 2, create), at(3, 4, snap), at(5, 6, event{Verb: "list", ID: "a"})}},
		"a restore from nothing":                  {false, []event{at(1, 2, create), at(3, 4, event{Verb: "restore", ID: "b", Other: "a/s"})}},
		"a restore from a snapshot":               {true, []event{at(1, 2, create), at(3, 4, snap), at(5, 6, event{Verb: "restore", ID: "b", Other: "a/s"}), at(7, 8, see("b", "created"))}},
		"a rename":                                {true, []event{at(1, 2, create), at(3, 4, event{Verb: "rename", ID: "a", Other: "b"}), at(5, 6, see("b", "created")), at(7, 8, see("a", ""))}},
		"a rename onto a used name":               {false, []event{at(1, 2, create), at(1, 2, event{Verb: "create", ID: "b"}), at(3, 4, event{Verb: "rename", ID: "a", Other: "b"})}},
		"a VM under two names":                    {false, []event{at(1, 2, create), at(3, 4, event{Verb: "rename", ID: "a", Other: "b"}), at(5, 6, see("b", "created")), at(7, 8, see("a", "created"))}},
		"a cancelled rename that was taken back":  {true, []event{at(1, 2, create), at(3, 9, cancelled(event{Verb: "rename", ID: "a", Other: "b"})), at(4, 5, see("b", "created")), at(10, 11, see("a", "created"))}},
		"a cancelled rename is taken back later":  {false, []event{at(1, 2, create), at(3, 5, cancelled(event{Verb: "rename", ID: "a", Other: "b"})), at(6, 7, see("b", "created")), at(10, 11, see("a", "created"))}},
		"a cancelled shutdown that comes later":   {true, []event{at(1, 2, create), at(3, 4, run), at(5, 6, cancelled(event{Verb: "stop", ID: "a", Mode: microvm.StopModeShutdown})), at(7, 8, see("a", "running")), at(9, 10, see("a", "stopped"))}},
		"a cancelled pause that comes later":      {false, []event{at(1, 2, create), at(3, 4, run), at(5, 6, cancelled(event{Verb: "stop", ID: "a", Mode: microvm.StopModePause})), at(7, 8, see("a", "running")), at(9, 10, see("a", "stopped"))}},
		"an error that nobody expects":            {false, []event{at(1, 2, event{Verb: "create", ID: "a", Err: "no space left"})}},
		"given up though the caller did not":      {false, []event{at(1, 2, event{Verb: "create", ID: "a", Err: errCancelled})}},
		"a destroy that was finished unreported":  {true, []event{at(1, 2, create), at(3, 4, cancelled(event{Verb: "destroy", ID: "a"})), at(5, 6, see("a", "destroyed")), at(7, 8, event{Verb: "destroy", ID: "a"}), at(9, 10, event{Verb: "destroy", ID: "a", Err: errState})}},
		"a destroy that is reported two times":    {false, []event{at(1, 2, create), at(3, 4, event{Verb: "destroy", ID: "a"}), at(5, 6, event{Verb: "destroy", ID: "a"})}},
		"a tombstone with a snapshot is pruned":   {false, []event{at(1, 2, create), at(2, 3, snap), at(3, 4, event{Verb: "destroy", ID: "a"}), at(4, 5, event{Verb: "prune", ID: "a"})}},
		"a snapshot outlives its VM":              {true, []event{at(1, 2, create), at(2, 3, snap), at(3, 4, event{Verb: "destroy", ID: "a"}), at(5, 6, event{Verb: "restore", ID: "b", Other: "a/s"})}},
		"a bad spec, and one that should be good": {false, []event{at(1, 2, event{Verb: "create", ID: "a", Bad: true, Err: errBad}), at(3, 4, event{Verb: "create", ID: "b", Err: errBad})}},
	} {
		if err := checkHistory(c.events); (err == nil) != c.lawful {
			t.Errorf("%s: %v", name, err)
		}
	}
}
