package main

import (
	"slices"
	"strings"
)

// swagger is as much of an OpenAPI 2 document as firecracker.yaml uses.
type swagger struct {
	Info        struct{ Version string }
	Paths       map[string]map[string]operation
	Definitions map[string]schema
}

type operation struct {
	Parameters []struct {
		In     string
		Schema schema
	}
}

type schema struct {
	Ref        string `yaml:"$ref"`
	Type       string
	Properties map[string]schema
	Items      *schema
	Enum       []string
}

// things names everything that a request can hold.
func (s swagger) things() []string {
	var all []string
	for path, operations := range s.Paths {
		if i := strings.Index(path, "{"); i >= 0 {
			path = path[:i] + "*"
		}
		for method, op := range operations {
			endpoint := strings.ToUpper(method) + " " + path
			all = append(all, endpoint)
			for _, p := range op.Parameters {
				if p.In == "body" {
					all = append(all, s.walk(endpoint+" ", p.Schema)...)
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

func (s swagger) walk(prefix string, v schema) []string {
	var all []string
	for name, f := range s.resolve(v).Properties {
		at := prefix + name
		all = append(all, at)
		f = s.resolve(f)
		if f.Items != nil {
			f = s.resolve(*f.Items)
		}
		for _, value := range f.Enum {
			all = append(all, at+"="+value)
		}
		all = append(all, s.walk(at+".", f)...)
	}
	return all
}

func (s swagger) resolve(v schema) schema {
	if name, ok := strings.CutPrefix(v.Ref, "#/definitions/"); ok {
		return s.Definitions[name]
	}
	return v
}
