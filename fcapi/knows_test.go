package fcapi

import "testing"

func TestKnowsWhatTheTableSays(t *testing.T) {
	t.Parallel()
	for _, f := range facts(t) {
		for thing, has := range tableSays() {
			if got := Knows(f.version, thing); got != has(f.version) {
				t.Errorf("%s: %s: %v, in the table %v", f.tag, thing, got, !got)
			}
		}
	}
	for _, thing := range []string{"", "PUT", "PUT /pmem", "GET /pmem/*", "PUT /pmem/* x", "PUT /pmem/* rate_limiter.x", "PUT /machine-config huge_pages=2M", "PUT /mmds anything"} {
		if Knows(newest, thing) {
			t.Errorf("%q is known", thing)
		}
	}
}
