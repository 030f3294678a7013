// Command fcemu is an emulator of the Firecracker VMM. It takes Firecracker's
// command line and can be given wherever a firecracker binary is expected;
// docs/emulator.md says what it emulates.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/tangle-network/microvm/fcemu"
	"github.com/tangle-network/microvm/fcemu/nullengine"
	"github.com/tangle-network/microvm/fcemu/qemuengine"
	"golang.org/x/sys/unix"
)

func main() {
	ctx, cancel := context.WithCancelCause(context.Background())
	leaving, ready := catch(cancel)
	p := fcemu.Process{
		Args: os.Args[1:], Stdin: 0, Stdout: 1, Stderr: 2,
		Engine:         os.Getenv("FCEMU_ENGINE"),
		EmulateVersion: os.Getenv("FCEMU_EMULATE_VERSION"),
		Fault:          os.Getenv("FCEMU_FAULT"),
		Engines: map[string]fcemu.Factory{
			"null": func(o fcemu.EngineOptions) (fcemu.Engine, error) {
				<-ready // an engine is made before the API listens
				return nullengine.New(nullengine.Options{EngineOptions: o}), nil
			},
			"qemu": func(o fcemu.EngineOptions) (fcemu.Engine, error) {
				<-ready
				return qemuengine.New(qemuengine.Options{EngineOptions: o})
			},
		},
		Auto: auto,
	}
	code := p.Run(ctx)
	close(leaving)
	if code == fcemu.ExitAbort {
		dieBy(unix.SIGABRT)
	}
	os.Exit(code)
}

// auto prefers real guests.
func auto() (string, error) {
	const program = "qemu-system-x86_64"
	_, err := exec.LookPath(program)
	switch {
	case err == nil:
		return "qemu", nil
	case errors.Is(err, exec.ErrNotFound):
		fmt.Fprintf(os.Stderr, "fcemu: no %s in PATH (Debian: apt install qemu-system-x86): the null engine is used, which runs no guest\n", program)
		return "null", nil
	}
	return "", err
}
