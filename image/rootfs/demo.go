//go:build linux

package rootfs

import (
	"context"
	"debug/elf"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// demoSizeMiB leaves some 20 MiB for whoever plays with the guest.
const demoSizeMiB = 24

var demoEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

//go:embed demo/inittab
var demoInittab string

//go:embed demo/start
var demoStart string

//go:embed demo/tick
var demoTick string

// demoApplets are the commands of busybox that the demo guest has; a busybox that
// was built without one says so when it is called.
const demoApplets = `[ arp ash awk basename cat chgrp chmod chown clear cmp cp cut date dd df dirname dmesg
du echo egrep env expr false fgrep find free grep gunzip gzip halt head hexdump hostname id ifconfig init
ip kill killall less ln logger ls md5sum mkdir mknod mktemp more mount mv nc netstat nslookup od
pidof ping poweroff printf ps pwd readlink realpath reboot rm rmdir route sed seq sh sha256sum
sleep sort stat stty sync tail tar tee test time timeout top touch tr traceroute true tty umount uname uniq
uptime usleep vi watch wc wget which whoami xargs yes zcat`

// Demo makes the demo disk dst from a static busybox and a static microvm-init:
// a guest with a shell on the console and no login, which prints "tick N" five
// times a second, N living in its memory only. The same two programs give the
// same disk. opts as for Build; the size is 24 MiB unless set.
func Demo(ctx context.Context, busybox, init, dst string, opts Options) (Result, error) {
	t, err := NewTree()
	if err != nil {
		return Result{}, fmt.Errorf("build demo disk: %w", err)
	}
	res, err := demo(ctx, t, busybox, init, dst, opts)
	if err := errors.Join(err, t.Close()); err != nil {
		return Result{}, fmt.Errorf("build demo disk: %w", err)
	}
	return res, nil
}

func demo(ctx context.Context, t *Tree, busybox, init, dst string, opts Options) (Result, error) {
	if opts.SizeMiB == 0 {
		opts.SizeMiB = demoSizeMiB
	}
	if opts.Label == "" {
		opts.Label = "microvm-demo"
	}
	if opts.Epoch.IsZero() {
		opts.Epoch = demoEpoch
	}
	if err := t.addDemo(busybox, init); err != nil {
		return Result{}, err
	}
	return t.Build(ctx, dst, opts)
}

func (t *Tree) addDemo(busybox, init string) error {
	dir, program, plain := Meta{Mode: 0o755}, Meta{Mode: 0o755}, Meta{Mode: 0o644}
	for _, name := range []string{"bin", "dev", "etc", "etc/microvm", "proc", "run", "sbin", "sys", "var", "var/log"} {
		if err := t.AddDir(name, dir); err != nil {
			return err
		}
	}
	if err := t.AddDir("root", Meta{Mode: 0o700}); err != nil {
		return err
	}
	if err := t.AddDir("tmp", Meta{Mode: 0o777 | fs.ModeSticky}); err != nil {
		return err
	}
	if err := t.addProgram("bin/busybox", busybox); err != nil {
		return err
	}
	if err := t.addProgram("sbin/init", init); err != nil {
		return err
	}
	for _, a := range strings.Fields(demoApplets) {
		if err := t.AddSymlink("bin/"+a, "busybox", plain); err != nil {
			return err
		}
	}
	// What microvm-init supervises: busybox' init by its name.
	if err := t.AddSymlink("etc/microvm/init", "../../bin/init", plain); err != nil {
		return err
	}
	for _, f := range []struct {
		name, text string
		meta       Meta
	}{
		{"etc/inittab", demoInittab, plain},
		{"etc/microvm/start", demoStart, program},
		{"etc/microvm/tick", demoTick, program},
		{"etc/passwd", "root::0:0:root:/root:/bin/sh\n", plain},
		{"etc/group", "root:x:0:\n", plain},
		{"etc/hostname", "microvm\n", plain},
		{"etc/hosts", "127.0.0.1 localhost\n::1 localhost\n", plain},
		{"etc/resolv.conf", "# written at boot if ip= names servers\n", plain},
		{"etc/profile", "export PATH=/bin:/sbin\nexport PS1='microvm:\\w# '\n", plain},
	} {
		if err := t.AddFile(f.name, f.meta, strings.NewReader(f.text)); err != nil {
			return err
		}
	}
	return nil
}

// addProgram adds a static program.
func (t *Tree) addProgram(name, host string) error {
	bin, err := elf.Open(host)
	if err != nil {
		return fmt.Errorf("%s from %q: %w", name, host, err)
	}
	defer bin.Close()
	for _, p := range bin.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s from %q: it is not static and the demo disk has no libraries (Debian's package is busybox-static)", name, host)
		}
	}
	f, err := os.Open(host)
	if err != nil {
		return err
	}
	defer f.Close()
	return t.AddFile(name, Meta{Mode: 0o755}, f)
}
