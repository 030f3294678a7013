package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// maxConfig bounds a kernel's configuration: distributions' have some 300 KiB.
const maxConfig = 4 << 20

// config is a kernel's configuration: y, m or the value of each option that is
// set, by its name without CONFIG_. A nil config is one that isn't known.
type config map[string]string

// parseConfig reads the format of .config; lines that it doesn't know are
// comments.
func parseConfig(text []byte) config {
	c := config{}
	for line := range bytes.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(string(line)), "=")
		if name, isOption := strings.CutPrefix(key, "CONFIG_"); ok && isOption {
			c[name] = value
		}
	}
	return c
}

// findConfig returns the configuration that is inside the uncompressed kernel
// (CONFIG_IKCONFIG), else that of the file, else nil.
func findConfig(raw []byte, file string) (config, error) {
	if c := embeddedConfig(raw); c != nil || file == "" {
		return c, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxConfig {
		return nil, fmt.Errorf("%q: more than %d bytes are no kernel configuration", file, maxConfig)
	}
	return parseConfig(text), nil
}

// embeddedConfig looks for what kernel/configs.c in Linux puts into a kernel.
func embeddedConfig(raw []byte) config {
	_, packed, found := bytes.Cut(raw, []byte("IKCFG_ST\x1f\x8b"))
	if !found {
		return nil
	}
	z, err := gzip.NewReader(io.MultiReader(strings.NewReader("\x1f\x8b"), bytes.NewReader(packed)))
	if err != nil {
		return nil // the mark was something else
	}
	z.Multistream(false)
	text, err := io.ReadAll(io.LimitReader(z, maxConfig+1))
	if err != nil || len(text) > maxConfig {
		return nil
	}
	return parseConfig(text)
}

// configBeside is where an installed kernel's configuration lies: config-VERSION
// next to vmlinuz-VERSION. Empty if it isn't there.
func configBeside(kernel string) (string, error) {
	_, version, ok := strings.Cut(filepath.Base(kernel), "-")
	if !ok {
		return "", nil
	}
	file := filepath.Join(filepath.Dir(kernel), "config-"+version)
	switch st, err := os.Stat(file); {
	case errors.Is(err, os.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case !st.Mode().IsRegular():
		return "", nil
	}
	return file, nil
}

// optionOf names what builds each wanted module.
var optionOf = map[string]string{
	"virtio_pci": "VIRTIO_PCI", "virtio_mmio": "VIRTIO_MMIO", "virtio_blk": "VIRTIO_BLK", "virtio_net": "VIRTIO_NET",
	"vmw_vsock_virtio_transport": "VIRTIO_VSOCKETS", "virtio_balloon": "VIRTIO_BALLOON", "virtio_rng": "HW_RANDOM_VIRTIO",
	"i8042": "SERIO_I8042", "atkbd": "KEYBOARD_ATKBD", "overlay": "OVERLAY_FS", "ext4": "EXT4_FS", "squashfs": "SQUASHFS",
}

// builtIn sorts the wanted modules of a kernel that comes without a folder of
// modules.
func (c config) builtIn() (builtin, missing []string) {
	builtin, missing = []string{}, []string{}
	for _, name := range wantedModules {
		switch option := optionOf[name]; {
		case option == "" || c == nil:
		case c[option] == "y":
			builtin = append(builtin, name)
		default:
			missing = append(missing, name)
		}
	}
	return builtin, missing
}

// warnings says what won't work with a kernel of this configuration. The rules
// are Firecracker's docs/kernel-policy.md and what microvm-init uses.
func (c config) warnings(arch string, compression Compression) []string {
	w := []string{}
	if c == nil {
		return w
	}
	need := func(why string, options ...string) {
		for _, o := range options {
			if c[o] != "y" {
				w = append(w, fmt.Sprintf("no CONFIG_%s=y: %s", o, why))
			}
		}
	}
	need("no initrd is read", "BLK_DEV_INITRD")
	switch compression {
	case Gzip, "":
		need("the kernel can't unpack this initrd", "RD_GZIP")
	case Zstd:
		need("the kernel can't unpack this initrd", "RD_ZSTD")
	}
	need("microvm-init finds no devices", "DEVTMPFS")
	need("nothing appears on the console", "PRINTK", "SERIAL_8250_CONSOLE")
	if arch != "amd64" {
		need("nothing appears on the console", "SERIAL_OF_PLATFORM")
		return w
	}
	acpi, cmdline := c["ACPI"] == "y" && c["PCI"] == "y", c["VIRTIO_MMIO_CMDLINE_DEVICES"] == "y"
	switch {
	case !acpi && !cmdline:
		w = append(w, "neither CONFIG_ACPI=y with CONFIG_PCI=y nor CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES=y: no Firecracker shows it its disks")
	case !cmdline:
		w = append(w, "no CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES=y: it finds its disks with Firecracker 1.8 and newer only (ACPI, PCI)")
	}
	need("the clock is less exact, and wrong after a restore", "KVM_GUEST")
	return w
}
