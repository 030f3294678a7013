package vmm

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process uses.
type Usage struct {
	// CPUTime is user and system time of all its threads since it began, vCPUs
	// included; the kernel tells it in steps of 10 ms.
	CPUTime time.Duration
	// ResidentBytes is the memory that it has in RAM, its guest's included, and
	// what it shares with others, such as the memory file that clones are
	// mapped from.
	ResidentBytes int64
}

// Usage reads what the process uses: ErrGone when it is dead.
func (p *Process) Usage() (Usage, error) {
	s, err := readStat(p.id.PID)
	if err == nil && (s.startTime != p.id.StartTime || s.dead()) {
		err = ErrGone
	}
	if err != nil {
		return Usage{}, fmt.Errorf("usage of process %d: %w", p.id.PID, err)
	}
	return s.usage(), nil
}

// ChildrenUsage adds up what the children of the process use: those of an
// emulator run its guest. One that ends meanwhile counts no more.
func (p *Process) ChildrenUsage() (Usage, error) {
	var sum Usage
	fail := func(err error) (Usage, error) {
		return Usage{}, fmt.Errorf("usage of the children of process %d: %w", p.id.PID, err)
	}
	dir := "/proc/" + strconv.Itoa(p.id.PID) + "/task/"
	threads, err := os.ReadDir(dir)
	if err != nil && !isGone(err) {
		return fail(err)
	}
	for _, t := range threads {
		b, err := os.ReadFile(dir + t.Name() + "/children")
		if err != nil && !isGone(err) {
			return fail(err)
		}
		for _, child := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(child)
			if err != nil {
				return fail(err)
			}
			s, err := readStat(pid)
			switch {
			case errors.Is(err, ErrGone):
			case err != nil:
				return fail(err)
			case s.parent == p.id.PID:
				u := s.usage()
				sum.CPUTime += u.CPUTime
				sum.ResidentBytes += u.ResidentBytes
			}
		}
	}
	return sum, nil
}

func (s procStat) usage() Usage {
	// USER_HZ is 100 on every architecture that Firecracker runs on (time(7)).
	const tick = time.Second / 100
	ticks := min(s.utime+s.stime, math.MaxInt64/uint64(tick))
	pages := min(s.rss, math.MaxInt64/uint64(os.Getpagesize()))
	return Usage{CPUTime: time.Duration(ticks) * tick, ResidentBytes: int64(pages) * int64(os.Getpagesize())}
}
