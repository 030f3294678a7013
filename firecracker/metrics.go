package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tangle-network/microvm"
	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/internal/record"
	"github.com/tangle-network/microvm/vmm"
)

// ReadMetrics tells what the VM's process uses, and what it has counted: a guest
// that has been started is asked to write its counters now. Where it does not do
// so within Config.APITimeout, behind a snapshot for example, the counters are
// those of its last minute, and Trouble says so. Spec.Metrics false leaves them
// out. fcapi.Totals gives them by device.
func (r *Runtime) ReadMetrics(ctx context.Context, id string) (microvm.Metrics, error) {
	const verb = "read the metrics of"
	rec, dir, err := r.runOf(ctx, verb, id)
	if err != nil {
		return microvm.Metrics{}, err
	}
	fail := func(err error, remedy string) (microvm.Metrics, error) {
		return microvm.Metrics{}, r.withEvidence(&microvm.Error{Verb: verb, VMID: id, Err: hostError(err), Remedy: remedy}, rec)
	}
	m, err := r.machine(rec)
	if dir != nil {
		defer dir.Close()
	}
	if errors.Is(err, vmm.ErrGone) {
		return fail(noVMM(rec), "start the VM")
	}
	if err != nil {
		return fail(err, "")
	}
	var got microvm.Metrics
	var trouble []string
	if counts := rec.Spec.Metrics == nil || *rec.Spec.Metrics; counts && rec.Process.Booted && dir == nil {
		trouble = append(trouble, "no counters: the run directory is gone")
	} else if counts && rec.Process.Booted {
		if err := r.flushMetrics(ctx, dir); ctx.Err() != nil {
			return fail(ctx.Err(), "")
		} else if err != nil {
			trouble = append(trouble, "the VMM did not write its counters: "+err.Error())
		}
		sum, err := sumMetrics(ctx, dir, identity(rec.Process), r.cfg.APITimeout, false)
		switch {
		case err == nil:
			trouble = append(trouble, sum.put(&got)...)
		case errors.Is(err, errSumBusy):
			trouble = append(trouble, "no counters: "+err.Error())
		default:
			return fail(err, "")
		}
	}
	// After the counters: what lives now has written them.
	use, err := m.proc.Usage()
	if err == nil && rec.Process.Name == "fcemu" {
		var guest vmm.Usage
		guest, err = m.proc.ChildrenUsage()
		use.CPUTime += guest.CPUTime
		use.ResidentBytes += guest.ResidentBytes
	}
	if errors.Is(err, vmm.ErrGone) {
		return fail(noVMM(rec), "start the VM")
	}
	if err != nil {
		return fail(err, "")
	}
	got.Time, got.CPUTime, got.ResidentBytes = time.Now().UTC(), use.CPUTime, use.ResidentBytes
	got.Run = fmt.Sprintf("%d.%d.%.8s", rec.Process.PID, rec.Process.StartTime, rec.Process.BootID)
	got.Trouble = strings.Join(trouble, "; ")
	return got, nil
}

// runOf returns a VM's record together with its open run directory, nil when it
// has none: of one and the same VM, whatever is renamed meanwhile.
func (r *Runtime) runOf(ctx context.Context, verb, id string) (*record.Record, *os.File, error) {
	for {
		before, err := r.load(ctx, verb, id)
		if err != nil {
			return nil, nil, err
		}
		dir, err := os.Open(filepath.Join(r.store.Dir(id), runName))
		if err != nil && !isMissing(err) {
			return nil, nil, &microvm.Error{Verb: verb, VMID: id, Err: hostError(err)}
		}
		rec, lerr := r.load(ctx, verb, id)
		if lerr == nil && rec.UID == before.UID {
			if err != nil {
				dir = nil
			}
			return rec, dir, nil
		}
		if err == nil {
			dir.Close()
		}
		if lerr != nil {
			return nil, nil, lerr
		}
	}
}

// flushMetrics makes the VMM write a line of metrics. It has a connection of its
// own: a verb may have the other one in use.
func (r *Runtime) flushMetrics(ctx context.Context, dir *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.APITimeout)
	defer cancel()
	c := fcapi.New(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), apiSocket))
	err := c.FlushMetrics(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", err, muteError(r.cfg.APITimeout))
	}
	return errors.Join(err, c.Close())
}

// put shows a sum, and returns what is wrong with it.
func (s *metricsSum) put(m *microvm.Metrics) (trouble []string) {
	m.Counters, m.Gauges, m.CountersAt = s.Counts, s.Values, s.Time
	m.Block = microvm.Traffic{
		ReadBytes: s.Counts["block.read_bytes"], WriteBytes: s.Counts["block.write_bytes"],
		Reads: s.Counts["block.read_count"], Writes: s.Counts["block.write_count"],
	}
	m.Net = microvm.Traffic{
		ReadBytes: s.Counts["net.rx_bytes_count"], WriteBytes: s.Counts["net.tx_bytes_count"],
		Reads: s.Counts["net.rx_packets_count"], Writes: s.Counts["net.tx_packets_count"],
	}
	if s.Missed > 0 {
		trouble = append(trouble, fmt.Sprintf("the counters are too low: %d bytes of them were cut off before they were read", s.Missed))
	}
	if s.Broken > 0 {
		trouble = append(trouble, fmt.Sprintf("the counters are too low: %d lines of them are garbled", s.Broken))
	}
	return trouble
}
