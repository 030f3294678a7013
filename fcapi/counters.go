package fcapi

// Counters are a VMM's metrics by device, as src/vmm/src/logger/metrics.rs and
// the metrics.rs of the devices have them, of all releases from 1.7 to 1.17:
// what a release does not count is 0. Times are in microseconds.
type Counters struct {
	APIServer     APIServerCounters     `metric:"api_server"`
	Balloon       BalloonCounters       `metric:"balloon"`
	Block         BlockCounters         `metric:"block"` // all drives
	DeprecatedAPI DeprecatedAPICounters `metric:"deprecated_api"`
	Entropy       EntropyCounters       `metric:"entropy"`
	Get           GetRequestCounters    `metric:"get_api_requests"`
	I8042         I8042Counters         `metric:"i8042"`
	Interrupts    InterruptCounters     `metric:"interrupts"`
	Latest        LatestLatencies       `metric:"latencies_us"`
	Logger        LoggerCounters        `metric:"logger"`
	MemoryHotplug MemoryHotplugCounters `metric:"memory_hotplug"`
	MMDS          MMDSCounters          `metric:"mmds"`
	Net           NetCounters           `metric:"net"` // all interfaces
	Patch         PatchRequestCounters  `metric:"patch_api_requests"`
	Pmem          PmemCounters          `metric:"pmem"` // all devices
	Put           PutRequestCounters    `metric:"put_api_requests"`
	RTC           RTCCounters           `metric:"rtc"`
	Seccomp       SeccompCounters       `metric:"seccomp"`
	Serial        SerialCounters        `metric:"uart"`
	Signals       SignalCounters        `metric:"signals"`
	VCPU          VCPUCounters          `metric:"vcpu"`
	VMM           VMMCounters           `metric:"vmm"`
	Vsock         VsockCounters         `metric:"vsock"`

	// By the id of the device.
	Drives      map[string]BlockCounters     `metric:"block_"`
	Interfaces  map[string]NetCounters       `metric:"net_"`
	PmemDevices map[string]PmemCounters      `metric:"pmem_"`
	VhostUser   map[string]VhostUserCounters `metric:"vhost_user_"`
}

// LatencyCounters are the times that requests took, in µs: MinUS and MaxUS of all, SumUS of those
// since the VMM began.
type LatencyCounters struct {
	MinUS uint64 `metric:"min_us"`
	MaxUS uint64 `metric:"max_us"`
	SumUS uint64 `metric:"sum_us"`
}

// APIServerCounters are of the API server. The startup times are there if the jailer
// started the VMM.
type APIServerCounters struct {
	ProcessStartupTimeUS    uint64 `metric:"process_startup_time_us"`
	ProcessStartupTimeCPUUS uint64 `metric:"process_startup_time_cpu_us"`
	SyncResponseFails       uint64 `metric:"sync_response_fails"`
	SyncVMMSendTimeoutCount uint64 `metric:"sync_vmm_send_timeout_count"`
}

// BalloonCounters are of the balloon.
type BalloonCounters struct {
	ActivateFails       uint64 `metric:"activate_fails"`
	InflateCount        uint64 `metric:"inflate_count"`
	StatsUpdatesCount   uint64 `metric:"stats_updates_count"`
	StatsUpdateFails    uint64 `metric:"stats_update_fails"`
	DeflateCount        uint64 `metric:"deflate_count"`
	EventFails          uint64 `metric:"event_fails"`
	FreePageReportCount uint64 `metric:"free_page_report_count"`
	FreePageReportFreed uint64 `metric:"free_page_report_freed"`
	FreePageReportFails uint64 `metric:"free_page_report_fails"`
	FreePageHintCount   uint64 `metric:"free_page_hint_count"`
	FreePageHintFreed   uint64 `metric:"free_page_hint_freed"`
	FreePageHintFails   uint64 `metric:"free_page_hint_fails"`
}

// BlockCounters are of one drive, or of all.
type BlockCounters struct {
	ActivateFails              uint64          `metric:"activate_fails"`
	CfgFails                   uint64          `metric:"cfg_fails"`
	NoAvailBuffer              uint64          `metric:"no_avail_buffer"`
	EventFails                 uint64          `metric:"event_fails"`
	ExecuteFails               uint64          `metric:"execute_fails"`
	InvalidReqsCount           uint64          `metric:"invalid_reqs_count"`
	FlushCount                 uint64          `metric:"flush_count"`
	QueueEventCount            uint64          `metric:"queue_event_count"`
	RateLimiterEventCount      uint64          `metric:"rate_limiter_event_count"`
	UpdateCount                uint64          `metric:"update_count"`
	UpdateFails                uint64          `metric:"update_fails"`
	ReadBytes                  uint64          `metric:"read_bytes"`
	WriteBytes                 uint64          `metric:"write_bytes"`
	ReadCount                  uint64          `metric:"read_count"`
	WriteCount                 uint64          `metric:"write_count"`
	ReadAgg                    LatencyCounters `metric:"read_agg"`
	WriteAgg                   LatencyCounters `metric:"write_agg"`
	RateLimiterThrottledEvents uint64          `metric:"rate_limiter_throttled_events"`
	IOEngineThrottledEvents    uint64          `metric:"io_engine_throttled_events"`
	RemainingReqsCount         uint64          `metric:"remaining_reqs_count"`
}

// DeprecatedAPICounters are calls that will go.
type DeprecatedAPICounters struct {
	DeprecatedHTTPAPICalls    uint64 `metric:"deprecated_http_api_calls"`
	DeprecatedCmdLineAPICalls uint64 `metric:"deprecated_cmd_line_api_calls"`
}

// EntropyCounters are of the entropy device.
type EntropyCounters struct {
	ActivateFails               uint64 `metric:"activate_fails"`
	EntropyEventFails           uint64 `metric:"entropy_event_fails"`
	EntropyEventCount           uint64 `metric:"entropy_event_count"`
	EntropyBytes                uint64 `metric:"entropy_bytes"`
	HostRNGFails                uint64 `metric:"host_rng_fails"`
	EntropyRateLimiterThrottled uint64 `metric:"entropy_rate_limiter_throttled"`
	RateLimiterEventCount       uint64 `metric:"rate_limiter_event_count"`
}

// GetRequestCounters are GET requests.
type GetRequestCounters struct {
	InstanceInfoCount  uint64 `metric:"instance_info_count"`
	MachineCfgCount    uint64 `metric:"machine_cfg_count"`
	MMDSCount          uint64 `metric:"mmds_count"`
	VMMVersionCount    uint64 `metric:"vmm_version_count"`
	HotplugMemoryCount uint64 `metric:"hotplug_memory_count"`
}

// PutRequestCounters are PUT requests, and those that were refused.
type PutRequestCounters struct {
	ActionsCount       uint64 `metric:"actions_count"`
	ActionsFails       uint64 `metric:"actions_fails"`
	BootSourceCount    uint64 `metric:"boot_source_count"`
	BootSourceFails    uint64 `metric:"boot_source_fails"`
	DriveCount         uint64 `metric:"drive_count"`
	DriveFails         uint64 `metric:"drive_fails"`
	LoggerCount        uint64 `metric:"logger_count"`
	LoggerFails        uint64 `metric:"logger_fails"`
	MachineCfgCount    uint64 `metric:"machine_cfg_count"`
	MachineCfgFails    uint64 `metric:"machine_cfg_fails"`
	CPUCfgCount        uint64 `metric:"cpu_cfg_count"`
	CPUCfgFails        uint64 `metric:"cpu_cfg_fails"`
	MetricsCount       uint64 `metric:"metrics_count"`
	MetricsFails       uint64 `metric:"metrics_fails"`
	NetworkCount       uint64 `metric:"network_count"`
	NetworkFails       uint64 `metric:"network_fails"`
	MMDSCount          uint64 `metric:"mmds_count"`
	MMDSFails          uint64 `metric:"mmds_fails"`
	VsockCount         uint64 `metric:"vsock_count"`
	VsockFails         uint64 `metric:"vsock_fails"`
	PmemCount          uint64 `metric:"pmem_count"`
	PmemFails          uint64 `metric:"pmem_fails"`
	SerialCount        uint64 `metric:"serial_count"`
	SerialFails        uint64 `metric:"serial_fails"`
	HotplugMemoryCount uint64 `metric:"hotplug_memory_count"`
	HotplugMemoryFails uint64 `metric:"hotplug_memory_fails"`
}

// PatchRequestCounters are PATCH requests, and those that were refused.
type PatchRequestCounters struct {
	DriveCount         uint64 `metric:"drive_count"`
	DriveFails         uint64 `metric:"drive_fails"`
	NetworkCount       uint64 `metric:"network_count"`
	NetworkFails       uint64 `metric:"network_fails"`
	MachineCfgCount    uint64 `metric:"machine_cfg_count"`
	MachineCfgFails    uint64 `metric:"machine_cfg_fails"`
	MMDSCount          uint64 `metric:"mmds_count"`
	MMDSFails          uint64 `metric:"mmds_fails"`
	HotplugMemoryCount uint64 `metric:"hotplug_memory_count"`
	HotplugMemoryFails uint64 `metric:"hotplug_memory_fails"`
	PmemCount          uint64 `metric:"pmem_count"`
	PmemFails          uint64 `metric:"pmem_fails"`
}

// I8042Counters are of the keyboard controller. x86_64 only.
type I8042Counters struct {
	ErrorCount       uint64 `metric:"error_count"`
	MissedReadCount  uint64 `metric:"missed_read_count"`
	MissedWriteCount uint64 `metric:"missed_write_count"`
	ReadCount        uint64 `metric:"read_count"`
	ResetCount       uint64 `metric:"reset_count"`
	WriteCount       uint64 `metric:"write_count"`
}

// InterruptCounters are of the virtio devices' interrupts.
type InterruptCounters struct {
	Triggers      uint64 `metric:"triggers"`
	ConfigUpdates uint64 `metric:"config_updates"`
}

// LatestLatencies are how long the last call of each kind took, in µs: that of the
// API and, with VMM, that of the work within it.
type LatestLatencies struct {
	FullCreateSnapshot    uint64 `metric:"full_create_snapshot"`
	DiffCreateSnapshot    uint64 `metric:"diff_create_snapshot"`
	LoadSnapshot          uint64 `metric:"load_snapshot"`
	PauseVM               uint64 `metric:"pause_vm"`
	ResumeVM              uint64 `metric:"resume_vm"`
	VMMFullCreateSnapshot uint64 `metric:"vmm_full_create_snapshot"`
	VMMDiffCreateSnapshot uint64 `metric:"vmm_diff_create_snapshot"`
	VMMLoadSnapshot       uint64 `metric:"vmm_load_snapshot"`
	VMMPauseVM            uint64 `metric:"vmm_pause_vm"`
	VMMResumeVM           uint64 `metric:"vmm_resume_vm"`
}

// LoggerCounters are of the log and of these metrics.
type LoggerCounters struct {
	MissedMetricsCount  uint64 `metric:"missed_metrics_count"`
	MetricsFails        uint64 `metric:"metrics_fails"`
	MissedLogCount      uint64 `metric:"missed_log_count"`
	RateLimitedLogCount uint64 `metric:"rate_limited_log_count"`
	LogFails            uint64 `metric:"log_fails"`
}

// MemoryHotplugCounters are of the memory hotplug device.
type MemoryHotplugCounters struct {
	ActivateFails      uint64          `metric:"activate_fails"`
	QueueEventFails    uint64          `metric:"queue_event_fails"`
	QueueEventCount    uint64          `metric:"queue_event_count"`
	PlugAgg            LatencyCounters `metric:"plug_agg"`
	PlugCount          uint64          `metric:"plug_count"`
	PlugBytes          uint64          `metric:"plug_bytes"`
	PlugFails          uint64          `metric:"plug_fails"`
	UnplugAgg          LatencyCounters `metric:"unplug_agg"`
	UnplugCount        uint64          `metric:"unplug_count"`
	UnplugBytes        uint64          `metric:"unplug_bytes"`
	UnplugFails        uint64          `metric:"unplug_fails"`
	UnplugDiscardFails uint64          `metric:"unplug_discard_fails"`
	UnplugAllAgg       LatencyCounters `metric:"unplug_all_agg"`
	UnplugAllCount     uint64          `metric:"unplug_all_count"`
	UnplugAllFails     uint64          `metric:"unplug_all_fails"`
	StateAgg           LatencyCounters `metric:"state_agg"`
	StateCount         uint64          `metric:"state_count"`
	StateFails         uint64          `metric:"state_fails"`
}

// MMDSCounters are of the metadata service.
type MMDSCounters struct {
	RxAccepted           uint64 `metric:"rx_accepted"`
	RxAcceptedErr        uint64 `metric:"rx_accepted_err"`
	RxAcceptedUnusual    uint64 `metric:"rx_accepted_unusual"`
	RxBadEth             uint64 `metric:"rx_bad_eth"`
	RxInvalidToken       uint64 `metric:"rx_invalid_token"`
	RxNoToken            uint64 `metric:"rx_no_token"`
	RxCount              uint64 `metric:"rx_count"`
	TxBytes              uint64 `metric:"tx_bytes"`
	TxCount              uint64 `metric:"tx_count"`
	TxErrors             uint64 `metric:"tx_errors"`
	TxFrames             uint64 `metric:"tx_frames"`
	ConnectionsCreated   uint64 `metric:"connections_created"`
	ConnectionsDestroyed uint64 `metric:"connections_destroyed"`
}

// NetCounters are of one network interface, or of all. Rx is what the guest receives.
type NetCounters struct {
	ActivateFails           uint64          `metric:"activate_fails"`
	CfgFails                uint64          `metric:"cfg_fails"`
	MACAddressUpdates       uint64          `metric:"mac_address_updates"`
	NoRxAvailBuffer         uint64          `metric:"no_rx_avail_buffer"`
	NoTxAvailBuffer         uint64          `metric:"no_tx_avail_buffer"`
	EventFails              uint64          `metric:"event_fails"`
	RxQueueEventCount       uint64          `metric:"rx_queue_event_count"`
	RxEventRateLimiterCount uint64          `metric:"rx_event_rate_limiter_count"`
	RxRateLimiterThrottled  uint64          `metric:"rx_rate_limiter_throttled"`
	RxTAPEventCount         uint64          `metric:"rx_tap_event_count"`
	RxBytesCount            uint64          `metric:"rx_bytes_count"`
	RxPacketsCount          uint64          `metric:"rx_packets_count"`
	RxFails                 uint64          `metric:"rx_fails"`
	RxCount                 uint64          `metric:"rx_count"`
	TAPReadFails            uint64          `metric:"tap_read_fails"`
	TAPWriteFails           uint64          `metric:"tap_write_fails"`
	TAPWriteAgg             LatencyCounters `metric:"tap_write_agg"`
	TxBytesCount            uint64          `metric:"tx_bytes_count"`
	TxMalformedFrames       uint64          `metric:"tx_malformed_frames"`
	TxFails                 uint64          `metric:"tx_fails"`
	TxCount                 uint64          `metric:"tx_count"`
	TxPacketsCount          uint64          `metric:"tx_packets_count"`
	TxQueueEventCount       uint64          `metric:"tx_queue_event_count"`
	TxRateLimiterEventCount uint64          `metric:"tx_rate_limiter_event_count"`
	TxRateLimiterThrottled  uint64          `metric:"tx_rate_limiter_throttled"`
	TxSpoofedMACCount       uint64          `metric:"tx_spoofed_mac_count"`
	TxRemainingReqsCount    uint64          `metric:"tx_remaining_reqs_count"`
	RxPartialWrites         uint64          `metric:"rx_partial_writes"`
	TxPartialReads          uint64          `metric:"tx_partial_reads"`
}

// PmemCounters are of one pmem device, or of all.
type PmemCounters struct {
	ActivateFails              uint64 `metric:"activate_fails"`
	CfgFails                   uint64 `metric:"cfg_fails"`
	EventFails                 uint64 `metric:"event_fails"`
	QueueEventCount            uint64 `metric:"queue_event_count"`
	RateLimiterThrottledEvents uint64 `metric:"rate_limiter_throttled_events"`
	RateLimiterEventCount      uint64 `metric:"rate_limiter_event_count"`
}

// RTCCounters are of the real-time clock. aarch64 only.
type RTCCounters struct {
	ErrorCount       uint64 `metric:"error_count"`
	MissedReadCount  uint64 `metric:"missed_read_count"`
	MissedWriteCount uint64 `metric:"missed_write_count"`
}

// SeccompCounters are of the system call filter.
type SeccompCounters struct {
	NumFaults uint64 `metric:"num_faults"`
}

// SignalCounters are signals that the VMM has caught.
type SignalCounters struct {
	Sigbus  uint64 `metric:"sigbus"`
	Sigsegv uint64 `metric:"sigsegv"`
	Sigxfsz uint64 `metric:"sigxfsz"`
	Sigxcpu uint64 `metric:"sigxcpu"`
	Sigpipe uint64 `metric:"sigpipe"`
	Sighup  uint64 `metric:"sighup"`
	Sigill  uint64 `metric:"sigill"`
}

// SerialCounters are of the serial port; WriteCount is in bytes of the guest.
type SerialCounters struct {
	ErrorCount              uint64 `metric:"error_count"`
	FlushCount              uint64 `metric:"flush_count"`
	MissedReadCount         uint64 `metric:"missed_read_count"`
	MissedWriteCount        uint64 `metric:"missed_write_count"`
	ReadCount               uint64 `metric:"read_count"`
	WriteCount              uint64 `metric:"write_count"`
	RateLimiterDroppedBytes uint64 `metric:"rate_limiter_dropped_bytes"`
}

// VCPUCounters are exits of the vCPUs.
type VCPUCounters struct {
	ExitIOIn          uint64          `metric:"exit_io_in"`
	ExitIOOut         uint64          `metric:"exit_io_out"`
	ExitMMIORead      uint64          `metric:"exit_mmio_read"`
	ExitMMIOWrite     uint64          `metric:"exit_mmio_write"`
	Failures          uint64          `metric:"failures"`
	KvmclockCtrlFails uint64          `metric:"kvmclock_ctrl_fails"`
	ExitIOInAgg       LatencyCounters `metric:"exit_io_in_agg"`
	ExitIOOutAgg      LatencyCounters `metric:"exit_io_out_agg"`
	ExitMMIOReadAgg   LatencyCounters `metric:"exit_mmio_read_agg"`
	ExitMMIOWriteAgg  LatencyCounters `metric:"exit_mmio_write_agg"`
}

// VhostUserCounters are of one vhost-user drive.
type VhostUserCounters struct {
	ActivateFails      uint64 `metric:"activate_fails"`
	CfgFails           uint64 `metric:"cfg_fails"`
	InitTimeUS         uint64 `metric:"init_time_us"`
	ActivateTimeUS     uint64 `metric:"activate_time_us"`
	ConfigChangeTimeUS uint64 `metric:"config_change_time_us"`
}

// VMMCounters are of the VMM itself.
type VMMCounters struct {
	PanicCount   uint64 `metric:"panic_count"`
	DeviceEvents uint64 `metric:"device_events"`
}

// VsockCounters are of the vsock device.
type VsockCounters struct {
	ActivateFails     uint64 `metric:"activate_fails"`
	CfgFails          uint64 `metric:"cfg_fails"`
	RxQueueEventFails uint64 `metric:"rx_queue_event_fails"`
	TxQueueEventFails uint64 `metric:"tx_queue_event_fails"`
	EvQueueEventFails uint64 `metric:"ev_queue_event_fails"`
	MuxerEventFails   uint64 `metric:"muxer_event_fails"`
	ConnEventFails    uint64 `metric:"conn_event_fails"`
	RxQueueEventCount uint64 `metric:"rx_queue_event_count"`
	TxQueueEventCount uint64 `metric:"tx_queue_event_count"`
	RxBytesCount      uint64 `metric:"rx_bytes_count"`
	TxBytesCount      uint64 `metric:"tx_bytes_count"`
	RxPacketsCount    uint64 `metric:"rx_packets_count"`
	TxPacketsCount    uint64 `metric:"tx_packets_count"`
	ConnsAdded        uint64 `metric:"conns_added"`
	ConnsKilled       uint64 `metric:"conns_killed"`
	ConnsRemoved      uint64 `metric:"conns_removed"`
	KillqResync       uint64 `metric:"killq_resync"`
	TxFlushFails      uint64 `metric:"tx_flush_fails"`
	TxWriteFails      uint64 `metric:"tx_write_fails"`
	RxReadFails       uint64 `metric:"rx_read_fails"`
}
