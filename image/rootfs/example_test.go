//go:build linux

package rootfs_test

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/tangle-network/microvm/image/rootfs"
)

func ExampleTree() {
	t, err := rootfs.NewTree()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer t.Close()
	// A device and an owner need no rights: they exist on the new disk only.
	fmt.Println(t.AddNode("dev/console", fs.ModeDevice|fs.ModeCharDevice, 5, 1, rootfs.Meta{Mode: 0o600}))
	fmt.Println(t.AddFile("etc/hostname", rootfs.Meta{Mode: 0o644, UID: 1000}, strings.NewReader("guest\n")))
	fmt.Println(t.AddFile("../etc/passwd", rootfs.Meta{}, strings.NewReader("")))
	// Next: t.Build(ctx, "rootfs.ext4", rootfs.Options{})

	// Output:
	// <nil>
	// <nil>
	// "../etc/passwd": path not allowed: it leads out of the tree
}
