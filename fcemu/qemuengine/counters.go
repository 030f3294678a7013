//go:build linux

package qemuengine

import (
	"context"
	"errors"
	"time"

	"github.com/tangle-network/microvm/fcemu"
)

// countersTimeout bounds a look at QEMU's statistics.
const countersTimeout = 2 * time.Second

// Counters are the block and serial port counters. The former are those of
// QEMU's last answer when it gives none.
func (e *Engine) Counters() map[string]uint64 {
	c := map[string]uint64{}
	if e.vm == nil {
		return c
	}
	s := e.vm.serial
	c["uart.write_count"] = s.written.Load()
	c["uart.read_count"] = s.received.Load()
	c["uart.rate_limiter_dropped_bytes"] = s.limited.Load()
	c["uart.missed_write_count"] = s.lost.Load()

	ctx, cancel := context.WithTimeout(context.Background(), countersTimeout)
	defer cancel()
	stats, err := e.vm.blockStats(ctx)
	if err != nil {
		e.logf(fcemu.LevelWarn, "No block statistics: %v.", err)
	}
	// The order is that of the devices. One sum, and one for each drive.
	for i, d := range e.vm.disks {
		if i >= len(stats) {
			break
		}
		st := stats[i].Stats
		for _, at := range []string{"block.", "block_" + d.backend.drive.DriveID + "."} {
			c[at+"read_bytes"] += st.ReadBytes
			c[at+"write_bytes"] += st.WriteBytes
			c[at+"read_count"] += st.Reads
			c[at+"write_count"] += st.Writes
			c[at+"flush_count"] += st.Flushes
		}
	}
	return c
}

// diskStats is one entry of QEMU's query-blockstats.
type diskStats struct {
	Stats struct {
		ReadBytes  uint64 `json:"rd_bytes"`
		WriteBytes uint64 `json:"wr_bytes"`
		Reads      uint64 `json:"rd_operations"`
		Writes     uint64 `json:"wr_operations"`
		Flushes    uint64 `json:"flush_operations"`
	} `json:"stats"`
}

// blockStats asks QEMU, or remembers its last answer when QEMU is gone.
func (v *vm) blockStats(ctx context.Context) ([]diskStats, error) {
	var stats []diskStats
	err := v.qmp.get(ctx, &stats, "query-blockstats", nil)
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err == nil:
		v.lastStats = stats
	case errors.Is(err, errQMPClosed):
		err = nil
	}
	return v.lastStats, err
}
