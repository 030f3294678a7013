package fidelity

import (
	"encoding/json"
	"regexp"
	"strings"
)

// faults recognises kinds of faults by a few words of their texts, which
// differ between original and emulator in the rest. The first that fits counts.
var faults = []struct {
	kind string
	text *regexp.Regexp
}{
	{"too early", regexp.MustCompile(`not supported before starting`)},
	{"too late", regexp.MustCompile(`not supported after starting`)},
	{"unknown path", regexp.MustCompile(`Invalid request method and/or path|Unrecognized \S+ request path|Missing snapshot operation`)},
	{"no body", regexp.MustCompile(`^Empty (PUT|PATCH) request`)},
	{"a body", regexp.MustCompile(`^Empty Delete request|cannot have a body`)},
	{"two ids", regexp.MustCompile(`does not match the id`)},
	{"bad id", regexp.MustCompile(`ID cannot be empty|only contain alphanumeric`)},
	{"no PCI", regexp.MustCompile(`PCI is not enabled`)},
	{"id in use", regexp.MustCompile(`Device ID in use`)},
	{"no device", regexp.MustCompile(`Device not found`)},
	{"unknown field", regexp.MustCompile(`unknown field`)},
	{"missing field", regexp.MustCompile(`missing field`)},
	{"doubled field", regexp.MustCompile(`duplicate field`)},
	{"unknown value", regexp.MustCompile(`unknown variant`)},
	{"wrong type", regexp.MustCompile(`invalid type`)},
	{"out of range", regexp.MustCompile(`invalid value`)},
	{"wrong length", regexp.MustCompile(`invalid length`)},
	{"bad body", regexp.MustCompile(`at line \d+ column \d+|deserializing the json body`)},
	{"host", regexp.MustCompile(`\(os error \d+\)`)},
}

// faultKind is the kind of a fault, in our words, by the body of its answer.
func faultKind(body string) string {
	var api struct {
		Message *string `json:"fault_message"`
	}
	if json.Unmarshal([]byte(body), &api) != nil || api.Message == nil {
		if strings.HasPrefix(body, "{") {
			return "HTTP" // {"error": …}, which is not always valid JSON
		}
		return "none"
	}
	for _, f := range faults {
		if f.text.MatchString(*api.Message) {
			return f.kind
		}
	}
	return "rule"
}
