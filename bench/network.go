package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// networkOrder is what the program does that measures networks: it runs in a network
// and a mount namespace of its own, so that nothing of it is left on the machine.
type networkOrder struct {
	Dir    string
	Sweeps int
	Rounds int // of each sweep, at each size
}

// sizes are how many VMs there are while one is attached and detached.
var sizes = []int{1, 100, 500}

// benchNetworks measures networks, or says why it can't.
func benchNetworks(ctx context.Context, o options, log io.Writer) (err error) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(log, "bench: networks are skipped: they need root")
		return nil
	}
	versions := []string{}
	for _, c := range [][]string{{"ip", "-V"}, {"iptables", "--version"}} {
		out, err := tool(c[0], c[1:]...)
		if err != nil {
			fmt.Fprintln(log, "bench: networks are skipped:", err)
			return nil
		}
		versions = append(versions, out)
	}
	dir, remove, err := scratch(o.scratch, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	s := &samples{to: os.Stdout}
	s.says("goos", runtime.GOOS)
	s.says("goarch", runtime.GOARCH)
	s.says("pkg", "github.com/tangle-network/microvm/bench")
	s.says("cpu", cpu())
	s.says("on", "network")
	s.says("machine", machine())
	s.says("disk", diskName(dir))
	s.says("load", o.load)
	s.says("go", runtime.Version())
	s.says("commit", commit())
	s.says("date", time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	s.says("forks", strings.Join(versions, ", "))
	fmt.Fprintf(log, "bench: networks beside forks of ip and iptables, at %v VMs, %d sweeps of %d rounds\n", sizes, o.netSweeps, o.netRounds)
	b, err := json.Marshal(networkOrder{dir, o.netSweeps, o.netRounds})
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-network", string(b))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("the program that measures networks: %w", err)
	}
	got, err := readSamples(bytes.NewReader(out))
	if err != nil {
		return err
	}
	for _, one := range got.lines {
		s.add(one)
	}
	if o.only == "" {
		return s.save(filepath.Join(o.samples, "network.txt"))
	}
	return nil
}

// measureNetworks is that program.
func measureNetworks(ctx context.Context, text string, out io.Writer) (err error) {
	var o networkOrder
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	// A host that has a loopback and passes packets on.
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err == nil {
		err = os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
	}
	if err != nil {
		return fmt.Errorf("a host of its own: %w", err)
	}
	s := &samples{to: out}
	if err := slotsAhead(ctx, filepath.Join(o.Dir, "ahead"), s); err != nil {
		return err
	}
	for range 20 * o.Sweeps {
		if err := slotPieces(filepath.Join(o.Dir, "piece"), s); err != nil {
			return err
		}
	}
	// All contenders stand on one host, but for the forks: what iptables reads there
	// would be ours, and what we read its.
	m, err := newManaged(filepath.Join(o.Dir, "networks"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	f, err := newForks(filepath.Join(o.Dir, "forks"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	path, err := newPath(ctx, o.Dir, m)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, path.close()) }()
	for range o.Sweeps {
		for _, n := range sizes {
			if err := errors.Join(m.have(ctx, n), f.have(n)); err != nil {
				return err
			}
			for round := range o.Rounds {
				for turn := range 3 {
					if err := ctx.Err(); err != nil {
						return err
					}
					var err error
					switch (turn + round) % 3 {
					case 0:
						err = m.turn(ctx, "cold", n, s)
					case 1:
						err = m.turn(ctx, "ready", n, s)
					case 2:
						err = f.turn(n, s)
					}
					if err != nil {
						return fmt.Errorf("with %d VMs: %w", n, err)
					}
				}
			}
			if err := path.measure(ctx, n, s); err != nil {
				return fmt.Errorf("with %d VMs: %w", n, err)
			}
		}
		// Down again: the path's VM stays.
		if err := errors.Join(m.have(ctx, 1), f.have(1)); err != nil {
			return err
		}
	}
	return nil
}
