package fcapi

import "slices"

// This file is the version table. Sources: the description of the API
// (src/firecracker/swagger/firecracker.yaml), the sources where that lags
// behind, SNAPSHOT_VERSION (src/vmm/src/persist.rs) and CHANGELOG.md of each
// release tag of https://github.com/firecracker-microvm/firecracker, and of its
// main branch for 1.17, which is not released yet. testdata/releases.json has
// what they say; a test compares.

// The table reaches from oldest to newest.
var (
	oldest = Version{1, 7, 0}
	newest = Version{1, 17, 0}
)

// from is 1.minor and newer.
func from(minor int) releases { return releases{{1, minor, 0}} }

// field is what is known of a field, or of the body of an endpoint.
type field struct {
	since releases
	// in are the fields of an object, or of each object of a list.
	in fields
	// values are those of a string that came later than the field.
	values map[string]releases
	// free is anything that the user likes.
	free bool
}

type fields map[string]field

var (
	tokenBucket = fields{"size": {}, "one_time_burst": {}, "refill_time": {}}
	rateLimiter = fields{"bandwidth": {in: tokenBucket}, "ops": {in: tokenBucket}}

	addrAndBitmap = fields{"addr": {}, "bitmap": {}}

	machineConfig = fields{
		"vcpu_count": {}, "mem_size_mib": {}, "smt": {}, "cpu_template": {}, "track_dirty_pages": {},
		"huge_pages": {values: map[string]releases{"Transparent": from(17)}},
	}
)

// endpoints are all that a release may know; * stands for the id of a device.
var endpoints = fields{
	"GET /":          {},
	"GET /version":   {},
	"GET /vm/config": {},

	"PUT /actions": {in: fields{"action_type": {}}},
	"PATCH /vm":    {in: fields{"state": {}}},

	"GET /machine-config":   {},
	"PUT /machine-config":   {in: machineConfig},
	"PATCH /machine-config": {in: machineConfig},
	"PUT /boot-source":      {in: fields{"kernel_image_path": {}, "initrd_path": {}, "boot_args": {}}},
	"PUT /cpu-config": {in: fields{
		"kvm_capabilities": {},
		"cpuid_modifiers": {in: fields{
			"leaf": {}, "subleaf": {}, "flags": {}, "modifiers": {in: fields{"register": {}, "bitmap": {}}},
		}},
		"msr_modifiers": {in: addrAndBitmap},
		"reg_modifiers": {in: addrAndBitmap},
		"vcpu_features": {in: fields{"index": {}, "bitmap": {}}},
	}},

	"PUT /drives/*": {in: fields{
		"drive_id": {}, "is_root_device": {}, "partuuid": {}, "cache_type": {}, "is_read_only": {},
		"path_on_host": {}, "rate_limiter": {in: rateLimiter}, "io_engine": {}, "socket": {},
	}},
	"PATCH /drives/*":  {in: fields{"drive_id": {}, "path_on_host": {}, "rate_limiter": {in: rateLimiter}}},
	"DELETE /drives/*": {since: from(16)},

	"PUT /pmem/*": {since: from(14), in: fields{
		"id": {}, "path_on_host": {}, "root_device": {}, "read_only": {},
		"rate_limiter": {since: from(16), in: rateLimiter},
	}},
	"PATCH /pmem/*":  {since: from(16), in: fields{"id": {}, "rate_limiter": {in: rateLimiter}}},
	"DELETE /pmem/*": {since: from(16)},

	"PUT /network-interfaces/*": {in: fields{
		"iface_id": {}, "host_dev_name": {}, "guest_mac": {}, "mtu": {since: from(16)},
		"rx_rate_limiter": {in: rateLimiter}, "tx_rate_limiter": {in: rateLimiter},
	}},
	"PATCH /network-interfaces/*": {in: fields{
		"iface_id": {}, "rx_rate_limiter": {in: rateLimiter}, "tx_rate_limiter": {in: rateLimiter},
	}},
	"DELETE /network-interfaces/*": {since: from(16)},

	"PUT /vsock":   {in: fields{"guest_cid": {}, "uds_path": {}, "vsock_id": {}}},
	"PUT /entropy": {in: fields{"rate_limiter": {in: rateLimiter}}},
	"PUT /serial": {since: from(14), in: fields{
		"serial_out_path": {}, "rate_limiter": {since: from(16), in: tokenBucket},
	}},

	"GET /balloon": {},
	"PUT /balloon": {in: fields{
		"amount_mib": {}, "deflate_on_oom": {}, "stats_polling_interval_s": {},
		"free_page_hinting": {since: from(14)}, "free_page_reporting": {since: from(14)},
	}},
	"PATCH /balloon":               {in: fields{"amount_mib": {}}},
	"GET /balloon/statistics":      {},
	"PATCH /balloon/statistics":    {in: fields{"stats_polling_interval_s": {}}},
	"PATCH /balloon/hinting/start": {since: from(14), in: fields{"acknowledge_on_stop": {}}},
	"PATCH /balloon/hinting/stop":  {since: from(14)},
	"GET /balloon/hinting/status":  {since: from(14)},

	"GET /hotplug/memory": {since: from(14)},
	"PUT /hotplug/memory": {since: from(14), in: fields{
		"total_size_mib": {}, "slot_size_mib": {}, "block_size_mib": {},
	}},
	"PATCH /hotplug/memory": {since: from(14), in: fields{"requested_size_mib": {}}},

	"GET /mmds":   {},
	"PUT /mmds":   {free: true},
	"PATCH /mmds": {free: true},
	"PUT /mmds/config": {in: fields{
		"version": {}, "network_interfaces": {}, "ipv4_address": {},
		"imds_compat": {since: from(13)}, // misspelt in the description of 1.13.0, not in its sources
	}},

	"PUT /logger": {in: fields{
		"log_path": {}, "level": {}, "show_level": {}, "show_log_origin": {}, "module": {},
	}},
	"PUT /metrics": {in: fields{
		"metrics_path": {},
		// Older releases don't refuse these, but ignore them.
		"emit_id": {since: from(17)}, "properties": {since: from(17), free: true},
	}},

	"PUT /snapshot/create": {in: fields{"snapshot_type": {}, "snapshot_path": {}, "mem_file_path": {}}},
	"PUT /snapshot/load": {in: fields{
		"snapshot_path": {}, "mem_backend": {in: fields{"backend_type": {}, "backend_path": {}}},
		"mem_file_path": {}, "resume_vm": {}, "enable_diff_snapshots": {},
		"track_dirty_pages": {since: from(13)},
		"network_overrides": {since: from(12), in: fields{"iface_id": {}, "host_dev_name": {}}},
		"vsock_override":    {since: from(16), in: fields{"uds_path": {}}},
		"clock_realtime":    {since: releases{{1, 14, 4}, {1, 15, 1}, {1, 16, 0}}},
		"huge_pages":        {since: from(17)},
	}},
}

// formats are the versions of the snapshot format and the first release of
// each.
var formats = []struct{ since, format Version }{
	{Version{1, 7, 0}, Version{1, 0, 0}},
	{Version{1, 8, 0}, Version{2, 0, 0}},
	{Version{1, 9, 0}, Version{3, 0, 0}},
	{Version{1, 10, 1}, Version{4, 0, 0}}, // 1.10.0: see DefectSnapshotFormat
	{Version{1, 11, 0}, Version{5, 0, 0}},
	{Version{1, 12, 0}, Version{6, 0, 0}},
	{Version{1, 13, 0}, Version{8, 0, 0}},
	{Version{1, 15, 0}, Version{9, 0, 0}},
	{Version{1, 16, 0}, Version{10, 0, 0}},
	{Version{1, 17, 0}, Version{11, 0, 0}},
}

// SnapshotFormat returns the version of the snapshots that v writes, as
// firecracker --snapshot-version tells it; see LoadsFormat. ok is false when v is
// older than 1.7.0 or of a line newer than 1.17.
func SnapshotFormat(v Version) (format Version, ok bool) {
	if v.beyondTable() {
		return Version{}, false
	}
	for _, f := range slices.Backward(formats) {
		if v.AtLeast(f.since) {
			return f.format, true
		}
	}
	return Version{}, false
}

// LoadsFormat reports whether a release whose snapshots have the format own
// loads one whose format is written: the same Major and a Minor not above its
// own (docs/snapshotting/versioning.md of Firecracker).
func LoadsFormat(own, written Version) bool {
	return own.Major == written.Major && own.Minor >= written.Minor
}

// DiffsUntracked reports whether v takes Diff snapshots of a guest whose dirty
// pages are not tracked; older releases refuse them. Pull request 5274.
func DiffsUntracked(v Version) bool { return from(13).has(v) }
