// Package record keeps what the runtime must not forget about a VM: one
// directory a VM, with a record that is replaced atomically, an intent that says
// which verb is under way, and a lock that several processes share.
//
//	<root>/<id>/vm.json      the record: always whole, fsynced
//	<root>/<id>/intent.json  the verb in flight, null when there is none; written
//	                         in place, and fsynced only by verbs that leave more
//	                         than processes, which do not outlive the host either
//	<root>/<id>/lock         flock(2), held for the length of a verb
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm"
)

// Format is the version of the record files that this package writes.
const Format = 1

const (
	// FileName is the record in a VM's directory; each change replaces it.
	FileName   = "vm.json"
	intentFile = "intent.json"
	lockFile   = "lock"
	maxBytes   = 4 << 20
)

// ErrUnreadable means that a record is there but can't be understood. It is
// left as it is: its name stays taken, and what runs behind it is not touched.
var ErrUnreadable = errors.New("unreadable record")

// Program is a file that is executed.
type Program struct {
	Dev   uint64 `json:"dev"`
	Inode uint64 `json:"inode"`
}

// Process identifies a VMM: a pid alone does not, since pids are used again.
type Process struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // clock ticks since boot, field 22 of /proc/PID/stat
	BootID    string `json:"boot_id"`
	// Binary is what was executed, Name and Version what the process says of
	// itself. Program is the file that it runs, whatever is at the path by now;
	// records of earlier releases have none.
	Binary  string  `json:"binary"`
	Program Program `json:"program,omitzero"`
	Name    string  `json:"name"`
	Version string  `json:"version"`
	// Booted says that the guest was started in this process, by boot or by
	// restore.
	Booted bool `json:"booted"`
	// ConsoleStart is where in the console file its output begins.
	ConsoleStart int64 `json:"console_start,omitempty"`
}

// Base is a memory file that holds the guest's memory as it was at a snapshot,
// since when the VMM has tracked every dirty page.
type Base struct {
	// File is relative to the VM's directory.
	File string `json:"file"`
	// PID of the VMM that tracks; a new process breaks the chain.
	PID int `json:"pid"`
}

// Disk is a disk of the VM: where it came from and how it was staged.
type Disk struct {
	ID       string `json:"id"`
	File     string `json:"file"` // in the run directory
	Source   string `json:"source"`
	ReadOnly bool   `json:"read_only,omitempty"`
	InPlace  bool   `json:"in_place,omitempty"`
	Way      string `json:"way"` // "reflink", "copy", "link", "symlink"
}

// Fork is a copy of the VM in the making, by a snapshot that is to be deleted when
// the copy is there, or when the runtime that makes it has died.
type Fork struct {
	Snapshot  string `json:"snapshot"`
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"`
	BootID    string `json:"boot_id"`
	Runtime   string `json:"runtime"` // one of several of the process
}

// Record is what is kept of a VM.
type Record struct {
	Format int    `json:"format"`
	UID    string `json:"uid"`
	ID     string `json:"id"`

	Status     microvm.Status      `json:"status"`
	StopReason *microvm.StopReason `json:"stop_reason,omitempty"`
	Spec       microvm.Spec        `json:"spec"` // with the provider's defaults filled in

	CreatedAt   time.Time `json:"created_at"`
	StartedAt   time.Time `json:"started_at,omitzero"`
	StoppedAt   time.Time `json:"stopped_at,omitzero"`
	DestroyedAt time.Time `json:"destroyed_at,omitzero"`
	// DestroyUnreported says that a destroy was finished for a caller who was
	// told that it failed, or who has died: the next one gets the success.
	DestroyUnreported bool `json:"destroy_unreported,omitempty"`

	Process *Process `json:"process,omitempty"`
	// VMM, VMMVersion and the format of its snapshots are those of the last
	// process, as it said itself; the format is empty where nobody knows it.
	VMM        string `json:"vmm,omitempty"`
	VMMVersion string `json:"vmm_version,omitempty"`
	VMMFormat  string `json:"vmm_format,omitempty"`

	Disks []Disk `json:"disks,omitempty"`
	// Addresses are where the host reaches a VM with a managed network.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Guest are the addresses that its guest has, in its memory.
	Guest []netip.Prefix `json:"guest,omitempty"`
	// Hibernated says that the hibernate directory holds the VM's memory.
	Hibernated bool `json:"hibernated,omitempty"`
	// ColdBoot says that the running guest booted in its process and that no
	// memory file was written of it yet.
	ColdBoot bool  `json:"cold_boot,omitempty"`
	Base     *Base `json:"base,omitempty"`

	Forks []Fork `json:"forks,omitempty"`

	SnapshotSeq   int           `json:"snapshot_seq,omitempty"` // the last number given to a snapshot
	SnapshotPause time.Duration `json:"snapshot_pause_ns,omitempty"`
	Trouble       string        `json:"trouble,omitempty"`
}

// Intent says which verb is under way, and how far it is.
type Intent struct {
	Verb  string `json:"verb"`
	UID   string `json:"uid"`
	NewID string `json:"new_id,omitempty"` // of a rename
	// Stage is the last failpoint that was passed.
	Stage string `json:"stage,omitempty"`
	// Process is a VMM that this verb has spawned.
	Process *Process `json:"process,omitempty"`
	// Mode is that of a stop.
	Mode microvm.StopMode `json:"mode,omitempty"`
	// PausedByUs says that the guest stands still for a snapshot only.
	PausedByUs bool `json:"paused_by_us,omitempty"`
	// Hibernated says that the hibernate directory was made by this verb and is
	// whole.
	Hibernated bool `json:"hibernated,omitempty"`
	// VsockPath is a socket that a VM in the making has outside its directory.
	VsockPath string `json:"vsock_path,omitempty"`
	// InPlace are the files that a VM in the making will write to.
	InPlace []string `json:"in_place,omitempty"`
	// Snapshot is the name of a snapshot in the making.
	Snapshot string `json:"snapshot,omitempty"`
}

func readJSON(path string, into any) error {
	f, b, err := readFile(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	f.Close()
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnreadable, path, err)
	}
	return nil
}

// readFile opens and reads a bounded regular file of a VM's directory, never
// through a link. The caller closes it.
func readFile(path string, flag int) (*os.File, []byte, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ELOOP) {
			err = fmt.Errorf("%w: %s is a symbolic link", ErrUnreadable, path)
		}
		return nil, nil, err
	}
	b, err := readAll(f, path)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, b, nil
}

func readAll(f *os.File, path string) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is no regular file", ErrUnreadable, path)
	}
	var b bytes.Buffer
	b.Grow(int(min(st.Size(), maxBytes)) + bytes.MinRead) // one read, and one for its end
	if _, err := b.ReadFrom(io.LimitReader(f, maxBytes+1)); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if b.Len() > maxBytes {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrUnreadable, path, maxBytes)
	}
	return b.Bytes(), nil
}

func encode(name string, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", name, err)
	}
	return b, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
