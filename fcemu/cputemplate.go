package fcemu

import (
	"strconv"
	"strings"
)

// checkCPUTemplate checks a custom CPU template (PUT /cpu-config) for x86-64.
func checkCPUTemplate(n *node) error {
	var caps []string
	var leaves, msrs []struct{}
	return n.fields("CustomCpuTemplate", refuseUnknown,
		field{"kvm_capabilities", defaulted, setList(&caps, setCapability)},
		field{"cpuid_modifiers", defaulted, setList(&leaves, setLeafModifier)},
		field{"msr_modifiers", defaulted, setList(&msrs, setMSRModifier)})
}

func setCapability(to *string) func(*node) error {
	return func(n *node) error {
		if err := setString(to)(n); err != nil {
			return err
		}
		if _, err := strconv.ParseUint(strings.TrimPrefix(*to, "!"), 10, 32); err != nil {
			return &jsonError{"Failed to parse string [" + *to + "] as a kvm capability", n.end}
		}
		return nil
	}
}

func setLeafModifier(*struct{}) func(*node) error {
	return func(n *node) error {
		var flags uint32
		var regs []struct{}
		return n.fields("CpuidLeafModifier", ignoreUnknown,
			field{"leaf", required, setHex32},
			field{"subleaf", required, setHex32},
			field{"flags", required, setUint(&flags, 32)},
			field{"modifiers", required, setList(&regs, setRegisterModifier)})
	}
}

func setRegisterModifier(*struct{}) func(*node) error {
	return func(n *node) error {
		return n.fields("CpuidRegisterModifier", ignoreUnknown,
			field{"register", required, func(n *node) error {
				var name string
				if err := setString(&name)(n); err != nil {
					return err
				}
				switch name {
				case "eax", "ebx", "ecx", "edx":
					return nil
				}
				return &jsonError{"Invalid CPUID register. Must be one of [eax, ebx, ecx, edx]", n.end}
			}},
			field{"bitmap", required, setBitmap(32)})
	}
}

func setMSRModifier(*struct{}) func(*node) error {
	return func(n *node) error {
		return n.fields("RegisterModifier", ignoreUnknown,
			field{"addr", required, setHex32},
			field{"bitmap", required, setBitmap(64)})
	}
}

// setHex32 takes "0x…" or "0b…".
func setHex32(n *node) error {
	var s string
	if err := setString(&s)(n); err != nil {
		return err
	}
	var err error
	switch {
	case strings.HasPrefix(s, "0x"):
		_, err = strconv.ParseUint(s[2:], 16, 32)
	case strings.HasPrefix(s, "0b"):
		_, err = strconv.ParseUint(s[2:], 2, 32)
	default:
		return &jsonError{"No supported number system prefix found in value [" + s + "]. Make sure to prefix the number with '0x' for hexadecimal numbers or '0b' for binary numbers.", n.end}
	}
	if err != nil {
		return &jsonError{"Failed to parse string [" + s + "] as a number for CPU template", n.end}
	}
	return nil
}

// setBitmap takes "0b" and up to bits digits of 0, 1 and x, with _ between
// them.
func setBitmap(bits int) func(*node) error {
	return func(n *node) error {
		var s string
		if err := setString(&s)(n); err != nil {
			return err
		}
		digits := strings.ReplaceAll(strings.TrimPrefix(s, "0b"), "_", "")
		if len(digits) > bits || strings.Trim(digits, "01x") != "" {
			return &jsonError{"Failed to parse string [" + s + "] as a bitmap", n.end}
		}
		return nil
	}
}
