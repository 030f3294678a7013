package fcemu

import (
	"errors"
	"fmt"
	"math"
)

// check tells whether a configuration that came out of a file is one that the
// API could have made, as far as engines rely on it.
func (c *Config) check() error {
	m := c.Machine
	switch {
	case m.VCPUCount < 1 || m.VCPUCount > maxVCPUs:
		return fmt.Errorf("vcpu_count %d is not in 1..%d", m.VCPUCount, maxVCPUs)
	case m.MemSizeMiB < 1 || m.MemSizeMiB > 1<<40:
		return fmt.Errorf("mem_size_mib %d is not in 1..2^40", m.MemSizeMiB)
	case m.HugePages != "None" && m.HugePages != "Transparent" && m.HugePages != "2M":
		return fmt.Errorf("huge_pages %q is none of None, Transparent and 2M", m.HugePages)
	case c.Balloon != nil && (c.Balloon.AmountMiB < 0 || c.Balloon.AmountMiB > m.MemSizeMiB):
		return fmt.Errorf("amount_mib %d of the balloon is not in 0..%d", c.Balloon.AmountMiB, m.MemSizeMiB)
	}
	ids := map[string]bool{}
	unique := func(section, id string) error {
		if _, err := checkedID(id); err != nil {
			return fmt.Errorf("%s: id %q: %w", section, id, err)
		}
		if ids[section+"/"+id] {
			return fmt.Errorf("%s: id %q twice", section, id)
		}
		ids[section+"/"+id] = true
		return nil
	}
	var errs []error
	for _, d := range c.Drives {
		errs = append(errs, unique("drives", d.DriveID))
		if d.PathOnHost == nil {
			errs = append(errs, fmt.Errorf("drives: id %q: no path_on_host", d.DriveID))
		}
	}
	for _, n := range c.NetworkInterfaces {
		errs = append(errs, unique("network-interfaces", n.IfaceID))
	}
	for _, p := range c.Pmem {
		errs = append(errs, unique("pmem", p.ID))
	}
	return errors.Join(errs...)
}

const maxVCPUs = 32

// check applies the rules of PUT /machine-config.
func (m *MachineConfig) check() *fault {
	switch {
	case m.VCPUCount < 1 || m.VCPUCount > maxVCPUs, m.SMT && m.VCPUCount > 1 && m.VCPUCount%2 == 1:
		return refuse("Machine config error: The number of vCPUs must be greater than 0, at most 32, and 1 or even with SMT.")
	case m.MemSizeMiB == 0 || m.HugePages == "2M" && m.MemSizeMiB%2 == 1:
		return refuse("Machine config error: The memory size (MiB) is either 0, or not a multiple of the configured page size.")
	}
	return nil
}

// check applies the rules of PUT /hotplug/memory.
func (h *MemoryHotplug) check() *fault {
	const minBlock, minSlot = 2, 128
	msg := ""
	switch {
	case h.BlockSizeMiB < minBlock:
		msg = fmt.Sprintf("Block size must not be lower than %d MiB", minBlock)
	case h.BlockSizeMiB&(h.BlockSizeMiB-1) != 0:
		msg = "Block size must be a power of 2"
	case h.SlotSizeMiB < minSlot:
		msg = fmt.Sprintf("Slot size must not be lower than %d MiB", minSlot)
	case h.SlotSizeMiB%h.BlockSizeMiB != 0:
		msg = fmt.Sprintf("Slot size must be a multiple of block size (%d MiB)", h.BlockSizeMiB)
	case h.TotalSizeMiB < h.SlotSizeMiB:
		msg = fmt.Sprintf("Total size must not be lower than slot size (%d MiB)", h.SlotSizeMiB)
	case h.TotalSizeMiB%h.SlotSizeMiB != 0:
		msg = fmt.Sprintf("Total size must be a multiple of slot size (%d MiB)", h.SlotSizeMiB)
	default:
		return nil
	}
	return refuse("Memory hotplug config error: " + msg)
}

// enabled returns the bucket as the original shows it once it is in force: a
// bucket without size or refill time limits nothing, nor does one whose refill
// time (ms) is out of range in nanoseconds.
func (b *TokenBucket) enabled() *TokenBucket {
	if b == nil || b.Size == 0 || b.RefillTime == 0 || b.RefillTime > math.MaxUint64/1_000_000 {
		return nil
	}
	out := *b
	if out.OneTimeBurst != nil && *out.OneTimeBurst == 0 {
		out.OneTimeBurst = nil
	}
	return &out
}

func (r *RateLimiter) enabled() *RateLimiter {
	if r == nil {
		return nil
	}
	out := RateLimiter{Bandwidth: r.Bandwidth.enabled(), Ops: r.Ops.enabled()}
	if out.Bandwidth == nil && out.Ops == nil {
		return nil
	}
	return &out
}

// updated returns a limiter after a PATCH: what the patch leaves out stays,
// and an empty bucket switches its limit off.
func (r *RateLimiter) updated(patch *RateLimiter) *RateLimiter {
	if patch == nil {
		return r
	}
	var out RateLimiter
	if r != nil {
		out = *r
	}
	if patch.Bandwidth != nil {
		out.Bandwidth = patch.Bandwidth.enabled()
	}
	if patch.Ops != nil {
		out.Ops = patch.Ops.enabled()
	}
	return out.enabled()
}
