//go:build linux

package qemuengine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/fcemu"
)

// runVMM is the VMM of TestDeathOfTheVMMLeavesNothing: it starts a guest, says
// which children it has, and waits to be killed.
func runVMM(dir string) error {
	files := os.Getenv("MICROVM_GUEST_DIR")
	initrd := filepath.Join(files, "initrd")
	cfg := &fcemu.Config{
		BootSource: fcemu.BootSource{KernelImagePath: filepath.Join(files, "vmlinux"), InitrdPath: &initrd},
		Machine:    fcemu.MachineConfig{VCPUCount: 1, MemSizeMiB: 128},
	}
	opt := Options{EngineOptions: fcemu.EngineOptions{Stdin: -1, Stdout: -1}}
	program, err := vsockProgram(files)
	if err == nil {
		opt.VhostDeviceVsock = program
		cfg.Vsock = &fcemu.Vsock{GuestCID: 3, UDSPath: filepath.Join(dir, "v.sock")}
	}
	made, err := New(opt)
	if err != nil {
		return err
	}
	e := made.(*Engine)
	ctx := context.Background()
	if cfg.Vsock != nil {
		if err := e.Attach(ctx, cfg, "vsock", ""); err != nil {
			return err
		}
	}
	if err := e.Attach(ctx, cfg, "boot-source", ""); err != nil {
		return err
	}
	if err := e.Start(ctx, cfg); err != nil {
		return err
	}
	fmt.Println(e.vm.child.cmd.Process.Pid)
	if e.vsock != nil {
		fmt.Println(e.vsock.backend.cmd.Process.Pid)
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, e.Close())
}

func TestDeathOfTheVMMLeavesNothing(t *testing.T) {
	t.Parallel()
	files, err := filepath.Abs(guestFiles(t))
	if err != nil {
		t.Fatal(err)
	}
	newGuest(t) // skips when there is no QEMU
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), asVMM+"="+dir, "MICROVM_GUEST_DIR="+files)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var children []int // pidfds, as pids are used again
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && lines.Text() != "ready" {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Error(err)
			break
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Error(err)
			break
		}
		defer unix.Close(fd)
		children = append(children, fd)
	}
	if lines.Text() != "ready" || len(children) == 0 {
		t.Error("the guest did not start")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); cmd.ProcessState == nil {
		t.Error(err)
	}
	for _, fd := range children {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for deadline := time.Now().Add(10 * time.Second); ; {
			n, err := unix.Poll(p, int(time.Until(deadline).Milliseconds()))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if n != 1 {
				t.Errorf("a child lives on after its VMM's death (%v)", err)
			}
			break
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		if f.Name() != "v.sock" { // Firecracker leaves it, too
			t.Errorf("%s is left", f.Name())
		}
	}
}
