package fcapi

import (
	"context"
	"net/http"
)

// CPUConfig is the body of PUT /cpu-config: a custom CPU template. Numbers in
// strings are hexadecimal (0x…), binary (0b…) or decimal; bitmaps are "0b" and
// then, from the highest bit, 0 (clear), 1 (set) or x (leave).
type CPUConfig struct {
	// KVMCapabilities are numbers of KVM capabilities to require besides
	// Firecracker's own ("121") or not to require ("!121"). Since 1.11 in the
	// description of the API, accepted before.
	KVMCapabilities []string `json:"kvm_capabilities,omitempty"`
	// CPUIDModifiers and MSRModifiers are for x86_64.
	CPUIDModifiers []CPUIDLeafModifier `json:"cpuid_modifiers,omitempty"`
	MSRModifiers   []MSRModifier       `json:"msr_modifiers,omitempty"`
	// RegModifiers and VCPUFeatures are for aarch64.
	RegModifiers []ARMRegisterModifier `json:"reg_modifiers,omitempty"`
	VCPUFeatures []VCPUFeature         `json:"vcpu_features,omitempty"`
}

// CPUIDLeafModifier changes one leaf of CPUID.
type CPUIDLeafModifier struct {
	Leaf    string `json:"leaf"`
	Subleaf string `json:"subleaf"`
	// Flags are KVM's flags of the leaf (KVM_CPUID_FLAG_*).
	Flags     uint32                  `json:"flags"`
	Modifiers []CPUIDRegisterModifier `json:"modifiers"`
}

// CPUIDRegisterModifier changes one register of a leaf.
type CPUIDRegisterModifier struct {
	// Register is eax, ebx, ecx or edx.
	Register string `json:"register"`
	// Bitmap has 32 bits.
	Bitmap string `json:"bitmap"`
}

// MSRModifier changes one model-specific register.
type MSRModifier struct {
	// Addr has 32 bits.
	Addr string `json:"addr"`
	// Bitmap has 64 bits.
	Bitmap string `json:"bitmap"`
}

// ARMRegisterModifier changes one register.
type ARMRegisterModifier struct {
	// Addr is KVM's 64-bit id of the register.
	Addr string `json:"addr"`
	// Bitmap has up to 128 bits.
	Bitmap string `json:"bitmap"`
}

// VCPUFeature changes one word of kvm_vcpu_init.features.
type VCPUFeature struct {
	Index uint32 `json:"index"`
	// Bitmap has 32 bits.
	Bitmap string `json:"bitmap"`
}

// PutCPUConfigRequest is PUT /cpu-config.
func PutCPUConfigRequest(cfg CPUConfig) Request {
	return Request{http.MethodPut, "/cpu-config", cfg}
}

// PutCPUConfig sets a custom CPU template, in place of the one of the machine
// config. Before the start only.
func (c *Client) PutCPUConfig(ctx context.Context, cfg CPUConfig) error {
	return c.Do(ctx, PutCPUConfigRequest(cfg), nil)
}
