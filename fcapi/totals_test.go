package fcapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// recorded is a line that Firecracker 1.16.1 has written: two drives, a network
// interface, a pmem device, after a pause.
func recorded(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/metrics-1.16.1.json")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func add(t testing.TB, total *Totals, line string) {
	t.Helper()
	if err := total.AddLine([]byte(line)); err != nil {
		t.Fatalf("%.200s: %v", line, err)
	}
}

func TestALineOfFirecrackerIsUnderstood(t *testing.T) {
	t.Parallel()
	var s Totals
	add(t, &s, string(recorded(t)))
	if s.Time.Year() < 2020 || s.Counts["uart.write_count"] != 17 || s.Counts["vcpu.exit_io_in_agg.sum_us"] != 3 || s.Values["latencies_us.pause_vm"] != 256 {
		t.Errorf("%+v", s)
	}
	for _, name := range []string{"block_d2.read_bytes", "block_rootfs.read_bytes", "net_eth0.rx_bytes_count", "pmem_p1.event_fails"} {
		if _, ok := s.Counts[name]; !ok {
			t.Errorf("no count %q", name)
		}
	}
	if c := s.Typed(); c.Serial.WriteCount != 17 || c.VCPU.ExitIOOutAgg.MaxUS != 17 || c.Latest.PauseVM != 256 ||
		len(c.Drives) != 2 || len(c.Interfaces) != 1 || len(c.PmemDevices) != 1 || c.VhostUser != nil {
		t.Errorf("%+v", c)
	}
}

// Each metric of the line has a field of its own in the typed view.
func TestTheTypedViewHasAPlaceForEachMetric(t *testing.T) {
	t.Parallel()
	var s Totals
	add(t, &s, string(recorded(t)))
	s.Counts["vhost_user_block_v.cfg_fails"], s.Values["vhost_user_block_v.init_time_us"] = 0, 0
	byNumber := map[uint64]string{}
	n := uint64(1000)
	for _, m := range []map[string]uint64{s.Counts, s.Values} {
		for name := range m {
			n++
			m[name], byNumber[n] = n, name
		}
	}
	for _, n := range numbers(reflect.ValueOf(s.Typed())) {
		delete(byNumber, n)
	}
	for _, name := range byNumber {
		t.Errorf("%s is in no field", name)
	}
}

func numbers(v reflect.Value) (all []uint64) {
	switch v.Kind() {
	case reflect.Uint64:
		return []uint64{v.Uint()}
	case reflect.Struct:
		for i := range v.NumField() {
			all = append(all, numbers(v.Field(i))...)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			all = append(all, numbers(v.MapIndex(key))...)
		}
	}
	return all
}

func TestCountsAreAddedUpAndValuesReplaced(t *testing.T) {
	t.Parallel()
	var total Totals
	for _, line := range []string{
		`{"utc_timestamp_ms":2000,"block":{"read_bytes":5,"read_agg":{"min_us":9,"max_us":10,"sum_us":19}},"latencies_us":{"pause_vm":7},"signals":{"sigpipe":1,"sigbus":1}}`,
		`{"utc_timestamp_ms":1000,"block":{"read_bytes":6,"read_agg":{"min_us":3,"max_us":11,"sum_us":14}},"latencies_us":{"pause_vm":2},"signals":{"sigpipe":1,"sigbus":1}}`,
		`{"later":{"release":{"adds":1}},"flat":4,"api_server":{"process_startup_time_us":3},"seccomp":{"num_faults":1},"vmm":{"panic_count":1,"device_events":1},
		  "vhost_user_block_x":{"init_time_us":3,"cfg_fails":1},"id":"x","properties":{"owner":"me"},"list":[1,{"a":"]"}],
		  "odd":{"a":-1,"b":1.5,"c":true,"d":null,"e":99999999999999999999,"f":{},"g":"\\\"}"}}`,
		`{"later":{"release":{"adds":1}},"flat":3,"api_server":{"process_startup_time_us":2},"seccomp":{"num_faults":1},"vmm":{"panic_count":1,"device_events":1},
		  "vhost_user_block_x":{"init_time_us":4,"cfg_fails":1},"max":{"n":18446744073709551615}}`,
		`{"max":{"n":1}}`,
	} {
		add(t, &total, line)
	}
	counts := map[string]uint64{
		"block.read_bytes": 11, "block.read_agg.sum_us": 33, "signals.sigpipe": 2, "later.release.adds": 2,
		"vmm.device_events": 2, "vhost_user_block_x.cfg_fails": 2, "max.n": math.MaxUint64,
	}
	values := map[string]uint64{
		"block.read_agg.min_us": 3, "block.read_agg.max_us": 11, "latencies_us.pause_vm": 2, "signals.sigbus": 1, "flat": 3,
		"api_server.process_startup_time_us": 2, "seccomp.num_faults": 1, "vmm.panic_count": 1, "vhost_user_block_x.init_time_us": 4,
	}
	if !maps.Equal(total.Counts, counts) || !maps.Equal(total.Values, values) || !total.Time.Equal(time.UnixMilli(2000)) {
		t.Errorf("%v\n%v\n%v", total.Counts, total.Values, total.Time)
	}
	if v := total.Typed().VhostUser["block_x"]; v.InitTimeUS != 4 || v.CfgFails != 2 {
		t.Errorf("vhost-user drive: %+v", v)
	}
}

func TestLinesThatAreNoMetricsAreRefused(t *testing.T) {
	t.Parallel()
	var total Totals
	add(t, &total, `{"block":{"read_bytes":1}}`)
	for what, line := range map[string]string{
		"nothing": "", "blanks": "  ", "no object": "[1]", "number": "7", "NULs": "\x00\x00\x00", "half": `{"block":{"read_bytes":1}`, "two": `{} {}`,
		"no key": `{1:2}`, "no colon": `{"block" 1}`, "end of another": `x":1}}`, "long": `{"block":{"read_bytes":1},"a":"` + strings.Repeat("x", MaxMetricsLine) + `"}`,
	} {
		if err := total.AddLine([]byte(line)); err == nil || !strings.Contains(err.Error(), "metrics") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if len(total.Counts) != 1 || total.Counts["block.read_bytes"] != 1 || len(total.Values) != 0 {
		t.Errorf("they have changed the totals: %+v", total)
	}
}

func TestTotalsOfAVMMThatInventsNamesStayBounded(t *testing.T) {
	t.Parallel()
	var total Totals
	add(t, &total, `{"block":{"read_bytes":1}}`)
	for i := range 3 {
		line := `{"block":{"read_bytes":1},"` + strings.Repeat("x", maxMetricName+1) + `":{"y":1},"` + strings.Repeat("y", maxMetricName+1) + `":1,"z":` + strings.Repeat(`{"z":`, 200) + "1" + strings.Repeat("}", 200)
		for k := range maxMetrics {
			line += fmt.Sprintf(`,"g%d.%d":{"n":1}`, i, k)
		}
		add(t, &total, line+"}")
	}
	if len(total.Counts) > maxMetrics || total.Counts["block.read_bytes"] != 4 {
		t.Errorf("%d counts, read_bytes %d", len(total.Counts), total.Counts["block.read_bytes"])
	}
	for name := range total.Counts {
		if len(name) > maxMetricName {
			t.Errorf("a name of %d bytes", len(name))
		}
	}
}

func FuzzMetricsLine(f *testing.F) {
	f.Add(recorded(f))
	f.Add([]byte(`{"a":{"b":{"c":1}},"utc_timestamp_ms":5,"block_x":{"read_bytes":18446744073709551615}}`))
	f.Add([]byte(` {"a":[{"x":"]"}, 7], "b" : {} , "\u0061":1,"a\"":{"b.c":0}}`))
	f.Add([]byte(`{"a":[`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var once, twice Totals
		err := once.AddLine(line)
		if (err == nil) != isObject(line) {
			t.Fatalf("%q: %v", line, err)
		}
		if err != nil {
			if once.Counts != nil || once.Values != nil {
				t.Fatal("totals of a line that is none")
			}
			return
		}
		for range 2 {
			if err := twice.AddLine(line); err != nil {
				t.Fatal(err)
			}
		}
		if len(once.Counts) != len(twice.Counts) || len(once.Values)+len(once.Counts) > maxMetrics {
			t.Fatalf("%d counts and %d values, then %d", len(once.Counts), len(once.Values), len(twice.Counts))
		}
		for name, n := range once.Counts {
			if got := twice.Counts[name]; got < n || got != 2*n && n <= math.MaxUint64/2 {
				t.Fatalf("%q is %d, twice %d", name, n, got)
			}
		}
		if !maps.Equal(once.Values, twice.Values) {
			t.Fatalf("%v, then %v", once.Values, twice.Values)
		}
		if c := once.Typed(); c.Latest.PauseVM != once.Values["latencies_us.pause_vm"] || c.Block.ReadBytes != once.Counts["block.read_bytes"] {
			t.Fatalf("%+v", c)
		}
	})
}

func isObject(line []byte) bool {
	var any map[string]json.RawMessage
	return len(line) <= MaxMetricsLine && json.Unmarshal(line, &any) == nil && any != nil
}

func BenchmarkMetricsLine(b *testing.B) {
	line := recorded(b)
	b.SetBytes(int64(len(line)))
	var total Totals
	for b.Loop() {
		if err := total.AddLine(line); err != nil {
			b.Fatal(err)
		}
	}
}
