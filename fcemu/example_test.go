package fcemu_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tangle-network/microvm/fcemu"
	"github.com/tangle-network/microvm/fcemu/nullengine"
)

// A guest that reboots at once, from a configuration file, without an API.
func Example() {
	dir, err := os.MkdirTemp("", "fcemu-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	kernel, err := os.Executable() // any ELF for this machine will do
	if err != nil {
		panic(err)
	}
	config := filepath.Join(dir, "vm.json")
	if err := os.WriteFile(config, fmt.Appendf(nil, `{
		"boot-source": {"kernel_image_path": %q, "boot_args": "reboot=k fcemu.reboot_after=1ms"},
		"drives": []
	}`, kernel), 0o600); err != nil {
		panic(err)
	}
	console, err := os.Create(filepath.Join(dir, "console"))
	if err != nil {
		panic(err)
	}
	defer console.Close()
	p := fcemu.Process{
		Args:  []string{"--no-api", "--config-file", config, "--log-path", filepath.Join(dir, "log")},
		Stdin: -1, Stdout: int(console.Fd()), Stderr: -1,
		Engine: "null",
		Engines: map[string]fcemu.Factory{"null": func(o fcemu.EngineOptions) (fcemu.Engine, error) {
			return nullengine.New(nullengine.Options{EngineOptions: o}), nil
		}},
	}
	fmt.Println("exit code", p.Run(context.Background()))
	if _, err := console.Seek(0, io.SeekStart); err != nil {
		panic(err)
	}
	b, err := io.ReadAll(console)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%q\n", b)
	// Output:
	// exit code 0
	// "null guest: Kernel command line: reboot=k fcemu.reboot_after=1ms pci=off\r\nreboot: Restarting system\r\n"
}
