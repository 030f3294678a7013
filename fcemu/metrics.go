package fcemu

import (
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// metrics counts, and writes one line of JSON in Firecracker's layout when it
// is asked to. Counters are written as what was added since the line before,
// stored values as they are.
type metrics struct {
	mu     sync.Mutex
	fd     int // -1: not configured
	counts map[string]uint64
	stored map[string]uint64
	last   map[string]uint64 // what counts was at the last line
	fails  uint64
}

func newMetrics() *metrics {
	return &metrics{fd: -1, counts: map[string]uint64{}, stored: map[string]uint64{}, last: map[string]uint64{}}
}

var errMetricsTwice = errors.New("the metrics system is already initialized")

// open starts the metrics system; it can be done once only.
func (m *metrics) open(path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fd >= 0 {
		return errMetricsTwice
	}
	fd, err := openNonblock(path)
	if err != nil {
		return err
	}
	m.fd = fd
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

// write appends a line: our own counts and those of the engine. Without a file
// it does nothing, and says so.
func (m *metrics) write(engine map[string]uint64, missedLog uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fd < 0 {
		return false
	}
	for name, v := range engine {
		m.counts[name] = v
	}
	m.counts["logger.missed_log_count"] = missedLog
	m.counts["logger.metrics_fails"] = m.fails
	line := m.line(time.Now())
	if !writeOrDrop(m.fd, line) {
		m.fails++
		return false
	}
	for name, v := range m.counts {
		m.last[name] = v
	}
	return true
}

func (m *metrics) value(name string) uint64 {
	if v, ok := m.stored[name]; ok {
		return v
	}
	return m.counts[name] - m.last[name]
}

func (m *metrics) line(now time.Time) []byte {
	b := make([]byte, 0, 6<<10)
	b = append(b, `{"utc_timestamp_ms":`...)
	b = strconv.AppendInt(b, now.UnixMilli(), 10)
	for _, s := range metricLayout() {
		b = append(b, `,"`+s.name+`":{`...)
		for i, f := range s.fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, `"`+f+`":`...)
			name := s.name + "." + f
			if strings.HasSuffix(f, "_agg") {
				b = append(b, `{"min_us":`...)
				b = strconv.AppendUint(b, m.value(name+".min_us"), 10)
				b = append(b, `,"max_us":`...)
				b = strconv.AppendUint(b, m.value(name+".max_us"), 10)
				b = append(b, `,"sum_us":`...)
				b = strconv.AppendUint(b, m.value(name+".sum_us"), 10)
				b = append(b, '}')
				continue
			}
			b = strconv.AppendUint(b, m.value(name), 10)
		}
		b = append(b, '}')
	}
	return append(b, "}\n"...)
}
