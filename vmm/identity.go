package vmm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ErrGone says that a process is dead, or that its pid belongs to another
// process by now.
var ErrGone = errors.New("process is gone")

// Identity tells one process from all others that this host ever ran, or will
// run under the same pid.
type Identity struct {
	PID int `json:"pid"`
	// StartTime is the 22nd field of /proc/PID/stat: when the process started,
	// in clock ticks since the host booted (proc_pid_stat(5)).
	StartTime uint64 `json:"start_time"`
	// BootID is /proc/sys/kernel/random/boot_id.
	BootID string `json:"boot_id"`
}

// IsZero reports whether there is no identity.
func (id Identity) IsZero() bool { return id == Identity{} }

func (id Identity) String() string {
	return fmt.Sprintf("pid %d, started at tick %d of boot %s", id.PID, id.StartTime, id.BootID)
}

// Identify returns the identity of a living process, whoever started it. It is
// ErrGone when there is no such process or it is a zombie.
func Identify(pid int) (Identity, error) {
	if pid <= 0 {
		return Identity{}, fmt.Errorf("identify process %d: not a process id (1 or more): %w", pid, ErrGone)
	}
	boot, err := BootID()
	if err != nil {
		return Identity{}, err
	}
	s, err := readStat(pid)
	switch {
	case errors.Is(err, ErrGone):
		return Identity{}, fmt.Errorf("identify process %d: %w", pid, err)
	case err != nil:
		return Identity{}, err
	case s.dead():
		return Identity{}, fmt.Errorf("identify process %d: it is a zombie: %w", pid, ErrGone)
	}
	return Identity{PID: pid, StartTime: s.startTime, BootID: boot}, nil
}

// BootID returns the id of this boot of the host.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the host's boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// procStat is what is needed of /proc/PID/stat.
type procStat struct {
	state        byte // 'R', 'S', 'Z', …
	parent       int
	startTime    uint64
	utime, stime uint64 // clock ticks
	rss          uint64 // pages
}

func (s procStat) dead() bool { return s.state == 'Z' || s.state == 'X' }

// readStat is ErrGone when there is no such process.
func readStat(pid int) (procStat, error) {
	path := "/proc/" + strconv.Itoa(pid) + "/stat"
	b, err := os.ReadFile(path)
	if err != nil {
		if isGone(err) {
			return procStat{}, ErrGone
		}
		return procStat{}, fmt.Errorf("identify process %d: %w", pid, err)
	}
	s, err := parseStat(b)
	if err != nil {
		return procStat{}, fmt.Errorf("identify process %d: %s: %w", pid, path, err)
	}
	return s, nil
}

func parseStat(b []byte) (procStat, error) {
	// The second field is the name of the program in parentheses; it may hold
	// blanks and parentheses itself, so the last one counts.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return procStat{}, errors.New("no program name")
	}
	fields := bytes.Fields(b[i+1:])
	if len(fields) < 22 {
		return procStat{}, fmt.Errorf("%d fields after the program name, not 22 or more", len(fields))
	}
	if len(fields[0]) != 1 {
		return procStat{}, fmt.Errorf("state %q", fields[0])
	}
	parent, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return procStat{}, fmt.Errorf("parent: %w", err)
	}
	s := procStat{state: fields[0][0], parent: parent}
	for _, f := range []struct {
		name string
		at   int
		into *uint64
	}{{"start time", 19, &s.startTime}, {"user time", 11, &s.utime}, {"system time", 12, &s.stime}, {"resident pages", 21, &s.rss}} {
		n, err := strconv.ParseUint(string(fields[f.at]), 10, 64)
		if err != nil {
			return procStat{}, fmt.Errorf("%s: %w", f.name, err)
		}
		*f.into = n
	}
	return s, nil
}
