package qemuengine

import (
	"math/bits"

	"github.com/tangle-network/microvm/fcemu"
)

// throttleMax is the largest rate that QEMU's throttle groups take.
const throttleMax = 1_000_000_000_000_000

// throttleLimits is QEMU's ThrottleLimits: units a second, and how many units
// may come at once (as a rate that may last for a second). Zero is no limit.
type throttleLimits struct {
	BPSTotal     uint64 `json:"bps-total"`
	BPSTotalMax  uint64 `json:"bps-total-max"`
	IOPSTotal    uint64 `json:"iops-total"`
	IOPSTotalMax uint64 `json:"iops-total-max"`
}

// throttle translates Firecracker's token buckets. Rate and bucket size are
// the same where the bucket holds a second's worth or more; a smaller bucket
// becomes QEMU's own of a tenth of a second. QEMU can't spend a one-time burst
// once: it enlarges the bucket.
func throttle(l *fcemu.RateLimiter) throttleLimits {
	var t throttleLimits
	if l == nil {
		return t
	}
	t.BPSTotal, t.BPSTotalMax = bucketRate(l.Bandwidth)
	t.IOPSTotal, t.IOPSTotalMax = bucketRate(l.Ops)
	return t
}

func bucketRate(b *fcemu.TokenBucket) (rate, burst uint64) {
	if b == nil || b.Size == 0 || b.RefillTime == 0 { // Firecracker: no limit
		return 0, 0
	}
	hi, lo := bits.Mul64(b.Size, 1000)
	rate = throttleMax
	if hi < b.RefillTime {
		rate, _ = bits.Div64(hi, lo, b.RefillTime)
	}
	rate = min(max(rate, 1), throttleMax)
	burst = b.Size
	if b.OneTimeBurst != nil {
		if burst += *b.OneTimeBurst; burst < b.Size {
			burst = throttleMax
		}
	}
	burst = min(burst, throttleMax)
	if burst < rate { // QEMU refuses a burst below the rate
		burst = 0
	}
	return rate, burst
}

// limits reports whether l limits anything.
func limits(l *fcemu.RateLimiter) bool { return throttle(l) != throttleLimits{} }
