//go:build linux

package qemuengine

import (
	"context"
	"time"

	"github.com/tangle-network/microvm/fcemu"
)

// countersTimeout bounds a look at QEMU's statistics.
const countersTimeout = 2 * time.Second

// Counters are the block and serial port counters. When QEMU does not answer
// only the latter are there.
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

	var stats []struct {
		Stats struct {
			ReadBytes  uint64 `json:"rd_bytes"`
			WriteBytes uint64 `json:"wr_bytes"`
			Reads      uint64 `json:"rd_operations"`
			Writes     uint64 `json:"wr_operations"`
			Flushes    uint64 `json:"flush_operations"`
		} `json:"stats"`
	}
	ctx, cancel := context.WithTimeout(context.Background(), countersTimeout)
	defer cancel()
	if err := e.vm.qmp.get(ctx, &stats, "query-blockstats", nil); err != nil {
		e.logf(fcemu.LevelWarn, "No block statistics: %v.", err)
		return c
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
