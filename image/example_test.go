//go:build linux

package image_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tangle-network/microvm/image"
)

func ExampleInspectKernelReader() {
	file := append([]byte("\x1f\x8b\x08"), make([]byte, 100)...)
	k, err := image.InspectKernelReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		fmt.Println(err)
		return
	}
	k.Path = "/boot/Image.gz"
	fmt.Println(k.Description)
	fmt.Println(k.BootableOn("amd64"))
	// Output:
	// a file compressed with gzip
	// kernel "/boot/Image.gz" is a file compressed with gzip; needed: an uncompressed x86-64 ELF (vmlinux); run: microvm kernel import /boot/Image.gz
}

func ExampleClone() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	template, disk := filepath.Join(dir, "template.ext4"), filepath.Join(dir, "rootfs.ext4")
	if err := os.WriteFile(template, []byte("a root disk"), 0o644); err != nil {
		fmt.Println(err)
		return
	}
	res, err := image.Clone(context.Background(), template, disk, image.CloneOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(res.Size, "bytes")
	// Output: 11 bytes
}
