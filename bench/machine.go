package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// circumstances notes what the numbers depend on.
func circumstances(s *samples, set setting, name, load string, peer bool) error {
	vmm, err := set.version()
	if err != nil {
		return err
	}
	s.says("goos", runtime.GOOS)
	s.says("goarch", runtime.GOARCH)
	s.says("pkg", "github.com/tangle-network/microvm/bench")
	s.says("cpu", cpu())
	s.says("on", name)
	s.says("vmm", vmm)
	s.says("machine", machine())
	s.says("disk", diskName(set.dir))
	s.says("load", load)
	s.says("go", runtime.Version())
	s.says("commit", commit())
	s.says("date", time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	if peer {
		s.says("peer", "fctools 0.6.0")
	} else {
		s.says("peer", "skipped")
	}
	return nil
}

func machine() string {
	return fmt.Sprintf("%d CPUs, %s of memory, Linux %s", runtime.NumCPU(), memory(), kernel())
}

// diskName is the kind of file system that scratch has made dir on.
func diskName(dir string) string {
	if filepath.Base(dir) == "disk" {
		return disk(dir) + " in a file"
	}
	return disk(dir)
}

// loadAverage is how many others wanted a CPU in the minute before.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(b), " ")
	return one
}

func cpu() string {
	b, _ := os.ReadFile("/proc/cpuinfo") // without it the model is not known
	for _, key := range []string{"model name", "CPU implementer"} {
		if _, rest, ok := bytes.Cut(b, []byte("\n"+key)); ok {
			line, _, _ := bytes.Cut(rest, []byte("\n"))
			return strings.TrimLeft(string(line), "\t :")
		}
	}
	return "unknown"
}

func memory() string {
	var in unix.Sysinfo_t
	if unix.Sysinfo(&in) != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.0f GiB", float64(in.Totalram)*float64(in.Unit)/(1<<30))
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	release, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return release
}

const noJournal = "ext4 without a journal"

// disk is the kind of file system that the state directories are on.
func disk(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "unknown"
	}
	switch int64(st.Type) {
	case unix.EXT4_SUPER_MAGIC:
		if !journaled(dir) {
			return noJournal
		}
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	}
	return fmt.Sprintf("file system %#x", st.Type)
}

// journaled says whether the kernel has a journal for an ext4.
func journaled(dir string) bool {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return false
	}
	device, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	if err != nil {
		return false
	}
	found, err := filepath.Glob("/proc/fs/jbd2/" + filepath.Base(device) + "-*")
	return err == nil && len(found) > 0
}

// commit is what was measured. "go run" stamps no version: git is asked.
func commit() string {
	if in, ok := debug.ReadBuildInfo(); ok {
		for _, kv := range in.Settings {
			if kv.Key == "vcs.revision" {
				return kv.Value[:min(12, len(kv.Value))]
			}
		}
	}
	out, err := exec.Command("git", "describe", "--always", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	name := strings.TrimSpace(string(out))
	// The samples of this very run are not what was measured.
	if exec.Command("git", "diff", "--quiet", "HEAD", "--", ":/", ":(top,exclude)bench/samples", ":(top,exclude)docs").Run() != nil {
		name += "-dirty"
	}
	return name
}

// save puts the samples into a file, whole or not at all.
func (s *samples) save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	var b bytes.Buffer
	for _, c := range s.config {
		fmt.Fprintf(&b, "%s: %s\n", c.key, c.value)
	}
	for _, l := range s.lines {
		fmt.Fprintln(&b, l)
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}
