package fcemu

import "slices"

// metricSection is one section of the metrics, with its names in the order of
// the original's. A name that ends in _agg is an aggregate of latencies.
type metricSection struct {
	name   string
	fields []string
}

// metricsSince has what came after 1.7, by its line, metricsUntil what went
// again, by the first line without it: nothing was ever moved
// (src/vmm/src/logger/metrics.rs and the metrics.rs of the devices).
var (
	metricsSince = map[string]int{
		"vcpu.kvmclock_ctrl_fails":                10,
		"mmds.rx_invalid_token":                   13,
		"mmds.rx_no_token":                        13,
		"balloon.free_page_report_count":          14,
		"balloon.free_page_report_freed":          14,
		"balloon.free_page_report_fails":          14,
		"balloon.free_page_hint_count":            14,
		"balloon.free_page_hint_freed":            14,
		"balloon.free_page_hint_fails":            14,
		"get_api_requests.hotplug_memory_count":   14,
		"patch_api_requests.hotplug_memory_count": 14,
		"patch_api_requests.hotplug_memory_fails": 14,
		"put_api_requests.pmem_count":             14,
		"put_api_requests.pmem_fails":             14,
		"put_api_requests.serial_count":           14,
		"put_api_requests.serial_fails":           14,
		"put_api_requests.hotplug_memory_count":   14,
		"put_api_requests.hotplug_memory_fails":   14,
		"pmem":                                    14,
		"interrupts":                              14,
		"memory_hotplug":                          14,
		"uart.rate_limiter_dropped_bytes":         16,
		"logger.rate_limited_log_count":           16,
		"patch_api_requests.pmem_count":           16,
		"patch_api_requests.pmem_fails":           16,
		"pmem.rate_limiter_throttled_events":      16,
		"pmem.rate_limiter_event_count":           16,
	}
	metricsUntil = map[string]int{
		"api_server.sync_response_fails":               14,
		"api_server.sync_vmm_send_timeout_count":       14,
		"deprecated_api.deprecated_cmd_line_api_calls": 14,
		"logger.log_fails":                             14,
		"net.rx_partial_writes":                        14,
		"net.tx_partial_reads":                         14,
		"vmm.device_events":                            14,
		"net.mac_address_updates":                      17,
	}
)

// metricLayout has the sections that a release writes.
func metricLayout(rel release) []metricSection {
	there := func(name string) bool {
		until, gone := metricsUntil[name]
		return rel.has(metricsSince[name]) && !(gone && rel.has(until))
	}
	var layout []metricSection
	for _, s := range allMetrics() {
		if there(s.name) {
			s.fields = slices.DeleteFunc(s.fields, func(f string) bool { return !there(s.name + "." + f) })
			layout = append(layout, s)
		}
	}
	return layout
}

// allMetrics are those of all releases.
func allMetrics() []metricSection {
	return []metricSection{
		{"api_server", []string{
			"process_startup_time_us", "process_startup_time_cpu_us", "sync_response_fails", "sync_vmm_send_timeout_count",
		}},
		{"balloon", []string{
			"activate_fails", "inflate_count", "stats_updates_count", "stats_update_fails", "deflate_count",
			"event_fails", "free_page_report_count", "free_page_report_freed", "free_page_report_fails",
			"free_page_hint_count", "free_page_hint_freed", "free_page_hint_fails",
		}},
		{"block", []string{
			"activate_fails", "cfg_fails", "no_avail_buffer", "event_fails", "execute_fails", "invalid_reqs_count",
			"flush_count", "queue_event_count", "rate_limiter_event_count", "update_count", "update_fails",
			"read_bytes", "write_bytes", "read_count", "write_count", "read_agg", "write_agg",
			"rate_limiter_throttled_events", "io_engine_throttled_events", "remaining_reqs_count",
		}},
		{"deprecated_api", []string{
			"deprecated_http_api_calls", "deprecated_cmd_line_api_calls",
		}},
		{"get_api_requests", []string{
			"instance_info_count", "machine_cfg_count", "mmds_count", "vmm_version_count", "hotplug_memory_count",
		}},
		{"i8042", []string{
			"error_count", "missed_read_count", "missed_write_count", "read_count", "reset_count", "write_count",
		}},
		{"uart", []string{
			"error_count", "flush_count", "missed_read_count", "missed_write_count", "read_count", "write_count",
			"rate_limiter_dropped_bytes",
		}},
		{"latencies_us", []string{
			"full_create_snapshot", "diff_create_snapshot", "load_snapshot", "pause_vm", "resume_vm",
			"vmm_full_create_snapshot", "vmm_diff_create_snapshot", "vmm_load_snapshot", "vmm_pause_vm",
			"vmm_resume_vm",
		}},
		{"logger", []string{
			"missed_metrics_count", "metrics_fails", "missed_log_count", "log_fails", "rate_limited_log_count",
		}},
		{"mmds", []string{
			"rx_accepted", "rx_accepted_err", "rx_accepted_unusual", "rx_bad_eth", "rx_invalid_token", "rx_no_token",
			"rx_count", "tx_bytes", "tx_count", "tx_errors", "tx_frames", "connections_created",
			"connections_destroyed",
		}},
		{"net", []string{
			"activate_fails", "cfg_fails", "mac_address_updates", "no_rx_avail_buffer", "no_tx_avail_buffer",
			"event_fails", "rx_queue_event_count", "rx_event_rate_limiter_count", "rx_partial_writes", "rx_rate_limiter_throttled",
			"rx_tap_event_count", "rx_bytes_count", "rx_packets_count", "rx_fails", "rx_count", "tap_read_fails",
			"tap_write_fails", "tap_write_agg", "tx_bytes_count", "tx_malformed_frames", "tx_fails", "tx_count",
			"tx_packets_count", "tx_partial_reads", "tx_queue_event_count", "tx_rate_limiter_event_count", "tx_rate_limiter_throttled",
			"tx_spoofed_mac_count", "tx_remaining_reqs_count",
		}},
		{"patch_api_requests", []string{
			"drive_count", "drive_fails", "network_count", "network_fails", "machine_cfg_count", "machine_cfg_fails",
			"mmds_count", "mmds_fails", "hotplug_memory_count", "hotplug_memory_fails", "pmem_count", "pmem_fails",
		}},
		{"put_api_requests", []string{
			"actions_count", "actions_fails", "boot_source_count", "boot_source_fails", "drive_count", "drive_fails",
			"logger_count", "logger_fails", "machine_cfg_count", "machine_cfg_fails", "cpu_cfg_count",
			"cpu_cfg_fails", "metrics_count", "metrics_fails", "network_count", "network_fails", "mmds_count",
			"mmds_fails", "vsock_count", "vsock_fails", "pmem_count", "pmem_fails", "serial_count", "serial_fails",
			"hotplug_memory_count", "hotplug_memory_fails",
		}},
		{"seccomp", []string{
			"num_faults",
		}},
		{"vcpu", []string{
			"exit_io_in", "exit_io_out", "exit_mmio_read", "exit_mmio_write", "failures", "kvmclock_ctrl_fails",
			"exit_io_in_agg", "exit_io_out_agg", "exit_mmio_read_agg", "exit_mmio_write_agg",
		}},
		{"vmm", []string{
			"device_events", "panic_count",
		}},
		{"signals", []string{
			"sigbus", "sigsegv", "sigxfsz", "sigxcpu", "sigpipe", "sighup", "sigill",
		}},
		{"vsock", []string{
			"activate_fails", "cfg_fails", "rx_queue_event_fails", "tx_queue_event_fails", "ev_queue_event_fails",
			"muxer_event_fails", "conn_event_fails", "rx_queue_event_count", "tx_queue_event_count", "rx_bytes_count",
			"tx_bytes_count", "rx_packets_count", "tx_packets_count", "conns_added", "conns_killed", "conns_removed",
			"killq_resync", "tx_flush_fails", "tx_write_fails", "rx_read_fails",
		}},
		{"entropy", []string{
			"activate_fails", "entropy_event_fails", "entropy_event_count", "entropy_bytes", "host_rng_fails",
			"entropy_rate_limiter_throttled", "rate_limiter_event_count",
		}},
		{"pmem", []string{
			"activate_fails", "cfg_fails", "event_fails", "queue_event_count", "rate_limiter_throttled_events",
			"rate_limiter_event_count",
		}},
		{"interrupts", []string{
			"triggers", "config_updates",
		}},
		{"memory_hotplug", []string{
			"activate_fails", "queue_event_fails", "queue_event_count", "plug_agg", "plug_count", "plug_bytes",
			"plug_fails", "unplug_agg", "unplug_count", "unplug_bytes", "unplug_fails", "unplug_discard_fails",
			"unplug_all_agg", "unplug_all_count", "unplug_all_fails", "state_agg", "state_count", "state_fails",
		}},
	}
}
