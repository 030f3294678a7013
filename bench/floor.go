package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// floor is the least that a program can do: spawn the VMM, connect, send the
// requests that the provider sends over one connection, and nothing else. No
// record, no lock, no check of who answers, no limits of its descriptors, nothing
// that survives a crash.
type floor struct {
	s    setting
	next int
	vms  []*floorVM
}

type floorVM struct {
	dir  string
	cmd  *exec.Cmd
	conn net.Conn
	read *bufio.Reader
}

func (f *floor) name() string { return "floor" }

func (f *floor) up(_ context.Context, n int) (time.Duration, error) {
	for range n {
		f.next++
		f.vms = append(f.vms, &floorVM{dir: filepath.Join(f.s.dir, fmt.Sprintf("floor-%d", f.next))})
	}
	began := time.Now()
	err := each(f.vms, func(v *floorVM) error { return v.start(f.s) })
	return time.Since(began), err
}

func (v *floorVM) start(s setting) error {
	if err := os.Mkdir(v.dir, 0o700); err != nil {
		return err
	}
	// What the provider gives a VMM, too: a console and a log in files.
	console, err := os.Create(filepath.Join(v.dir, "console.log"))
	if err != nil {
		return err
	}
	defer console.Close()
	v.cmd = exec.Command(s.vmm, "--api-sock", "api.sock", "--log-path", "vmm.log", "--level", "Info")
	v.cmd.Dir, v.cmd.Env, v.cmd.Stdout = v.dir, s.environ(), console
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := v.cmd.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(200 * time.Microsecond) {
		v.conn, err = net.Dial("unix", filepath.Join(v.dir, "api.sock"))
		if err == nil {
			break
		}
		if time.Now().After(end) {
			return err
		}
	}
	v.read = bufio.NewReader(v.conn)
	for _, q := range []struct{ path, body string }{
		{"/metrics", `{"metrics_path":"metrics.json"}`},
		{"/serial", `{"rate_limiter":{"size":1048576,"refill_time":1000}}`},
		{"/machine-config", fmt.Sprintf(`{"vcpu_count":%d,"mem_size_mib":%d}`, vcpus, memoryMiB)},
		{"/boot-source", fmt.Sprintf(`{"kernel_image_path":%q,"boot_args":%q}`, s.kernel, s.bootArgs)},
		{"/drives/rootfs", fmt.Sprintf(`{"drive_id":"rootfs","path_on_host":%q,"is_root_device":true,"is_read_only":true}`, s.rootfs)},
		{"/actions", `{"action_type":"InstanceStart"}`},
	} {
		if err := v.send("PUT", q.path, q.body); err != nil {
			return err
		}
	}
	return nil
}

func (v *floorVM) send(method, path, body string) error {
	if _, err := fmt.Fprintf(v.conn, "%s %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body); err != nil {
		return err
	}
	res, err := http.ReadResponse(v.read, nil)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer res.Body.Close()
	fault, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %d: %s", method, path, res.StatusCode, strings.TrimSpace(string(fault)))
	}
	return err
}

func (f *floor) down(context.Context) (time.Duration, error) {
	vms := f.vms
	f.vms = nil
	began := time.Now()
	err := each(vms, func(v *floorVM) error { return v.stop() })
	return time.Since(began), err
}

func (v *floorVM) stop() error {
	if v.conn == nil { // it never came up
		return v.remove()
	}
	if err := v.send("PATCH", "/vm", `{"state":"Paused"}`); err != nil {
		return errors.Join(err, v.remove())
	}
	return v.remove()
}

func (v *floorVM) remove() error {
	if v.cmd != nil && v.cmd.Process != nil {
		if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		var exit *exec.ExitError
		if err := v.cmd.Wait(); err != nil && !errors.As(err, &exit) {
			return err
		}
	}
	if v.conn != nil {
		v.conn.Close()
	}
	return os.RemoveAll(v.dir)
}

func (f *floor) close() error {
	_, err := f.down(context.Background())
	return err
}
