//go:build linux

package qemuengine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxQMPMessage bounds one message from QEMU. The largest that is asked for
// (block statistics of 29 drives) has some 60 KiB.
const maxQMPMessage = 1 << 20

// writeTimeout bounds how long QEMU may take to read one command.
const writeTimeout = 10 * time.Second

// errQMPClosed is what a command gets when QEMU is gone.
var errQMPClosed = errors.New("QEMU's control connection is closed")

// qmpError is QEMU's refusal of a command.
type qmpError struct {
	Command string `json:"-"`
	Class   string `json:"class"`
	Desc    string `json:"desc"`
}

func (e *qmpError) Error() string { return fmt.Sprintf("QEMU refused %s: %s", e.Command, e.Desc) }

// qmpMessage is any one message of the QEMU Machine Protocol
// (docs/interop/qmp-spec in QEMU's sources): greeting, answer or event.
type qmpMessage struct {
	Greeting *qmpGreeting    `json:"QMP"`
	Return   json.RawMessage `json:"return"`
	Error    *qmpError       `json:"error"`
	ID       string          `json:"id"`
	Event    string          `json:"event"`
	Data     json.RawMessage `json:"data"`
}

type qmpGreeting struct {
	Version struct {
		QEMU struct {
			Major int `json:"major"`
			Minor int `json:"minor"`
			Micro int `json:"micro"`
		} `json:"qemu"`
		Package string `json:"package"`
	} `json:"version"`
}

// String is the version as QEMU's --version has it, with the packager's part.
func (g *qmpGreeting) String() string {
	v := g.Version.QEMU
	s := fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro)
	if g.Version.Package != "" {
		s += " (" + g.Version.Package + ")"
	}
	return s
}

// qmpClient speaks QMP over one connection. Commands may be issued from any
// goroutine; events come in order, from the reading goroutine.
type qmpClient struct {
	conn     *net.UnixConn
	onEvent  func(qmpMessage)
	greeting *qmpGreeting

	writeMu sync.Mutex
	mu      sync.Mutex
	nextID  uint64
	pending map[string]chan qmpMessage
	err     error
	done    chan struct{}
}

// newQMP performs the handshake and then reads until the connection ends.
// onEvent must neither block nor issue commands.
func newQMP(ctx context.Context, conn *net.UnixConn, onEvent func(qmpMessage)) (*qmpClient, error) {
	c := &qmpClient{
		conn: conn, onEvent: onEvent,
		pending: map[string]chan qmpMessage{},
		done:    make(chan struct{}),
	}
	r := bufio.NewReaderSize(conn, 16<<10)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	m, err := readQMP(r)
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("read QEMU's greeting: %w", err)
	}
	if m.Greeting == nil {
		return nil, errors.New("QEMU did not greet")
	}
	c.greeting = m.Greeting
	go c.read(r)
	if _, err := c.run(ctx, "qmp_capabilities", nil); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// readQMP reads one message, which is one line.
func readQMP(r *bufio.Reader) (qmpMessage, error) {
	var m qmpMessage
	line, err := readLine(r, maxQMPMessage)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("message from QEMU: %w", err)
	}
	return m, nil
}

// readLine reads up to and without the newline, and no more than max bytes.
func readLine(r *bufio.Reader, max int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > max {
			return nil, fmt.Errorf("message from QEMU is longer than %d bytes", max)
		}
		if err == nil {
			return bytes.TrimRight(line, "\r\n"), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if err == io.EOF && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

func (c *qmpClient) read(r *bufio.Reader) {
	for {
		m, err := readQMP(r)
		if err != nil {
			c.fail(err)
			return
		}
		if m.Event != "" {
			c.onEvent(m)
			continue
		}
		c.mu.Lock()
		ch := c.pending[m.ID]
		delete(c.pending, m.ID)
		c.mu.Unlock()
		if ch != nil {
			ch <- m
		}
	}
}

func (c *qmpClient) fail(err error) {
	c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
		close(c.done)
	}
}

func (c *qmpClient) close() { c.fail(errQMPClosed) }

// run issues a command, with files passed along, and returns its result. When
// ctx ends first the command may still have its effect.
func (c *qmpClient) run(ctx context.Context, command string, args any, files ...*os.File) (json.RawMessage, error) {
	answer := make(chan qmpMessage, 1)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("%s: %w", command, errQMPClosed)
	}
	c.nextID++
	id := strconv.FormatUint(c.nextID, 10)
	c.pending[id] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.pending, id)
		c.mu.Unlock()
	}()

	request := map[string]any{"execute": command, "id": id}
	if args != nil {
		request["arguments"] = args
	}
	if err := c.send(ctx, request, files); err != nil {
		return nil, fmt.Errorf("send %s to QEMU: %w", command, err)
	}
	select {
	case m := <-answer:
		if m.Error != nil {
			m.Error.Command = command
			return nil, m.Error
		}
		return m.Return, nil
	case <-c.done:
		return nil, fmt.Errorf("%s: %w", command, errQMPClosed)
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", command, context.Cause(ctx))
	}
}

func (c *qmpClient) send(ctx context.Context, request any, files []*os.File) error {
	b, err := json.Marshal(request)
	if err != nil {
		return err
	}
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		oob = unix.UnixRights(fds...)
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// A half-written command makes the connection useless, so an ended ctx does
	// not cut it off. A QEMU that reads nothing for so long is as good as dead.
	if err := c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	b = append(b, '\n')
	n, _, err := c.conn.WriteMsgUnix(b, oob, nil)
	if err == nil && n < len(b) {
		_, err = c.conn.Write(b[n:])
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.fail(err)
	}
	runtime.KeepAlive(files)
	return err
}

// get runs a query and decodes its result.
func (c *qmpClient) get(ctx context.Context, into any, command string, args any) error {
	raw, err := c.run(ctx, command, args)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("answer of QEMU to %s: %w", command, err)
	}
	return nil
}

// passFile hands a file to QEMU under a name that later commands can use.
func (c *qmpClient) passFile(ctx context.Context, name string, f *os.File) error {
	_, err := c.run(ctx, "getfd", map[string]any{"fdname": name}, f)
	return err
}
