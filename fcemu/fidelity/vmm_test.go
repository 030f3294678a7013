package fidelity

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm/internal/tinyguest"
)

// patience bounds every wait; nothing takes that long.
const patience = 20 * time.Second

// vmm is a process of the emulator or of the original, in a directory of its
// own which is also its working directory.
type vmm struct {
	t       *testing.T
	program string
	seq     sequence
	dir     string
	cmd     *exec.Cmd
	gone    chan struct{}
	conn    net.Conn
	r       *bufio.Reader
}

// run does a sequence and returns the answers, and what became of the VMM.
func run(t *testing.T, program string, s sequence) []string {
	t.Helper()
	dir, err := os.MkdirTemp("", "fidelity-")
	if err != nil {
		t.Fatal(err)
	}
	v := &vmm{t: t, program: program, seq: s, dir: dir}
	defer os.RemoveAll(dir)
	defer v.kill()
	v.furnish()
	v.start()
	var got []string
	for _, st := range s.steps {
		if a := v.do(st); a != "" {
			got = append(got, a)
		}
	}
	return append(got, v.state())
}

// files are those that the sequences name.
var files = map[string]string{
	"vmlinux": string(tinyguest.ELF()), "initrd": "initrd", "text": "hello", "empty": "",
	"disk": strings.Repeat("d", 1<<16), "disk2": strings.Repeat("e", 1<<16), "odd": strings.Repeat("o", 777),
	"pmem": strings.Repeat("p", 2<<20), "cut": string(tinyguest.ELF()[:100]),
	"meta.json": `{"from":"a file"}`, "bad.json": `{"drives":[]}`,
	"vm.json":       `{"boot-source":{"kernel_image_path":"vmlinux"},"drives":[],"machine-config":{"vcpu_count":1,"mem_size_mib":16},"unknown":1}`,
	"typo.json":     `{"boot-source":{"kernel_image_path":"vmlinux","args":""},"drives":[]}`,
	"nokernel.json": `{"boot-source":{"kernel_image_path":"nope"},"drives":[]}`,
	"all.json": `{"boot-source":{"kernel_image_path":"vmlinux","boot_args":"tiny=c"},"drives":[{"drive_id":"d","path_on_host":"disk","is_root_device":true}],` +
		`"machine-config":{"vcpu_count":1,"mem_size_mib":16},"vsock":{"guest_cid":3,"uds_path":"v.sock"},"balloon":{"amount_mib":0,"deflate_on_oom":true},"entropy":{}}`,
}

// furnish makes those of the files that the sequence names, and those that they
// name: making all of them for each takes longer than what is asked.
func (v *vmm) furnish() {
	v.t.Helper()
	words := strings.Join(v.seq.steps, " ") + strings.Join(v.seq.args, " ")
	for name, content := range files {
		if strings.HasSuffix(name, ".json") && strings.Contains(words, name) {
			words += content
		}
	}
	for name, content := range files {
		if !strings.Contains(words, name) {
			continue
		}
		if err := os.WriteFile(filepath.Join(v.dir, name), []byte(content), 0o644); err != nil {
			v.t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(v.dir, "folder"), 0o755); err != nil {
		v.t.Fatal(err)
	}
}

func (v *vmm) start() {
	v.t.Helper()
	args := append([]string{"--api-sock", "api.sock", "--log-path", "log"}, v.seq.args...)
	if v.seq.alone {
		args = v.seq.args
	}
	cmd := exec.Command(v.program, args...)
	cmd.Dir, cmd.Env = v.dir, append(os.Environ(), "FCEMU_ENGINE=null")
	if v.seq.net {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	}
	if err := cmd.Start(); err != nil {
		v.t.Fatalf("start %s: %v", v.program, err)
	}
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // ProcessState says it all
		close(gone)
	}()
	v.cmd, v.gone = cmd, gone
	if !v.seq.alone {
		v.connect()
	}
}

// connect dials the API as soon as it is there.
func (v *vmm) connect() {
	v.t.Helper()
	if v.conn != nil {
		v.conn.Close()
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		c, err := net.Dial("unix", filepath.Join(v.dir, "api.sock"))
		if err == nil {
			v.conn, v.r = c, bufio.NewReader(c)
			return
		}
		select {
		case <-v.gone:
			v.conn = nil // the next step and the state tell
			return
		default:
		}
		if time.Now().After(deadline) {
			v.t.Fatalf("%s: the API did not come up: %v", v.program, err)
		}
	}
}

func (v *vmm) kill() {
	if v.conn != nil {
		v.conn.Close()
		v.conn = nil
	}
	_ = v.cmd.Process.Kill() // it may have ended
	<-v.gone
}

// ended waits for the end of the process and tells how it came.
func (v *vmm) ended() string {
	select {
	case <-v.gone:
	case <-time.After(patience):
		return "does not end"
	}
	if ws, ok := v.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return "killed by " + ws.Signal().String()
	}
	return "exit code " + strconv.Itoa(v.cmd.ProcessState.ExitCode())
}

// state is what has become of the VMM.
func (v *vmm) state() string {
	v.t.Helper()
	if v.seq.alone {
		return v.ended()
	}
	select {
	case <-v.gone:
		return v.ended()
	default:
	}
	v.connect()
	if v.conn == nil {
		return v.ended()
	}
	return v.do("GET /")
}

// do does a step and returns its answers, in our words.
func (v *vmm) do(st string) string {
	v.t.Helper()
	word, rest, _ := strings.Cut(st, " ")
	path := filepath.Join(v.dir, rest)
	var err error
	switch word {
	case "!raw":
		count, bytes, _ := strings.Cut(rest, " ")
		n, _ := strconv.Atoi(count) // "-" is none
		return v.send(bytes, n, "")
	case "!connect":
		v.connect()
	case "!exit":
		return v.ended()
	case "!restart":
		v.kill()
		if err = os.Remove(filepath.Join(v.dir, "api.sock")); err == nil {
			v.start()
		}
	case "!remove":
		err = os.Remove(path)
	case "!touch":
		err = os.WriteFile(path, nil, 0o644)
	case "!short":
		err = os.Truncate(path, 4096)
	default:
		method, target := word, rest
		target, body, has := strings.Cut(rest, " ")
		head := method + " " + target + " HTTP/1.1\r\n"
		if has {
			head += fmt.Sprintf("Content-Length: %d\r\n", len(body))
		}
		return v.send(head+"\r\n"+body, 1, method+" "+target)
	}
	if err != nil {
		v.t.Fatalf("%s: %v", st, err)
	}
	return ""
}

func (v *vmm) send(bytes string, n int, request string) string {
	v.t.Helper()
	if v.conn == nil {
		return "no API"
	}
	if err := v.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		v.t.Fatal(err)
	}
	if _, err := io.WriteString(v.conn, bytes); err != nil {
		return "broken pipe"
	}
	var got []string
	for range n {
		a, err := v.answer(request)
		if err != nil {
			return strings.Join(append(got, "no answer"), ", ")
		}
		got = append(got, a)
	}
	return strings.Join(got, ", ")
}

// shown are the requests whose answers are compared whole.
var shown = []string{"GET /", "GET /vm/config", "GET /machine-config", "GET /mmds", "GET /balloon"}

func (v *vmm) answer(request string) (string, error) {
	resp, err := http.ReadResponse(v.r, nil)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return "", err
	}
	out := strconv.Itoa(resp.StatusCode)
	if resp.Header.Get("Deprecation") == "true" {
		out += " deprecated"
	}
	switch {
	case resp.StatusCode >= 400:
		out += " " + faultKind(string(body))
	case slices.Contains(shown, request):
		out += " " + neutral(string(body))
	case len(body) > 0:
		out += " body"
	}
	return out, nil
}

var version = regexp.MustCompile(`,"vmm_version":"[^"]*"`)

// neutral is an answer without what must differ: the version, and the order of
// devices, which the original changes at the start of a guest. Of a whole
// configuration only what is not as in a fresh VMM is told.
func neutral(body string) string {
	body = version.ReplaceAllString(body, "")
	var doc, fresh map[string]json.RawMessage
	if json.Unmarshal([]byte(body), &doc) != nil || doc["boot-source"] == nil {
		return brief(body)
	}
	if err := json.Unmarshal([]byte(defaults), &fresh); err != nil {
		panic(err)
	}
	var out []string
	for _, key := range slices.Sorted(maps.Keys(doc)) {
		value := string(doc[key])
		var list []json.RawMessage
		if json.Unmarshal(doc[key], &list) == nil && len(list) > 1 {
			slices.SortFunc(list, func(a, b json.RawMessage) int { return strings.Compare(string(a), string(b)) })
			var texts []string
			for _, e := range list {
				texts = append(texts, string(e))
			}
			value = "[" + strings.Join(texts, ",") + "]"
		}
		if value != string(fresh[key]) {
			out = append(out, key+"="+value)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(fresh)) {
		if doc[key] == nil {
			out = append(out, "no "+key)
		}
	}
	return "{" + strings.Join(out, " ") + "}"
}

// defaults is what GET /vm/config shows of a VMM that nothing was asked of.
const defaults = `{"balloon":null,"drives":[],"boot-source":{"kernel_image_path":"","initrd_path":null,"boot_args":null},"cpu-config":null,"logger":null,` +
	`"machine-config":{"vcpu_count":1,"mem_size_mib":128,"smt":false,"track_dirty_pages":false,"huge_pages":"None"},` +
	`"metrics":null,"mmds-config":null,"network-interfaces":[],"vsock":null,"entropy":null,"pmem":[],"memory-hotplug":null}`

// build makes the emulator.
func build(dir string) (string, error) {
	program := filepath.Join(dir, "fcemu")
	// Without the race detector, under which a process is slow to start: the
	// tests of fcemu itself run with it.
	cmd := exec.Command("go", "build", "-o", program, "../../cmd/fcemu")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(err, errors.New(string(out)))
	}
	return program, nil
}
