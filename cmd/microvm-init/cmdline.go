//go:build linux

package main

import (
	"fmt"
	"strings"
)

// param is one word of the kernel's command line.
type param struct {
	key, value string
	hasValue   bool
}

// splitCmdline splits the kernel's command line by the kernel's rules
// (next_arg in lib/cmdline.c): words end at white space that isn't between double
// quotes; quotes around a word or around its value are dropped. What follows a
// free-standing "--" is init's own: the kernel has already given it to us as
// arguments, so it is left out here.
func splitCmdline(line string) []param {
	var params []param
	for {
		line = strings.TrimLeft(line, " \t\n\v\f\r")
		if line == "" {
			return params
		}
		var p param
		p, line = nextParam(line)
		if p == (param{key: "--"}) {
			return params
		}
		params = append(params, p)
	}
}

func nextParam(line string) (p param, rest string) {
	inQuote, quoted := false, false
	if line[0] == '"' {
		line = line[1:]
		inQuote, quoted = true, true
	}
	equals, end := -1, 0
	for ; end < len(line); end++ {
		c := line[end]
		if isSpace(c) && !inQuote {
			break
		}
		if c == '=' && equals < 0 {
			equals = end
		}
		if c == '"' {
			inQuote = !inQuote
		}
	}
	word, rest := line[:end], line[end:]
	if equals < 0 {
		if quoted {
			word = strings.TrimSuffix(word, `"`)
		}
		return param{key: word}, rest
	}
	p = param{key: word[:equals], value: word[equals+1:], hasValue: true}
	if strings.HasPrefix(p.value, `"`) {
		p.value = strings.TrimSuffix(p.value[1:], `"`)
	} else if quoted {
		p.value = strings.TrimSuffix(p.value, `"`)
	}
	return p, rest
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// config is what the command line asks of us.
type config struct {
	root, rootFSType, rootFlags string
	readOnly                    bool
	waitForEver                 bool // rootwait
	init                        string
	overlay                     string // options of the tmpfs; "-" for no overlay
	supervise                   bool
	ip                          []string
	ip6                         string   // ADDRESS/LENGTH[,GATEWAY]
	unknown                     []string // microvm.* words that mean nothing
}

const noOverlay = "-"

// parseConfig reads the words that matter; where one is there twice the last
// wins, as in the kernel (ip= may be repeated for several interfaces).
func parseConfig(line string) config {
	c := config{readOnly: true, overlay: noOverlay}
	for _, p := range splitCmdline(line) {
		switch p.key {
		case "root":
			c.root = p.value
		case "rootfstype":
			c.rootFSType = p.value
		case "rootflags":
			c.rootFlags = p.value
		case "ro":
			c.readOnly = true
		case "rw":
			c.readOnly = false
		case "rootwait":
			c.waitForEver = true
		case "init":
			c.init = p.value
		case "ip":
			c.ip = append(c.ip, p.value)
		case "microvm.ip6":
			c.ip6 = p.value
		case "microvm.overlay":
			kind, options, _ := strings.Cut(p.value, ",")
			if kind == "tmpfs" {
				c.overlay = options
			} else {
				c.unknown = append(c.unknown, fmt.Sprintf("microvm.overlay=%s (only tmpfs[,OPTIONS] is known)", p.value))
			}
		case "microvm.init":
			switch p.value {
			case "supervise":
				c.supervise = true
			case "exec":
				c.supervise = false
			default:
				c.unknown = append(c.unknown, fmt.Sprintf("microvm.init=%s (exec or supervise are known)", p.value))
			}
		default:
			if strings.HasPrefix(p.key, "microvm.") {
				c.unknown = append(c.unknown, p.key)
			}
		}
	}
	return c
}
