package fcapi

// RateLimiter bounds the I/O of a device by two token buckets. A nil bucket
// does not limit; in a PATCH it stays as it is, and a bucket whose size or
// refill time is 0 takes the limit away.
type RateLimiter struct {
	// Bandwidth counts bytes.
	Bandwidth *TokenBucket `json:"bandwidth,omitempty"`
	// Ops counts operations.
	Ops *TokenBucket `json:"ops,omitempty"`
}

// TokenBucket holds Size tokens at most and gets Size tokens per RefillTime.
type TokenBucket struct {
	// Size is in tokens (bytes or operations).
	Size uint64 `json:"size"`
	// OneTimeBurst is spent first and never filled again.
	OneTimeBurst uint64 `json:"one_time_burst,omitempty"`
	// RefillTime is in milliseconds.
	RefillTime uint64 `json:"refill_time"`
}
