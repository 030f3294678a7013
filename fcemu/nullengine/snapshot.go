package nullengine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tangle-network/microvm/fcemu"
)

// deviceState is the engine's part of a state file: what is not in the guest's
// memory.
type deviceState struct {
	Halted       bool `json:"halted"` // powered off
	PluggedMiB   int  `json:"plugged_mib"`
	RequestedMiB int  `json:"requested_mib"`

	BalloonTarget uint64 `json:"balloon_target"` // pages
	BalloonPages  uint64 `json:"balloon_pages"`
}

// maxDeviceState bounds what is read from a state file.
const maxDeviceState = 1 << 20

// CreateSnapshot writes the state file, then the memory file, as Firecracker
// does: a failing memory path leaves a new state file behind.
func (e *Engine) CreateSnapshot(_ context.Context, cfg *fcemu.Config, p fcemu.SnapshotCreate) error {
	blob, err := json.Marshal(e.guest.device())
	if err != nil {
		return fmt.Errorf("encode the devices' state: %w", err)
	}
	if err := fcemu.WriteState(p.SnapshotPath, e.Name(), cfg, bytes.NewReader(blob), int64(len(blob))); err != nil {
		return err
	}
	if e.vsock != nil {
		e.vsock.reset()
	}
	return e.mem.dump(p.MemFilePath, p.SnapshotType == "Diff")
}

// dump writes the memory to a file: all of it, or what changed. An existing
// file is reused: one of another length is emptied first, one of the same
// length is written in place, so that a Diff over a Full completes it.
func (m *memory) dump(path string, diff bool) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("open the memory file: %w", err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("close the memory file: %w", cerr)
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("stat the memory file: %w", err)
	}
	if size := int64(len(m.mem)); st.Mode().IsRegular() && st.Size() != size {
		if err := f.Truncate(0); err != nil {
			return fmt.Errorf("empty the memory file: %w", err)
		}
		if err := f.Truncate(size); err != nil {
			return fmt.Errorf("size the memory file: %w", err)
		}
	}
	if err := m.write(f, diff); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync the memory file: %w", err)
	}
	m.dirty = map[uint64]bool{}
	return nil
}

// chunkPages is how much memory is looked at and written at a time: 4 MiB.
const chunkPages = 1024

func (m *memory) write(f *os.File, diff bool) error {
	buf := make([]byte, chunkPages*PageSize)
	for first := uint64(0); first < m.pages(); first += chunkPages {
		end := min(first+chunkPages, m.pages())
		var here []byte
		if diff && !m.tracked {
			var err error
			if here, err = m.resident(first, end); err != nil {
				return err
			}
		}
		wanted := func(p uint64) bool {
			switch {
			case !diff:
				return true
			case m.tracked:
				return m.dirty[p]
			}
			return here[p-first]&1 != 0
		}
		for p := first; p < end; {
			from := p
			for p < end && wanted(p) {
				p++
			}
			if p == from {
				p++
				continue
			}
			b := buf[:(p-from)*PageSize]
			if _, err := m.ReadAt(b, int64(from*PageSize)); err != nil {
				return fmt.Errorf("read the guest's memory: %w", err)
			}
			if _, err := f.WriteAt(b, int64(from*PageSize)); err != nil {
				return fmt.Errorf("write the memory file: %w", err)
			}
		}
	}
	return nil
}

// LoadSnapshot restores a paused guest.
func (e *Engine) LoadSnapshot(ctx context.Context, cfg *fcemu.Config, p fcemu.SnapshotLoad, st io.Reader) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, e.drop())
		}
	}()
	blob, err := io.ReadAll(io.LimitReader(st, maxDeviceState+1))
	if err != nil {
		return fmt.Errorf("read the devices' state: %w", err)
	}
	var dev deviceState
	if len(blob) > maxDeviceState {
		return fmt.Errorf("%w: the devices' state is too long", fcemu.ErrBadState)
	}
	if err := json.Unmarshal(blob, &dev); err != nil {
		return fmt.Errorf("%w: the devices' state: %w", fcemu.ErrBadState, err)
	}
	switch p.MemBackend.BackendType {
	case "File":
		e.mem, err = mapFile(cfg, p.MemBackend.BackendPath)
	case "Uffd":
		if e.mem, err = newMemory(cfg); err == nil {
			e.uffd, err = handOver(p.MemBackend.BackendPath, e.mem, cfg.Machine.HugePages)
		}
	default:
		err = fmt.Errorf("memory backend %q is neither File nor Uffd", p.MemBackend.BackendType)
	}
	if err != nil {
		return err
	}
	for i := range cfg.NetworkInterfaces {
		if err := e.openTap(&cfg.NetworkInterfaces[i]); err != nil {
			return fmt.Errorf("network interface %s: %w", cfg.NetworkInterfaces[i].IfaceID, err)
		}
	}
	if cfg.Vsock != nil {
		if err := e.openVsock(cfg.Vsock); err != nil {
			return fmt.Errorf("vsock: %w", err)
		}
	}
	if err := e.prepare(cfg); err != nil {
		return err
	}
	if err := e.guest.restore(dev); errors.Is(err, ErrBadPage) {
		// As a real guest whose memory is garbage, it is loaded and dies when it
		// runs.
		e.opt.Log(fcemu.LevelWarn, "The null guest's memory is garbage: "+err.Error())
		e.guest.broken = true
	} else if err != nil {
		return err
	}
	return ctx.Err()
}
