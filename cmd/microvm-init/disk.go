//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// diskBound is how long a disk may take to appear. virtio disks are there when
// their module is.
const diskBound = 10 * time.Second

// waitForDisk turns root= into a device that exists: /dev/NAME, UUID=, LABEL=,
// PARTUUID= or MAJOR:MINOR.
func waitForDisk(root string, forEver bool) (string, error) {
	find, err := finderOf(root)
	if err != nil {
		return "", err
	}
	start := time.Now()
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if path, ok := find(); ok {
			return path, nil
		}
		if !forEver && time.Since(start) > diskBound {
			return "", fmt.Errorf("the root disk %s did not appear within %s; disks here: %s", root, diskBound, describeDisks())
		}
		time.Sleep(pause)
	}
}

func finderOf(root string) (func() (string, bool), error) {
	kind, value, tagged := strings.Cut(root, "=")
	switch {
	case strings.HasPrefix(root, "/dev/"):
		return func() (string, bool) {
			var st unix.Stat_t
			err := unix.Stat(root, &st)
			return root, err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK
		}, nil
	case tagged && slices.Contains([]string{"UUID", "LABEL", "PARTUUID"}, kind):
		return func() (string, bool) { return findTagged(kind, value) }, nil
	}
	// The kernel's number forms: 254:0 and fe00.
	major, minor, ok := strings.Cut(root, ":")
	if !ok {
		return nil, fmt.Errorf("root=%s is not understood: give /dev/NAME, UUID=, LABEL=, PARTUUID= or MAJOR:MINOR", root)
	}
	return func() (string, bool) {
		link, err := os.Readlink("/sys/dev/block/" + major + ":" + minor)
		return "/dev/" + filepath.Base(link), err == nil
	}, nil
}

// findTagged looks into every disk and partition.
func findTagged(kind, value string) (string, bool) {
	for _, name := range blockDevices() {
		path := "/dev/" + name
		found := false
		switch kind {
		case "PARTUUID":
			found = partUUID(name) == strings.ToLower(value)
		default:
			uuid, label := probeExt(path)
			found = kind == "UUID" && uuid == strings.ToLower(value) || kind == "LABEL" && label == value && label != ""
		}
		if found {
			return path, true
		}
	}
	return "", false
}

func blockDevices() []string {
	entries, err := os.ReadDir("/sys/class/block")
	if err != nil {
		return nil // no block layer, no disks
	}
	var names []string
	for _, e := range entries {
		if size := sysNumber(e.Name(), "size"); size > 0 {
			names = append(names, e.Name())
		}
	}
	return names
}

// sysNumber reads a number from /sys/class/block/NAME/FILE; -1 if it isn't there.
func sysNumber(name, file string) int64 {
	b, err := os.ReadFile(filepath.Join("/sys/class/block", name, file))
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// describeDisks is for error messages: "vda 24 MiB, vdb 1 MiB".
func describeDisks() string {
	var list []string
	for _, name := range blockDevices() {
		text := fmt.Sprintf("%s %d MiB", name, sysNumber(name, "size")/2048)
		if uuid, label := probeExt("/dev/" + name); uuid != "" {
			text += fmt.Sprintf(" (ext, UUID=%s LABEL=%s)", uuid, label)
		}
		list = append(list, text)
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// probeExt reads UUID and label of an ext2, ext3 or ext4 file system; empty if
// there is none.
func probeExt(path string) (uuid, label string) {
	sb := readAt(path, 1024, 136)
	return parseExt(sb)
}

// partUUID returns the id of a partition from the table of the disk that it is
// on; empty if name is no partition.
func partUUID(name string) string {
	number := sysNumber(name, "partition")
	link, err := os.Readlink("/sys/class/block/" + name)
	if number < 1 || err != nil {
		return ""
	}
	disk := "/dev/" + filepath.Base(filepath.Dir(link))
	head := readAt(disk, 0, 1024)
	if id := parseMBR(head, int(number)); id != "" {
		return id
	}
	entries, size := parseGPTHeader(head)
	if size == 0 {
		return ""
	}
	return parseGPTEntry(readAt(disk, entries+(number-1)*size, 128))
}

// readAt returns the bytes there, or fewer if the disk can't give them.
func readAt(path string, offset int64, length int) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b := make([]byte, length)
	n, _ := f.ReadAt(b, offset) // what can't be read is not there to be found
	return b[:n]
}
