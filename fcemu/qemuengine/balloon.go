//go:build linux

package qemuengine

import (
	"context"
	"fmt"

	"github.com/tangle-network/microvm/fcemu"
)

const pagesPerMiB = 1 << 20 / pageSize

// setBalloon sets how much memory the guest is to give back.
func (v *vm) setBalloon(ctx context.Context, amountMiB int) error {
	// QEMU counts what the guest keeps.
	keep := v.memSize - int64(amountMiB)<<20
	if keep <= 0 {
		return fmt.Errorf("amount_mib %d leaves nothing of the guest's %d MiB", amountMiB, v.memSize>>20)
	}
	if _, err := v.qmp.run(ctx, "balloon", object{"value": keep}); err != nil {
		return fmt.Errorf("set the balloon to %d MiB: %w", amountMiB, err)
	}
	v.balloonMiB = amountMiB
	return nil
}

func balloonPath() string { return "/machine/peripheral/" + balloonID }

func (v *vm) setBalloonPolling(ctx context.Context, seconds int) error {
	args := object{"path": balloonPath(), "property": "guest-stats-polling-interval", "value": seconds}
	if _, err := v.qmp.run(ctx, "qom-set", args); err != nil {
		return fmt.Errorf("set the polling of the balloon's statistics: %w", err)
	}
	return nil
}

// balloonStatNames are QEMU's names for Firecracker's.
var balloonStatNames = map[string]string{
	"stat-swap-in":          "swap_in",
	"stat-swap-out":         "swap_out",
	"stat-major-faults":     "major_faults",
	"stat-minor-faults":     "minor_faults",
	"stat-free-memory":      "free_memory",
	"stat-total-memory":     "total_memory",
	"stat-available-memory": "available_memory",
	"stat-disk-caches":      "disk_caches",
	"stat-htlb-pgalloc":     "hugetlb_allocations",
	"stat-htlb-pgfail":      "hugetlb_failures",
}

// BalloonStats reports the balloon and what the guest last told of itself.
func (e *Engine) BalloonStats(ctx context.Context) (fcemu.BalloonStats, error) {
	var s fcemu.BalloonStats
	if e.vm == nil {
		return s, errNotStarted
	}
	var b struct {
		Actual uint64 `json:"actual"`
	}
	if err := e.vm.qmp.get(ctx, &b, "query-balloon", nil); err != nil {
		return s, fmt.Errorf("read the balloon: %w", err)
	}
	s.TargetMiB = uint64(e.vm.balloonMiB)
	s.TargetPages = s.TargetMiB * pagesPerMiB
	if size := uint64(e.vm.memSize); b.Actual < size {
		s.ActualPages = (size - b.Actual) / pageSize
		s.ActualMiB = s.ActualPages / pagesPerMiB
	}
	var guest struct {
		Stats map[string]int64 `json:"stats"`
	}
	args := object{"path": balloonPath(), "property": "guest-stats"}
	if err := e.vm.qmp.get(ctx, &guest, "qom-get", args); err != nil {
		return s, fmt.Errorf("read the balloon's statistics: %w", err)
	}
	s.Guest = map[string]uint64{}
	for theirs, name := range balloonStatNames {
		if n, ok := guest.Stats[theirs]; ok && n >= 0 { // -1: the guest has not said
			s.Guest[name] = uint64(n)
		}
	}
	return s, nil
}
