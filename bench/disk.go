package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// scratch makes the directory that all is measured in. An ext4 without a journal
// looks, for each file that is made, at all that were removed in the last minutes
// (recently_deleted in fs/ext4/ialloc.c): a benchmark would measure that, and
// nothing that runs VMs has such a disk. There an ext4 with a journal is made in a
// file and mounted, which needs root; if it can't be had, log says so.
func scratch(parent string, log io.Writer) (string, func() error, error) {
	dir, err := os.MkdirTemp(parent, "microvm-bench-")
	if err != nil {
		return "", nil, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	if disk(dir) != noJournal {
		return dir, remove, nil
	}
	mounted := filepath.Join(dir, "disk")
	loop, err := mountJournaled(filepath.Join(dir, "image"), mounted)
	if err != nil {
		fmt.Fprintf(log, "bench: %s is on an ext4 without a journal, and one with a journal can't be had: %v\n", dir, err)
		return dir, remove, nil
	}
	return mounted, func() error {
		if _, err := tool("umount", mounted); err != nil {
			return err // and leave it: what is mounted must not be removed
		}
		_, err := tool("losetup", "--detach", loop)
		return errors.Join(err, remove())
	}, nil
}

// imageBytes is enough for 10,000 records and the logs of 1,000 VMs.
const imageBytes = 2 << 30

func mountJournaled(image, dir string) (loop string, err error) {
	f, err := os.Create(image)
	if err != nil {
		return "", err
	}
	// Written, not sparse: or each sync would wait for the allocation of blocks.
	zeros := make([]byte, 1<<20)
	for off := 0; err == nil && off < imageBytes; off += len(zeros) {
		_, err = f.Write(zeros)
	}
	if err := errors.Join(err, f.Sync(), f.Close(), os.Mkdir(dir, 0o700)); err != nil {
		return "", err
	}
	if _, err := tool("mkfs.ext4", "-q", "-F", "-i", "8192", "-E", "lazy_itable_init=0,lazy_journal_init=0", image); err != nil {
		return "", err
	}
	// Past the cache of the file below, or a sync would go through two.
	if loop, err = tool("losetup", "--direct-io=on", "--find", "--show", image); err != nil {
		return "", err
	}
	if _, err := tool("mount", loop, dir); err != nil {
		_, derr := tool("losetup", "--detach", loop)
		return "", errors.Join(err, derr)
	}
	return loop, nil
}

func tool(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, text)
	}
	return text, nil
}
