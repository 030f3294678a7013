package kernel_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"

	"github.com/tangle-network/microvm/image/kernel"
)

func ExampleExtract() {
	image := make([]byte, 4096)
	copy(image[56:], "ARMd") // the mark of an arm64 Image
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(image); err != nil {
		fmt.Println(err)
		return
	}
	if err := z.Close(); err != nil {
		fmt.Println(err)
		return
	}
	raw, info, err := kernel.Extract(packed.Bytes())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(len(raw), "bytes:", info.Description)
	// Output: 4096 bytes: an arm64 Image
}

func ExampleImport() {
	k, err := kernel.Import(context.Background(),
		kernel.Source{Kernel: "/boot/vmlinuz-absent", Modules: "/lib/modules/absent"}, "guest",
		kernel.Options{Init: "/usr/lib/microvm/microvm-init"})
	if err != nil {
		fmt.Println("no kernel")
		return
	}
	fmt.Println(k.Version, k.Modules)
}
