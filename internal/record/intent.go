package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
)

// intents is the open file of a VM's intents. It is written in place: to make,
// rename and remove a file for each step of each verb is what costs most of a
// verb's time on some file systems.
type intents struct {
	file *os.File // nil: there is none
	size int      // what is written of it
}

// onePage is how much a write puts in place whole: a program that is killed
// meanwhile has written all of it or nothing. What is longer takes the file's
// place by a rename.
const onePage = 4096

// none is what the file holds between verbs. An empty file is one that a crash of
// the host has emptied.
const none = "null"

// open reads the intent of a VM whose lock is held; nil if there is none.
func (i *intents) open(dir string) (*Intent, error) {
	path := filepath.Join(dir, intentFile)
	f, b, err := readFile(path, os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	i.file, i.size = f, len(b)
	var in *Intent
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreadable, path, err)
	}
	return in, nil
}

func (i *intents) close() {
	if i.file != nil {
		i.file.Close() // nothing that was written is lost by it
		i.file = nil
	}
}

// put makes b the contents of the file.
func (l *Locked) put(b []byte) error {
	i, path := &l.intents, filepath.Join(l.Dir, intentFile)
	if len(b) > onePage || i.size > onePage {
		return l.replaceIntent(path, b)
	}
	if i.file == nil {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return fmt.Errorf("write %s: %w", intentFile, err)
		}
		i.file = f
	}
	// Blanks hide what is left of a longer one.
	whole := fmt.Appendf(nil, "%-*s", i.size, b)
	if err := l.store.step(OpWrite, path, func() error { _, err := i.file.WriteAt(whole, 0); return err }); err != nil {
		return fmt.Errorf("write %s: %w", intentFile, err)
	}
	i.size = len(whole)
	return nil
}

func (l *Locked) replaceIntent(path string, b []byte) error {
	if err := l.store.writeNext(l.Dir, intentFile, b, false); err != nil {
		return err
	}
	if err := publish(l.Dir, intentFile); err != nil {
		return err
	}
	l.intents.close()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("write %s: %w", intentFile, err)
	}
	l.intents = intents{f, len(b)}
	return nil
}

// SetIntent says what is about to be done. What it speaks of does not outlive the
// host, nor need it, unless SyncIntent is called.
func (l *Locked) SetIntent(in Intent) error {
	b, err := encode(intentFile, in)
	if err == nil {
		err = l.put(b)
	}
	if err == nil {
		l.Intent = &in
	}
	return err
}

// ClearIntent says that the verb is over.
func (l *Locked) ClearIntent() error {
	l.Intent = nil
	if l.Rec != nil && l.Rec.Status == microvm.StatusDestroyed { // no verb will have another
		l.intents.close()
		return ignoreMissing(os.Remove(filepath.Join(l.Dir, intentFile)))
	}
	if l.intents.file == nil {
		return nil
	}
	return l.put([]byte(none))
}

// SyncIntent makes the intent durable: for verbs that leave something on the disk
// when the host crashes.
func (l *Locked) SyncIntent() error {
	path := filepath.Join(l.Dir, intentFile)
	return l.store.step(OpSync, path, func() error { return unix.Fdatasync(int(l.intents.file.Fd())) })
}
