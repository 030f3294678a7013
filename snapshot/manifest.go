// Package snapshot stores snapshots of VMs: a directory each, which becomes
// visible by one rename when all that it holds is on disk, and is described by a
// manifest with checksums.
//
//	<store>/<vm uid>/<name>/manifest.json
//	                        vmstate, memory     absent in a cold snapshot
//	                        disks/…
package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Format is the version of the manifests that this package writes.
const Format = 1

// The names inside a snapshot.
const (
	StateFile    = "vmstate"
	MemoryFile   = "memory"
	DiskDir      = "disks"
	manifestFile = "manifest.json"
)

const maxManifest = 64 << 20 // 2 MiB chunks of the largest guest fit

// Errors of this package, for errors.Is.
var (
	ErrNotFound = errors.New("no such snapshot")
	ErrExists   = errors.New("snapshot exists")
	// ErrCorrupt means that a snapshot is not what its manifest says.
	ErrCorrupt = errors.New("corrupt snapshot")
)

// Manifest describes a snapshot.
type Manifest struct {
	Format    int       `json:"format"`
	Name      string    `json:"name"`
	Seq       int       `json:"seq"` // orders the snapshots of one VM
	VMID      string    `json:"vm_id"`
	UID       string    `json:"uid"`
	CreatedAt time.Time `json:"created_at"`
	Cold      bool      `json:"cold"`

	// The VMM that wrote the state, as the process said.
	VMM        string `json:"vmm,omitempty"`
	VMMVersion string `json:"vmm_version,omitempty"`
	VMMFormat  string `json:"vmm_format,omitempty"` // of the state; empty: unknown
	CPU        string `json:"cpu,omitempty"`        // model name of the host's
	Kernel     string `json:"host_kernel,omitempty"`

	Spec json.RawMessage `json:"spec"` // of the VM, as its provider keeps it
	// Guest are the addresses that the guest of a managed network has in its memory.
	Guest []netip.Prefix `json:"guest,omitempty"`

	State  *File  `json:"state,omitempty"`
	Memory *File  `json:"memory,omitempty"`
	Disks  []Disk `json:"disks,omitempty"`

	// Pause is how long the guest stood still.
	Pause time.Duration `json:"pause_ns"`
}

// File is one file of a snapshot.
type File struct {
	Size int64 `json:"size"`
	// SHA256 is taken over the SHA-256 sums of the file's chunks of ChunkBytes.
	SHA256 string `json:"sha256"`
	// Chunks are those sums, kept for the memory file, so that what a lazy
	// restore touches can be verified alone.
	Chunks []string `json:"chunks,omitempty"`
}

// Disk is a disk in DiskDir.
type Disk struct {
	ID       string `json:"id"`
	File     string `json:"file"`
	ReadOnly bool   `json:"read_only,omitempty"`
	Content  File   `json:"content"`
}

// readManifest reads and checks a manifest; its bytes are not trusted.
func readManifest(dir string) (Manifest, error) {
	var m Manifest
	path := filepath.Join(dir, manifestFile)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return m, ErrNotFound
		}
		return m, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return m, fmt.Errorf("read %s: %w", path, err)
	}
	m, err = parseManifest(b)
	if err != nil {
		return m, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

func parseManifest(b []byte) (Manifest, error) {
	var m Manifest
	if len(b) > maxManifest {
		return m, fmt.Errorf("%w: the manifest has more than %d bytes", ErrCorrupt, maxManifest)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if m.Format < 1 || m.Format > Format {
		return m, fmt.Errorf("%w: format %d, this program knows %d", ErrCorrupt, m.Format, Format)
	}
	if !m.Cold && (m.State == nil || m.Memory == nil) {
		return m, fmt.Errorf("%w: neither cold nor with state and memory", ErrCorrupt)
	}
	seen := map[string]bool{}
	for _, d := range m.Disks {
		if !plainName(d.File) || d.ID == "" || seen[d.File] {
			return m, fmt.Errorf("%w: disk %.80q in file %.80q", ErrCorrupt, d.ID, d.File)
		}
		seen[d.File] = true
	}
	return m, nil
}

// plainName is a name in the same directory and nothing else.
func plainName(s string) bool {
	return s != "" && len(s) <= 255 && !strings.HasPrefix(s, ".") && !strings.ContainsAny(s, "/\x00")
}
