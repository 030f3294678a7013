package fcemu

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// metrics counts, and writes one line of JSON in Firecracker's layout when it
// is asked to. Counters are written as what was added since the line before,
// whether that came through or not, stored values as they are.
type metrics struct {
	layout []metricSection
	id     string

	mu     sync.Mutex
	fd     int    // -1: not configured
	head   string // what the configuration puts before the sections
	counts map[string]uint64
	stored map[string]uint64
	last   map[string]uint64 // what counts was at the last line
}

func newMetrics(rel release) *metrics {
	return &metrics{layout: metricLayout(rel), fd: -1, counts: map[string]uint64{}, stored: map[string]uint64{}, last: map[string]uint64{}}
}

var errMetricsTwice = errors.New("the metrics system is already initialized")

// open starts the metrics system; it can be done once only.
func (m *metrics) open(cfg MetricsConfig) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fd, err := openNonblock(cfg.Path)
	if err != nil {
		return err
	}
	if m.fd >= 0 {
		unix.Close(fd)
		return errMetricsTwice
	}
	m.fd = fd
	if cfg.EmitID {
		m.head += `,"id":` + quote(m.id)
	}
	if cfg.Properties != nil {
		m.head += `,"properties":` + string(cfg.Properties)
	}
	return nil
}

func (m *metrics) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fd >= 0 {
		unix.Close(m.fd)
		m.fd = -1
	}
}

func (m *metrics) add(name string, n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[name] += n
}

func (m *metrics) store(name string, v uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stored[name] = v
}

// apiMetric has the names under which requests are counted, by the first part
// of their path.
func apiMetric(first string) string {
	switch first {
	case "":
		return "instance_info"
	case "version":
		return "vmm_version"
	case "actions", "logger", "metrics", "mmds", "vsock", "pmem", "serial":
		return first
	case "boot-source":
		return "boot_source"
	case "drives":
		return "drive"
	case "machine-config":
		return "machine_cfg"
	case "cpu-config":
		return "cpu_cfg"
	case "network-interfaces":
		return "network"
	case "hotplug":
		return "hotplug_memory"
	}
	return ""
}

// countRequest counts a request that got as far as the API.
func (m *metrics) countRequest(r request, failed bool) {
	name := apiMetric(token(pathTokens(r.uri), 0))
	if name == "" {
		return
	}
	section := strings.ToLower(r.method) + "_api_requests."
	m.add(section+name+"_count", 1)
	if failed {
		m.add(section+name+"_fails", 1)
	}
}

// write appends a line: our own counts and those of the engine, which may have
// some for each device ("block_ID.read_bytes"). devices are the ids of each
// section that has one of these. false means that the line, or its end, is lost;
// without a file there is nothing to lose.
func (m *metrics) write(engine map[string]uint64, devices map[string][]string, missedLog uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fd < 0 {
		return true
	}
	for name, v := range engine {
		m.counts[name] = v
	}
	m.counts["logger.missed_log_count"] = missedLog
	line := m.line(time.Now(), devices)
	for name, v := range m.counts {
		m.last[name] = v
	}
	return writeOrDrop(m.fd, line)
}

func (m *metrics) value(name string) uint64 {
	if v, ok := m.stored[name]; ok {
		return v
	}
	return m.counts[name] - m.last[name]
}

func (m *metrics) line(now time.Time, devices map[string][]string) []byte {
	b := make([]byte, 0, 6<<10)
	b = append(b, `{"utc_timestamp_ms":`...)
	b = strconv.AppendInt(b, now.UnixMilli(), 10)
	b = append(b, m.head...)
	for _, s := range m.layout {
		// Each device, sorted, comes before the sum of all.
		for _, id := range slices.Sorted(slices.Values(devices[s.name])) {
			b = m.section(b, s.name+"_"+id, s.fields)
		}
		b = m.section(b, s.name, s.fields)
	}
	return append(b, "}\n"...)
}

func (m *metrics) section(b []byte, name string, fields []string) []byte {
	b = append(b, `,"`+name+`":{`...)
	for i, f := range fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `"`+f+`":`...)
		at := name + "." + f
		if strings.HasSuffix(f, "_agg") {
			b = append(b, `{"min_us":`...)
			b = strconv.AppendUint(b, m.value(at+".min_us"), 10)
			b = append(b, `,"max_us":`...)
			b = strconv.AppendUint(b, m.value(at+".max_us"), 10)
			b = append(b, `,"sum_us":`...)
			b = strconv.AppendUint(b, m.value(at+".sum_us"), 10)
			b = append(b, '}')
			continue
		}
		b = strconv.AppendUint(b, m.value(at), 10)
	}
	return append(b, '}')
}
