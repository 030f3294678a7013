package fidelity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// record is the content of testdata/RELEASE.json: what each sequence's steps
// were answered, in our words, and the state in which they left the VMM.
type record struct {
	Release   string
	Sequences map[string][]string
}

func recordPath(release string) string { return filepath.Join("testdata", release+".json") }

func readRecord(release string) (record, error) {
	var r record
	b, err := os.ReadFile(recordPath(release))
	if err != nil {
		return r, fmt.Errorf("read the recorded answers of %s: %w", release, err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", recordPath(release), err)
	}
	return r, nil
}

// write keeps a sequence on a line, so that a change is a line in a diff.
func (r record) write() error {
	var b bytes.Buffer
	line := func(v any) string {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(v); err != nil {
			panic(err) // strings and lists of strings
		}
		return string(bytes.TrimSpace(b.Bytes()))
	}
	fmt.Fprintf(&b, "{\"Release\": %s, \"Sequences\": {", line(r.Release))
	for i, name := range slices.Sorted(maps.Keys(r.Sequences)) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "\n%s:\n  %s", line(name), line(r.Sequences[name]))
	}
	b.WriteString("\n}}\n")
	return os.WriteFile(recordPath(r.Release), b.Bytes(), 0o644)
}
