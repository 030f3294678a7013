package fcemu

// The bodies of the API, field by field in the order in which Firecracker
// declares them (src/vmm/src/vmm_config and
// src/firecracker/src/api_server/request there).

func setTokenBucket(to *TokenBucket) func(*node) error {
	return func(n *node) error {
		return n.fields("TokenBucketConfig", ignoreUnknown,
			field{"size", required, setUint(&to.Size, 64)},
			field{"one_time_burst", optional, orNull(&to.OneTimeBurst, uint64Of)},
			field{"refill_time", required, setUint(&to.RefillTime, 64)})
	}
}

func setRateLimiter(to *RateLimiter) func(*node) error {
	return func(n *node) error {
		return n.fields("RateLimiterConfig", refuseUnknown,
			field{"bandwidth", optional, orNull(&to.Bandwidth, setTokenBucket)},
			field{"ops", optional, orNull(&to.Ops, setTokenBucket)})
	}
}

func uint64Of(to *uint64) func(*node) error { return setUint(to, 64) }
func uint8Of(to *int) func(*node) error     { return setUint(to, 8) }
func uint16Of(to *int) func(*node) error    { return setUint(to, 16) }
func usizeOf(to *int) func(*node) error     { return setUint(to, 64) }

func cpuTemplate(to *string) func(*node) error {
	return setEnum(to, "C3", "T2", "T2S", "None", "T2CL", "T2A")
}

func hugePages(to *string) func(*node) error {
	return func(n *node) error {
		names := []string{"None", "2M"}
		if n.rel.knows("PUT /machine-config huge_pages=Transparent") {
			names = []string{"None", "Transparent", "2M"}
		}
		return setEnum(to, names...)(n)
	}
}

func setMachineConfig(to *MachineConfig) func(*node) error {
	to.HugePages = "None"
	return func(n *node) error {
		return n.fields("MachineConfig", refuseUnknown,
			field{"vcpu_count", required, uint8Of(&to.VCPUCount)},
			field{"mem_size_mib", required, usizeOf(&to.MemSizeMiB)},
			field{"smt", defaulted, setBool(&to.SMT)},
			field{"cpu_template", defaulted, orNull(&to.CPUTemplate, cpuTemplate)},
			field{"track_dirty_pages", defaulted, setBool(&to.TrackDirtyPages)},
			field{"huge_pages", defaulted, hugePages(&to.HugePages)})
	}
}

// machineUpdate is PATCH /machine-config; what is nil stays.
type machineUpdate struct {
	vcpus, memMiB          *int
	smt, track             *bool
	cpuTemplate, hugePages *string
}

func setMachineUpdate(to *machineUpdate) func(*node) error {
	return func(n *node) error {
		return n.fields("MachineConfigUpdate", refuseUnknown,
			field{"vcpu_count", defaulted, orNull(&to.vcpus, uint8Of)},
			field{"mem_size_mib", defaulted, orNull(&to.memMiB, usizeOf)},
			field{"smt", defaulted, orNull(&to.smt, setBool)},
			field{"cpu_template", defaulted, orNull(&to.cpuTemplate, cpuTemplate)},
			field{"track_dirty_pages", defaulted, orNull(&to.track, setBool)},
			field{"huge_pages", defaulted, orNull(&to.hugePages, hugePages)})
	}
}

func setBootSource(to *BootSource) func(*node) error {
	return func(n *node) error {
		return n.fields("BootSourceConfig", refuseUnknown,
			field{"kernel_image_path", required, setString(&to.KernelImagePath)},
			field{"initrd_path", optional, orNull(&to.InitrdPath, setString)},
			field{"boot_args", optional, orNull(&to.BootArgs, setString)})
	}
}

func setDrive(to *Drive) func(*node) error {
	to.CacheType = "Unsafe"
	return func(n *node) error {
		return n.fields("BlockDeviceConfig", refuseUnknown,
			field{"drive_id", required, setString(&to.DriveID)},
			field{"partuuid", optional, orNull(&to.PartUUID, setString)},
			field{"is_root_device", required, setBool(&to.IsRootDevice)},
			field{"cache_type", defaulted, setEnum(&to.CacheType, "Unsafe", "Writeback")},
			field{"is_read_only", optional, orNull(&to.IsReadOnly, setBool)},
			field{"path_on_host", optional, orNull(&to.PathOnHost, setString)},
			field{"rate_limiter", optional, orNull(&to.RateLimiter, setRateLimiter)},
			field{"io_engine", optional, orNull(&to.IOEngine, enumOf("Async", "Sync"))},
			field{"socket", optional, orNull(&to.Socket, setString)})
	}
}

type driveUpdate struct {
	id          string
	path        *string
	rateLimiter *RateLimiter
}

func setDriveUpdate(to *driveUpdate) func(*node) error {
	return func(n *node) error {
		return n.fields("BlockDeviceUpdateConfig", refuseUnknown,
			field{"drive_id", required, setString(&to.id)},
			field{"path_on_host", optional, orNull(&to.path, setString)},
			field{"rate_limiter", optional, orNull(&to.rateLimiter, setRateLimiter)})
	}
}

func setNetworkInterface(to *NetworkInterface) func(*node) error {
	return func(n *node) error {
		return n.fields("NetworkInterfaceConfig", refuseUnknown,
			field{"iface_id", required, setString(&to.IfaceID)},
			field{"host_dev_name", required, setString(&to.HostDevName)},
			field{"guest_mac", optional, orNull(&to.GuestMAC, setMAC)},
			n.newer("PUT /network-interfaces/* mtu", field{"mtu", optional, orNull(&to.MTU, uint16Of)}),
			field{"rx_rate_limiter", optional, orNull(&to.RxRateLimiter, setRateLimiter)},
			field{"tx_rate_limiter", optional, orNull(&to.TxRateLimiter, setRateLimiter)})
	}
}

type netUpdate struct {
	id     string
	rx, tx *RateLimiter
}

func setNetUpdate(to *netUpdate) func(*node) error {
	return func(n *node) error {
		return n.fields("NetworkInterfaceUpdateConfig", refuseUnknown,
			field{"iface_id", required, setString(&to.id)},
			field{"rx_rate_limiter", optional, orNull(&to.rx, setRateLimiter)},
			field{"tx_rate_limiter", optional, orNull(&to.tx, setRateLimiter)})
	}
}

func setVsock(to *Vsock) func(*node) error {
	return func(n *node) error {
		return n.fields("VsockDeviceConfig", refuseUnknown,
			field{"vsock_id", defaulted, orNull(&to.VsockID, setString)},
			field{"guest_cid", required, setUint(&to.GuestCID, 32)},
			field{"uds_path", required, setString(&to.UDSPath)})
	}
}

func setBalloon(to *Balloon) func(*node) error {
	return func(n *node) error {
		return n.fields("BalloonDeviceConfig", refuseUnknown,
			field{"amount_mib", required, setUint(&to.AmountMiB, 32)},
			field{"deflate_on_oom", required, setBool(&to.DeflateOnOOM)},
			field{"stats_polling_interval_s", defaulted, uint16Of(&to.StatsPollingIntervalS)},
			n.newer("PUT /balloon free_page_hinting", field{"free_page_hinting", defaulted, setBool(&to.FreePageHinting)}),
			n.newer("PUT /balloon free_page_reporting", field{"free_page_reporting", defaulted, setBool(&to.FreePageReporting)}))
	}
}

func setBalloonAmount(to *int) func(*node) error {
	return func(n *node) error {
		return n.fields("BalloonUpdateConfig", refuseUnknown,
			field{"amount_mib", required, setUint(to, 32)})
	}
}

func setBalloonInterval(to *int) func(*node) error {
	return func(n *node) error {
		return n.fields("BalloonUpdateStatsConfig", refuseUnknown,
			field{"stats_polling_interval_s", required, uint16Of(to)})
	}
}

func setHinting(acknowledgeOnStop *bool) func(*node) error {
	*acknowledgeOnStop = true
	return func(n *node) error {
		return n.fields("StartHintingCmd", ignoreUnknown,
			field{"acknowledge_on_stop", defaulted, setBool(acknowledgeOnStop)})
	}
}

func setEntropy(to *Entropy) func(*node) error {
	return func(n *node) error {
		return n.fields("EntropyDeviceConfig", refuseUnknown,
			field{"rate_limiter", optional, orNull(&to.RateLimiter, setRateLimiter)})
	}
}

func setSerial(to *Serial) func(*node) error {
	return func(n *node) error {
		return n.fields("SerialConfig", refuseUnknown,
			field{"serial_out_path", optional, orNull(&to.SerialOutPath, setString)},
			n.newer("PUT /serial rate_limiter", field{"rate_limiter", optional, orNull(&to.RateLimiter, setTokenBucket)}))
	}
}

func setMMDSConfig(to *MMDSConfig) func(*node) error {
	to.Version = "V1"
	return func(n *node) error {
		return n.fields("MmdsConfig", refuseUnknown,
			field{"version", defaulted, setEnum(&to.Version, "V1", "V2")},
			field{"network_interfaces", required, setList(&to.NetworkInterfaces, setString)},
			field{"ipv4_address", optional, orNull(&to.IPv4Address, setIPv4)},
			n.newer("PUT /mmds/config imds_compat", field{"imds_compat", defaulted, setBool(&to.IMDSCompat)}))
	}
}

func setPmem(to *Pmem) func(*node) error {
	return func(n *node) error {
		return n.fields("PmemConfig", refuseUnknown,
			field{"id", required, setString(&to.ID)},
			field{"path_on_host", required, setString(&to.PathOnHost)},
			field{"root_device", defaulted, setBool(&to.RootDevice)},
			field{"read_only", defaulted, setBool(&to.ReadOnly)},
			n.newer("PUT /pmem/* rate_limiter", field{"rate_limiter", optional, orNull(&to.RateLimit, setRateLimiter)}))
	}
}

type pmemUpdate struct {
	id          string
	rateLimiter *RateLimiter
}

func setPmemUpdate(to *pmemUpdate) func(*node) error {
	return func(n *node) error {
		return n.fields("PmemDeviceUpdateConfig", refuseUnknown,
			field{"id", required, setString(&to.id)},
			field{"rate_limiter", optional, orNull(&to.rateLimiter, setRateLimiter)})
	}
}

func setMemoryHotplug(to *MemoryHotplug) func(*node) error {
	to.BlockSizeMiB, to.SlotSizeMiB = 2, 128
	return func(n *node) error {
		return n.fields("MemoryHotplugConfig", refuseUnknown,
			field{"total_size_mib", required, usizeOf(&to.TotalSizeMiB)},
			field{"block_size_mib", defaulted, usizeOf(&to.BlockSizeMiB)},
			field{"slot_size_mib", defaulted, usizeOf(&to.SlotSizeMiB)})
	}
}

func setRequestedSize(to *int) func(*node) error {
	return func(n *node) error {
		return n.fields("MemoryHotplugSizeUpdate", refuseUnknown,
			field{"requested_size_mib", required, usizeOf(to)})
	}
}

func setAction(to *string) func(*node) error {
	return func(n *node) error {
		return n.fields("ActionBody", refuseUnknown,
			field{"action_type", required, setEnum(to, "FlushMetrics", "InstanceStart", "SendCtrlAltDel")})
	}
}

func setVMState(to *string) func(*node) error {
	return func(n *node) error {
		return n.fields("Vm", refuseUnknown,
			field{"state", required, setEnum(to, "Paused", "Resumed")})
	}
}

// LoggerConfig is PUT /logger; what is nil stays as it is, but for the level,
// which falls back to Info.
type LoggerConfig struct {
	LogPath       *string
	Level         *Level
	ShowLevel     *bool
	ShowLogOrigin *bool
	Module        *string
}

func setLogger(to *LoggerConfig) func(*node) error {
	return func(n *node) error {
		return n.fields("LoggerConfig", refuseUnknown,
			field{"log_path", optional, orNull(&to.LogPath, setString)},
			field{"level", optional, orNull(&to.Level, setLevel)},
			field{"show_level", optional, orNull(&to.ShowLevel, setBool)},
			field{"show_log_origin", optional, orNull(&to.ShowLogOrigin, setBool)},
			field{"module", optional, orNull(&to.Module, setString)})
	}
}

func setLevel(to *Level) func(*node) error {
	return func(n *node) error {
		var name string
		if err := setString(&name)(n); err != nil {
			return err
		}
		l, ok := ParseLevel(name)
		if !ok {
			return &jsonError{"Invalid LevelFilter", n.end}
		}
		*to = l
		return nil
	}
}

// MetricsConfig is PUT /metrics.
type MetricsConfig struct {
	Path   string
	EmitID bool
	// Properties is an object of strings as it is written out; nil without.
	Properties []byte
}

func setMetrics(to *MetricsConfig) func(*node) error {
	return func(n *node) error {
		return n.fields("MetricsConfig", ignoreUnknown,
			field{"metrics_path", required, setString(&to.Path)},
			n.newer("PUT /metrics emit_id", field{"emit_id", defaulted, setBool(&to.EmitID)}),
			n.newer("PUT /metrics properties", field{"properties", defaulted, setProperties(&to.Properties)}))
	}
}

func setProperties(to *[]byte) func(*node) error {
	return func(n *node) error {
		switch n.kind {
		case kindNull:
			return nil
		case kindObject:
		default:
			return n.typeError("a map")
		}
		for i := range n.list {
			if v := &n.list[i]; v.kind != kindString {
				return v.typeError("a string")
			}
		}
		*to = appendValue(nil, n)
		return nil
	}
}

func setSnapshotCreate(to *SnapshotCreate) func(*node) error {
	to.SnapshotType = "Full"
	return func(n *node) error {
		return n.fields("CreateSnapshotParams", refuseUnknown,
			field{"snapshot_type", defaulted, setEnum(&to.SnapshotType, "Diff", "Full")},
			field{"snapshot_path", required, setString(&to.SnapshotPath)},
			field{"mem_file_path", required, setString(&to.MemFilePath)})
	}
}

// loadBody is PUT /snapshot/load with its deprecated fields.
type loadBody struct {
	SnapshotLoad
	memFile     *string
	backend     *MemBackend
	enableDiffs bool
}

func setSnapshotLoad(to *loadBody) func(*node) error {
	to.HugePages = "Snapshot"
	return func(n *node) error {
		return n.fields("LoadSnapshotConfig", refuseUnknown,
			field{"snapshot_path", required, setString(&to.SnapshotPath)},
			field{"mem_file_path", optional, orNull(&to.memFile, setString)},
			field{"mem_backend", optional, orNull(&to.backend, setMemBackend)},
			field{"enable_diff_snapshots", defaulted, setBool(&to.enableDiffs)},
			n.newer("PUT /snapshot/load track_dirty_pages", field{"track_dirty_pages", defaulted, setBool(&to.TrackDirtyPages)}),
			field{"resume_vm", defaulted, setBool(&to.ResumeVM)},
			n.newer("PUT /snapshot/load network_overrides", field{"network_overrides", defaulted, setList(&to.NetworkOverrides, setNetworkOverride)}),
			n.newer("PUT /snapshot/load vsock_override", field{"vsock_override", optional, orNull(&to.VsockOverride, setVsockOverride)}),
			n.newer("PUT /snapshot/load clock_realtime", field{"clock_realtime", defaulted, setBool(&to.ClockRealtime)}),
			n.newer("PUT /snapshot/load huge_pages", field{"huge_pages", defaulted, setEnum(&to.HugePages, "Snapshot", "None", "Transparent", "2M")}))
	}
}

func setMemBackend(to *MemBackend) func(*node) error {
	return func(n *node) error {
		return n.fields("MemBackendConfig", refuseUnknown,
			field{"backend_path", required, setString(&to.BackendPath)},
			field{"backend_type", required, setEnum(&to.BackendType, "File", "Uffd")})
	}
}

func setNetworkOverride(to *NetworkOverride) func(*node) error {
	return func(n *node) error {
		return n.fields("NetworkOverride", ignoreUnknown,
			field{"iface_id", required, setString(&to.IfaceID)},
			field{"host_dev_name", required, setString(&to.HostDevName)})
	}
}

func setVsockOverride(to *VsockOverride) func(*node) error {
	return func(n *node) error {
		return n.fields("VsockOverride", ignoreUnknown,
			field{"uds_path", required, setString(&to.UDSPath)})
	}
}
