package fcapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// MaxMetricsLine bounds a line of metrics: a release with a hundred devices
// writes less than 100 KiB.
const MaxMetricsLine = 1 << 20

const (
	maxMetrics    = 1 << 13 // different names
	maxMetricName = 256
)

// Totals are what the lines of one VMM's metrics file sum up to, flat: a metric
// is known by its path, such as "block_rootfs.read_agg.sum_us". Names that no
// release up to 1.17 has are kept as well. The zero value is that of no line.
type Totals struct {
	// Time of the newest line.
	Time time.Time `json:"time,omitzero"`
	// Counts are what was counted since the VMM began: they only grow.
	Counts map[string]uint64 `json:"counts"`
	// Values are what is so now: the last duration of a call, a minimum.
	Values map[string]uint64 `json:"values"`
}

// AddLine takes in the next line. What is not a whole number of 0 or more is left
// out: lists, and the id and the properties that 1.17 can put there; so are
// names of more than 256 bytes, and new ones when there are some thousands: they
// are the VMM's choice, and what it is is not trusted. A line that is no JSON
// object, or longer than MaxMetricsLine, is an error and changes nothing.
func (t *Totals) AddLine(line []byte) error {
	if len(line) > MaxMetricsLine {
		return fmt.Errorf("line of metrics: %d bytes, more than %d", len(line), MaxMetricsLine)
	}
	line = bytes.TrimLeft(line, " \t\r\n")
	if !json.Valid(line) || line[0] != '{' {
		return errors.New("line of metrics: not a JSON object")
	}
	if t.Counts == nil {
		t.Counts = map[string]uint64{}
	}
	if t.Values == nil {
		t.Values = map[string]uint64{}
	}
	t.object(line, make([]byte, 0, maxMetricName))
	return nil
}

// object takes in an object, which is valid JSON, and returns what follows it.
// path is the names on the way to it, each with a dot.
func (t *Totals) object(b, path []byte) []byte {
	b = b[1:]
	for {
		b = bytes.TrimLeft(b, " \t\r\n,")
		if b[0] == '}' {
			return b[1:]
		}
		n := stringLen(b)
		name := append(path, b[1:n-1]...)
		b = bytes.TrimLeft(b[n:], " \t\r\n:")
		switch c := b[0]; {
		case c == '{' && len(name) < maxMetricName:
			b = t.object(b, append(name, '.'))
		case c == '{', c == '[':
			b = b[nestedLen(b):]
		case c == '"':
			b = b[stringLen(b):]
		default:
			n := bytes.IndexAny(b, " \t\r\n,}")
			if len(name) <= maxMetricName {
				t.number(name, b[:n])
			}
			b = b[n:]
		}
	}
}

// stringLen is the length of the string that begins valid JSON, with its quotes.
func stringLen(b []byte) int {
	for i := 1; ; i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

// nestedLen is the length of the list or object that begins valid JSON.
func nestedLen(b []byte) int {
	depth := 0
	for i := 0; ; i++ {
		switch b[i] {
		case '"':
			i += stringLen(b[i:]) - 1
		case '[', '{':
			depth++
		case ']', '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
}

func (t *Totals) number(name, digits []byte) {
	n, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil {
		return
	}
	// Looked up without a copy of the name: most are known, and stay what they
	// were.
	if had, ok := t.Counts[string(name)]; ok {
		if n > 0 {
			t.Counts[string(name)] = had + min(n, math.MaxUint64-had)
		}
		return
	}
	if had, ok := t.Values[string(name)]; ok {
		if n != had {
			t.Values[string(name)] = n
		}
		return
	}
	switch s := string(name); {
	case s == "utc_timestamp_ms":
		if at := time.UnixMilli(int64(min(n, math.MaxInt64))).UTC(); at.After(t.Time) {
			t.Time = at
		}
	case len(t.Counts)+len(t.Values) >= maxMetrics:
	case isValue(s):
		t.Values[s] = n
	default:
		t.Counts[s] = n
	}
}

// isValue says which metrics are written as they are: those that
// src/vmm/src/logger/metrics.rs calls SharedStoreMetric, the same in all
// releases. All others are written as what was added since the last line.
func isValue(name string) bool {
	group, metric, nested := strings.Cut(name, ".")
	if !nested {
		return true // of no group: nothing is known about it, so it is not summed
	}
	switch group {
	case "latencies_us":
		return true
	case "api_server":
		return strings.HasPrefix(metric, "process_startup_time_")
	case "seccomp":
		return metric == "num_faults"
	case "vmm":
		return metric == "panic_count"
	case "signals":
		return metric != "sigpipe"
	}
	if strings.HasPrefix(group, "vhost_user_") && (metric == "init_time_us" || metric == "activate_time_us" || metric == "config_change_time_us") {
		return true
	}
	return strings.HasSuffix(metric, "_agg.min_us") || strings.HasSuffix(metric, "_agg.max_us")
}

// Typed gives the totals by device.
func (t Totals) Typed() Counters {
	var c Counters
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		name, field := v.Type().Field(i).Tag.Get("metric"), v.Field(i)
		if field.Kind() == reflect.Map {
			t.fillDevices(field, name)
		} else {
			t.fill(field, name+".")
		}
	}
	return c
}

func (t Totals) fill(into reflect.Value, prefix string) {
	for i := range into.NumField() {
		name, field := prefix+into.Type().Field(i).Tag.Get("metric"), into.Field(i)
		if field.Kind() == reflect.Struct {
			t.fill(field, name+".")
			continue
		}
		n, ok := t.Counts[name]
		if !ok {
			n = t.Values[name]
		}
		field.SetUint(n)
	}
}

// fillDevices makes an entry for each group whose name begins with prefix.
func (t Totals) fillDevices(into reflect.Value, prefix string) {
	for _, m := range []map[string]uint64{t.Counts, t.Values} {
		for name := range m {
			group, _, _ := strings.Cut(name, ".")
			id, ok := strings.CutPrefix(group, prefix)
			if !ok {
				continue
			}
			if into.IsNil() {
				into.Set(reflect.MakeMap(into.Type()))
			}
			key := reflect.ValueOf(id)
			if into.MapIndex(key).IsValid() {
				continue
			}
			one := reflect.New(into.Type().Elem()).Elem()
			t.fill(one, group+".")
			into.SetMapIndex(key, one)
		}
	}
}
