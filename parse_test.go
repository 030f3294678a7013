package microvm_test

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tangle-network/microvm"
)

func parse(text string) (microvm.Spec, error) { return microvm.ParseSpec(strings.NewReader(text)) }

func TestParseSpecReadsEveryField(t *testing.T) {
	t.Parallel()
	want := microvm.Spec{}
	fill(reflect.ValueOf(&want).Elem())
	want.MMDS.Contents = []byte(`{"a":{"b":[1]}}`)
	text := jsonOf(t, want)
	got, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if strings.Contains(text, ":null") || strings.Contains(text, `:""`) {
		t.Errorf("a field was not filled: %s", text)
	}
}

// fill sets every field of v to something that is not its zero value.
func fill(v reflect.Value) {
	for _, sample := range []any{
		netip.MustParseAddr("192.0.2.1"),
		microvm.EgressRule{CIDR: netip.MustParsePrefix("192.0.2.0/24"), Protocol: "tcp", Ports: []microvm.PortRange{{First: 7}}},
		microvm.PublishedPort{HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: 7, GuestPort: 7, Protocol: "udp"},
	} {
		if v.Type() == reflect.TypeOf(sample) {
			v.Set(reflect.ValueOf(sample))
			return
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"k": "v"}))
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int:
		v.SetInt(7)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	default:
		panic("a new kind of field: " + v.Kind().String())
	}
}

func TestParseSpecNamesFaultsAndTheNearestKey(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, text string
		want       []string // "field: part of the rule"
	}{
		{"unknown key", `{"vcpu": 2}`, []string{`vcpus"?`}},
		{"unknown keys, all of them", `{"memory": 2, "kernal": "x"}`, []string{`memory: memory_mib"?`, `kernal: kernel"?`}},
		{"unknown key in an array", `{"drives": [{"id": "a", "path": "b"}, {"pth": "x"}]}`, []string{`drives[1].pth: path"?`}},
		{"unknown key three deep", `{"rootfs": {"rate_limit": {"bandwidth": {"sice": 1}}}}`, []string{`rootfs.rate_limit.bandwidth.sice: size"?`}},
		{"text that is none of its kind", `{"network": {"egress": {"allow": ["1.1.1.1/33", "a b"], "dns": ["x"]}, "publish": ["80"]}}`,
			[]string{"network.egress.allow[0].cidr: a network", "network.egress.allow[1].domain: a name", "network.egress.dns[0]: ParseAddr", "network.publish[0]: [HOST-IP:]"}},
		{"wrong case", `{"VCPUs": 2}`, []string{`VCPUs: vcpus"?`}},
		{"Go's name", `{"StopMode": "pause"}`, []string{`StopMode: stop_mode"?`}},
		{"Firecracker's name", `{"mem_size_mib": 2}`, []string{`mem_size_mib: memory_mib"?`}},
		{"key given twice", `{"vcpus": 1, "vcpus": 2}`, []string{"vcpus: given once"}},
		{"label given twice", `{"labels": {"a": "1", "a": "2"}}`, []string{"labels.a: given once"}},
		{"key given twice in free JSON", `{"mmds": {"interfaces": [], "contents": {"x": {"y": 1, "y": 2}}}}`, []string{"mmds.contents.x.y: given once"}},
		{"bytes behind", `{"vcpus": 1} x`, []string{"spec: nothing after it"}},
		{"two objects", `{}{}`, []string{"spec: nothing after it"}},
		{"empty", ``, []string{"spec: a whole JSON object"}},
		{"cut", `{"vcpus": 1`, []string{"spec: a whole JSON object"}},
		{"an array", `[{}]`, []string{"spec: one JSON object"}},
		{"null", `null`, []string{"spec: one JSON object"}},
		{"no JSON", `vcpus: 2`, []string{"spec: one JSON object"}},
		{"a comment", "{ // two\n}", []string{"spec: valid JSON"}},
		{"byte order mark", "\xef\xbb\xbf{}", []string{"spec: one JSON object"}},
		{"wrong type", `{"vcpus": "two"}`, []string{"vcpus: int"}},
		{"fraction", `{"vcpus": 1.5}`, []string{"vcpus: int"}},
		{"overflow", `{"vcpus": 99999999999999999999}`, []string{"vcpus: int"}},
		{"negative where none goes", `{"vsock": {"cid": -1}}`, []string{"vsock.cid: uint32"}},
		{"object for an array", `{"drives": {}}`, []string{"drives: []microvm.Drive"}},
		{"label that is no string", `{"labels": {"a": 1}}`, []string{"labels: string"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s, err := parse(row.text)
			if !errors.Is(err, microvm.ErrInvalidSpec) || !reflect.DeepEqual(s, microvm.Spec{}) {
				t.Fatalf("%+v, %v; want an empty spec and ErrInvalidSpec", s, err)
			}
			found := faultsOf(err)
			if len(found) != len(row.want) {
				t.Fatalf("%d faults, want %d: %v", len(found), len(row.want), err)
			}
			for i, w := range row.want {
				field, rule, hasField := strings.Cut(w, ": ")
				if !hasField {
					field, rule = "", w
				}
				if hasField && found[i].Field != field || !strings.Contains(found[i].Rule, rule) {
					t.Errorf("fault %d: %v; want %s", i, found[i], w)
				}
			}
		})
	}
}

func TestParseSpecBoundsSizeDepthAndItsOwnErrors(t *testing.T) {
	t.Parallel()
	nest := func(n int, open, shut string) string {
		return `{"mmds":{"interfaces":["a"],"contents":{"x":` + strings.Repeat(open, n) + "1" + strings.Repeat(shut, n) + `}}}`
	}
	if _, err := parse(nest(microvm.MaxSpecDepth-3, "[", "]")); err != nil {
		t.Errorf("%d levels: %v", microvm.MaxSpecDepth, err)
	}
	pad := microvm.MaxSpecBytes - len(`{"kernel":""}`)
	if _, err := parse(`{"kernel":"` + long(pad) + `"}`); err != nil {
		t.Errorf("%d bytes: %v", microvm.MaxSpecBytes, err)
	}
	for name, text := range map[string]string{
		"one level more, arrays":   nest(microvm.MaxSpecDepth-2, "[", "]"),
		"one level more, objects":  nest(microvm.MaxSpecDepth-2, `{"k":`, "}"),
		"a hundred thousand":       nest(100_000, "[", "]"),
		"never closed":             `{"labels":` + strings.Repeat("[", 500_000),
		"one byte more":            `{"kernel":"` + long(pad+1) + `"}`,
		"a hundred thousand keys":  "{" + strings.Repeat(`"x":1,`, 100_000) + `"y":1}`,
		"a very long key":          `{"` + long(900_000) + `":1}`,
		"a very long key in depth": `{"labels":{"` + long(400_000) + `":{"a":1,"a":1}}}`,
	} {
		_, err := parse(text)
		if !errors.Is(err, microvm.ErrInvalidSpec) {
			t.Errorf("%s: %v; want ErrInvalidSpec", name, err)
			continue
		}
		if n := len(err.Error()); n > 20_000 {
			t.Errorf("%s: an error of %d bytes", name, n)
		}
	}
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// endless gives spaces for ever.
type endless struct{ given int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	e.given += len(p)
	return len(p), nil
}

func TestParseSpecPassesReadErrorsOnAndStopsReading(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	if _, err := microvm.ParseSpec(io.MultiReader(strings.NewReader("{"), broken{boom})); !errors.Is(err, boom) || errors.Is(err, microvm.ErrInvalidSpec) {
		t.Errorf("%v; want %v", err, boom)
	}
	e := &endless{}
	if _, err := microvm.ParseSpec(e); !errors.Is(err, microvm.ErrInvalidSpec) || e.given > 2*microvm.MaxSpecBytes {
		t.Errorf("%v after %d bytes", err, e.given)
	}
}

// What ParseSpec accepts can be written and read again, and validated.
func FuzzParseSpec(f *testing.F) {
	full := microvm.Spec{}
	fill(reflect.ValueOf(&full).Elem())
	full.MMDS.Contents = []byte(`{}`)
	f.Add(jsonOf(f, full))
	for _, s := range []string{`{}`, `{"vcpus":2,"labels":{"a":"b"}}`, `{"drives":[{"id":"a","path":"/x"}]}`, `{"mmds":{"interfaces":["a"],"contents":[[[]]]}}`, `{"vcpu":1}`, `{} {}`, `{"a":`, "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parse(text)
		if err != nil {
			if !errors.Is(err, microvm.ErrInvalidSpec) || len(err.Error()) > 20_000 {
				t.Fatalf("%.300v", err)
			}
			return
		}
		if err := s.Validate(); err != nil && !errors.Is(err, microvm.ErrInvalidSpec) {
			t.Fatalf("Validate: %v", err)
		}
		again, err := parse(jsonOf(t, s))
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if again.Digest() != s.Digest() || s.Clone().Digest() != s.Digest() {
			t.Fatalf("%q reads as two specs", text)
		}
	})
}

func ExampleParseSpec() {
	_, err := microvm.ParseSpec(strings.NewReader(`{"vcpus": 2, "memory": 256}`))
	fmt.Println(err)
	// Output: memory: "memory" is not allowed: a known key; did you mean "memory_mib"?
}
