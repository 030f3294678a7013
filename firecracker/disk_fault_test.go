package firecracker

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/internal/record"
)

// badDisk fails a step of writing, from its nth time on, until it is mended. It
// counts while nothing is to fail.
type badDisk struct {
	mu   sync.Mutex
	step string // "" for none
	nth  int
	seen []string
}

func (d *badDisk) fault(op record.Op, path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := fmt.Sprint(op, " ", filepath.Base(path))
	if op == record.OpSyncDir {
		name = string(op)
	}
	d.seen = append(d.seen, name)
	if name != d.step {
		return nil
	}
	if d.nth--; d.nth >= 0 {
		return nil
	}
	return unix.EIO
}

func (d *badDisk) fail(step string, nth int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.step, d.nth = step, nth
}

func (d *badDisk) steps() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.seen
	d.seen = nil
	return s
}

// A disk that begins to fail at any step of writing a record or a name: the error
// says so, the VM is as before or as after, and once the disk is well it can be
// used, and destroyed without a trace.
func TestADiskThatFailsHalvesNothing(t *testing.T) {
	t.Parallel()
	failed := 0
	for name, s := range scenarios() {
		// What a verb writes is learned first: each step, and how often.
		var disk badDisk
		c := testConfig(t)
		c.diskFault = disk.fault
		r := open(t, c)
		for _, st := range s.setup {
			must(t, st.run(bg, r))
		}
		before := situation(t, r)
		disk.steps()
		must(t, s.verb.run(bg, r))
		steps := disk.steps()
		after := situation(t, r)
		endAll(t, r) // its published port is wanted
		if len(steps) == 0 {
			t.Errorf("%s writes nothing", name)
		}
		counts := map[string]int{}
		for _, step := range steps {
			counts[step]++
		}
		delete(counts, "write intent.json") // as a full disk does
		for step, n := range counts {
			// The first and the last time.
			for _, nth := range slices.Compact([]int{0, n - 1}) {
				t.Run(fmt.Sprintf("%s, %s, after %d times", name, step, nth), func(t *testing.T) {
					var disk badDisk
					c := testConfig(t)
					c.diskFault = disk.fault
					r := open(t, c)
					for _, st := range s.setup {
						must(t, st.run(bg, r))
					}
					disk.fail(step, nth)
					err := s.verb.run(bg, r)
					if err != nil {
						failed++
						tellsTrouble(t, s.verb.Verb, err, unix.EIO)
					}
					disk.fail("", 0)
					asBeforeOrAfter(t, r, s, before, after, err)
					if s.verb.Verb == "destroy" && err != nil {
						must(t, r.DestroyVM(bg, s.verb.ID)) // it goes forward only
					}
					endAll(t, r)
				})
			}
		}
	}
	t.Logf("%d verbs met a disk that fails", failed)
	if failed < 30 {
		t.Error("which are too few")
	}
}

// What a new VMM will say of itself is known from its file, and its VM's record is
// written meanwhile. A wrapper's is another one.
func TestTheRecordOfANewVMIsWrittenWhileItsVMMStarts(t *testing.T) {
	for binary, want := range map[string]int{under.binary: 1, under.witness: 2} {
		var disk badDisk
		c := testConfig(t)
		if binary == under.witness {
			c, _ = faultConfig(t, -1, "")
		}
		c.Binary, c.diskFault = binary, disk.fault
		r := open(t, c)
		must(t, r.CreateVM(bg, "a"))
		writes := 0
		for _, step := range disk.steps() {
			if step == "write .vm.json.tmp" {
				writes++
			}
		}
		if writes != want {
			t.Errorf("%s: the record was written %d times, want %d", filepath.Base(binary), writes, want)
		}
	}
}
