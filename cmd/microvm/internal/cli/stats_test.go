package cli

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tangle-network/microvm"
)

// measured is a runtime whose VMs use what the test says.
type measured struct {
	*memory
	mu   sync.Mutex
	read map[string][]microvm.Metrics // the next readings; none: an error
}

func (m *measured) ReadMetrics(_ context.Context, id string) (microvm.Metrics, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.read[id]) == 0 {
		return microvm.Metrics{}, &microvm.Error{Verb: "read the metrics of", VMID: id, Err: errors.New("no answer\x1b[31m")}
	}
	next := m.read[id][0]
	m.read[id] = m.read[id][1:]
	return next, nil
}

func TestStatsAreRatesOfTheInterval(t *testing.T) {
	t.Parallel()
	at := time.Unix(1000, 0)
	used := func(run string, after, cpu time.Duration) microvm.Metrics {
		return microvm.Metrics{Time: at.Add(after), CPUTime: cpu, Run: run, ResidentBytes: 5 << 20, CountersAt: at,
			Block: microvm.Traffic{ReadBytes: 2048, WriteBytes: 3 << 30}, Net: microvm.Traffic{ReadBytes: 7, WriteBytes: 1 << 63}, Trouble: "old\nnews"}
	}
	rt := &measured{memory: newMemory(t, "busy", "anew", "mute"), read: map[string][]microvm.Metrics{
		"busy": {used("1", 0, time.Second), used("1", 2*time.Second, 4*time.Second)},
		"anew": {used("1", 0, time.Second), used("2", 2*time.Second, time.Second)},
	}}
	code, out, errOut := call(t, t.Context(), rt, "stats", "--no-stream", "--interval", "100ms", "busy", "anew", "mute")
	lines := strings.Split(out, "\n")
	for i, want := range []string{
		"ID    CPU     MEMORY   DISK READ  DISK WRITTEN  NET IN  NET OUT           NOTE",
		"busy  150.0%  5.0 MiB  2.0 KiB    3.0 GiB       7 B     4294967296.0 GiB  old; news",
		"anew  -       5.0 MiB  2.0 KiB    3.0 GiB       7 B     4294967296.0 GiB  old; news",
		`mute  -       -        -          -             -       -                 read the metrics of VM "mute": no answer\x1b[31m`,
	} {
		if lines[i] != want {
			t.Errorf("line %d is\n%s, not\n%s", i, lines[i], want)
		}
	}
	if code != exitFailure || strings.Count(errOut, "\n") != 1 || !strings.Contains(errOut, "mute") {
		t.Errorf("code %d, %q", code, errOut)
	}
}

func TestStatsForProgramsHoldAllThatWasRead(t *testing.T) {
	t.Parallel()
	m := microvm.Metrics{Time: time.Unix(1000, 0), Run: "1", Counters: map[string]uint64{"vcpu.exit_io_out": 7}}
	rt := &measured{memory: newMemory(t, "a", "b"), read: map[string][]microvm.Metrics{"a": {m}}}
	code, out, errOut := call(t, t.Context(), rt, "stats", "--no-stream", "--json", "a", "b")
	var list []struct {
		ID       string            `json:"id"`
		Counters map[string]uint64 `json:"counters"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 || list[0].ID != "a" || list[0].Counters["vcpu.exit_io_out"] != 7 {
		t.Errorf("%v: %s", err, out)
	}
	if code != exitFailure || strings.Count(errOut, "\n") != 1 || !strings.Contains(errOut, `"vm":"b"`) {
		t.Errorf("code %d, %q", code, errOut)
	}
	if code, _, errOut := call(t, t.Context(), newMemory(t), "stats"); code != exitHost || !strings.Contains(errOut, "no metrics") {
		t.Errorf("without metrics: code %d, %q", code, errOut)
	}
}
