package fcapi

import (
	"context"
	"net/http"
)

// Balloon is the body of PUT /balloon and the answer to GET.
type Balloon struct {
	// AmountMiB is what to take from the guest, at most its memory.
	AmountMiB int `json:"amount_mib"`
	// DeflateOnOOM gives memory back when the guest runs out of it.
	DeflateOnOOM bool `json:"deflate_on_oom"`
	// StatsPollingIntervalS is in seconds, 0 to 65535; 0 turns statistics off
	// for good.
	StatsPollingIntervalS int `json:"stats_polling_interval_s,omitempty"`
	// FreePageHinting and FreePageReporting are known since 1.14.
	FreePageHinting   bool `json:"free_page_hinting,omitempty"`
	FreePageReporting bool `json:"free_page_reporting,omitempty"`
}

// BalloonPatch is the body of PATCH /balloon.
type BalloonPatch struct {
	AmountMiB int `json:"amount_mib"`
}

// BalloonStatisticsPatch is the body of PATCH /balloon/statistics.
type BalloonStatisticsPatch struct {
	// StatsPollingIntervalS is in seconds; it can't turn statistics on or off.
	StatsPollingIntervalS int `json:"stats_polling_interval_s"`
}

// BalloonStatistics is the answer to GET /balloon/statistics. What the guest's
// driver has not told is nil.
type BalloonStatistics struct {
	// TargetPages and ActualPages are pages of 4 KiB.
	TargetPages uint64 `json:"target_pages"`
	ActualPages uint64 `json:"actual_pages"`
	TargetMiB   uint64 `json:"target_mib"`
	ActualMiB   uint64 `json:"actual_mib"`

	// Memory is in bytes.

	SwapIn          *uint64 `json:"swap_in,omitempty"`
	SwapOut         *uint64 `json:"swap_out,omitempty"`
	FreeMemory      *uint64 `json:"free_memory,omitempty"`
	TotalMemory     *uint64 `json:"total_memory,omitempty"`
	AvailableMemory *uint64 `json:"available_memory,omitempty"`
	DiskCaches      *uint64 `json:"disk_caches,omitempty"`

	// The rest are counts.

	MajorFaults        *uint64 `json:"major_faults,omitempty"`
	MinorFaults        *uint64 `json:"minor_faults,omitempty"`
	HugetlbAllocations *uint64 `json:"hugetlb_allocations,omitempty"`
	HugetlbFailures    *uint64 `json:"hugetlb_failures,omitempty"`

	// Since 1.14, with guest kernels from 6.12.

	OOMKill       *uint64 `json:"oom_kill,omitempty"`
	AllocStall    *uint64 `json:"alloc_stall,omitempty"`
	AsyncScan     *uint64 `json:"async_scan,omitempty"`
	DirectScan    *uint64 `json:"direct_scan,omitempty"`
	AsyncReclaim  *uint64 `json:"async_reclaim,omitempty"`
	DirectReclaim *uint64 `json:"direct_reclaim,omitempty"`
}

// BalloonHintingStart is the body of PATCH /balloon/hinting/start. Since 1.14.
type BalloonHintingStart struct {
	// AcknowledgeOnStop lets the guest reuse its pages when it is done; nil is
	// true.
	AcknowledgeOnStop *bool `json:"acknowledge_on_stop,omitempty"`
}

// BalloonHintingStatus is the answer to GET /balloon/hinting/status. Since
// 1.14.
type BalloonHintingStatus struct {
	// HostCmd is the last command of the host (0 stop, 1 done, else a run).
	HostCmd uint32 `json:"host_cmd"`
	// GuestCmd is the last command of the guest, nil before the first.
	GuestCmd *uint32 `json:"guest_cmd,omitempty"`
}

// PutBalloonRequest is PUT /balloon.
func PutBalloonRequest(b Balloon) Request { return Request{http.MethodPut, "/balloon", b} }

// PutBalloon adds or replaces the balloon device. Before the start only.
func (c *Client) PutBalloon(ctx context.Context, b Balloon) error {
	return c.Do(ctx, PutBalloonRequest(b), nil)
}

// PatchBalloonRequest is PATCH /balloon.
func PatchBalloonRequest(b BalloonPatch) Request {
	return Request{http.MethodPatch, "/balloon", b}
}

// PatchBalloon sets a new target. After the start only, and refused until the
// guest's driver is up.
func (c *Client) PatchBalloon(ctx context.Context, b BalloonPatch) error {
	return c.Do(ctx, PatchBalloonRequest(b), nil)
}

// GetBalloon returns the device's configuration; an *Error when there is none.
func (c *Client) GetBalloon(ctx context.Context) (Balloon, error) {
	return get[Balloon](ctx, c, "/balloon")
}

// GetBalloonStatistics returns the latest statistics. After the start only,
// and only when they were turned on before.
func (c *Client) GetBalloonStatistics(ctx context.Context) (BalloonStatistics, error) {
	return get[BalloonStatistics](ctx, c, "/balloon/statistics")
}

// PatchBalloonStatisticsRequest is PATCH /balloon/statistics.
func PatchBalloonStatisticsRequest(b BalloonStatisticsPatch) Request {
	return Request{http.MethodPatch, "/balloon/statistics", b}
}

// PatchBalloonStatistics changes the interval of the statistics.
func (c *Client) PatchBalloonStatistics(ctx context.Context, b BalloonStatisticsPatch) error {
	return c.Do(ctx, PatchBalloonStatisticsRequest(b), nil)
}

// StartBalloonHintingRequest is PATCH /balloon/hinting/start.
func StartBalloonHintingRequest(b BalloonHintingStart) Request {
	return Request{http.MethodPatch, "/balloon/hinting/start", b}
}

// StartBalloonHinting starts a run of free page hinting. Since 1.14.
func (c *Client) StartBalloonHinting(ctx context.Context, b BalloonHintingStart) error {
	return c.Do(ctx, StartBalloonHintingRequest(b), nil)
}

// StopBalloonHintingRequest is PATCH /balloon/hinting/stop.
func StopBalloonHintingRequest() Request {
	return Request{Method: http.MethodPatch, Path: "/balloon/hinting/stop"}
}

// StopBalloonHinting ends a run of free page hinting. Since 1.14.
func (c *Client) StopBalloonHinting(ctx context.Context) error {
	return c.Do(ctx, StopBalloonHintingRequest(), nil)
}

// GetBalloonHintingStatus tells how far a run has come. Since 1.14.
func (c *Client) GetBalloonHintingStatus(ctx context.Context) (BalloonHintingStatus, error) {
	return get[BalloonHintingStatus](ctx, c, "/balloon/hinting/status")
}
