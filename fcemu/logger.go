package fcemu

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Level is a level of the log; a line is written when its level is at or below
// the logger's.
type Level int8

// The levels, in the original's order.
const (
	LevelOff Level = iota
	LevelError
	LevelWarn
	LevelInfo
	LevelDebug
	LevelTrace
)

var levelNames = [...]string{"OFF", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"}

func (l Level) String() string {
	if l < 0 || int(l) >= len(levelNames) {
		return strconv.Itoa(int(l))
	}
	return levelNames[l]
}

// ParseLevel takes the names of levels in any case, and "Warning" for Warn.
func ParseLevel(s string) (Level, bool) {
	up := strings.ToUpper(s)
	if up == "WARNING" {
		up = "WARN"
	}
	for i, name := range levelNames {
		if name == up {
			return Level(i), true
		}
	}
	return 0, false
}

// logger writes Firecracker's log: to standard output until it has a file,
// dropping what can't be written.
type logger struct {
	mu         sync.Mutex
	id         string
	stdout     int
	file       int // -1: standard output
	level      Level
	showLevel  bool
	showOrigin bool
	module     string
	missed     uint64
}

func newLogger(id string, stdout int) *logger {
	return &logger{id: id, stdout: stdout, file: -1, level: LevelInfo}
}

// update applies a logger configuration.
func (l *logger) update(cfg LoggerConfig) error {
	fd := -1
	if cfg.LogPath != nil {
		var err error
		if fd, err = openNonblock(*cfg.LogPath); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.level = LevelInfo
	if cfg.Level != nil {
		l.level = *cfg.Level
	}
	if fd >= 0 {
		if l.file >= 0 {
			unix.Close(l.file)
		}
		l.file = fd
	}
	if cfg.ShowLevel != nil {
		l.showLevel = *cfg.ShowLevel
	}
	if cfg.ShowLogOrigin != nil {
		l.showOrigin = *cfg.ShowLogOrigin
	}
	if cfg.Module != nil {
		l.module = *cfg.Module
	}
	return nil
}

func (l *logger) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file >= 0 {
		unix.Close(l.file)
		l.file = -1
	}
}

// The parts of the program that log, as thread name, module and file of the
// original.
type logSource struct{ thread, module, file string }

var (
	srcMain   = logSource{"main", "firecracker", "fcemu/run.go"}
	srcAPI    = logSource{"fc_api", "firecracker::api_server", "fcemu/controller.go"}
	srcVMM    = logSource{"main", "vmm", "fcemu/controller.go"}
	srcEngine = logSource{"main", "vmm", "engine"}
)

func (l *logger) log(src logSource, level Level, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if level > l.level || l.module != "" && !strings.HasPrefix(src.module, l.module) {
		return
	}
	var show, origin string
	if l.showLevel {
		show = ":" + level.String()
	}
	if l.showOrigin {
		origin = ":" + src.file + ":0"
	}
	line := fmt.Sprintf("%s [%s:%s%s%s] %s\n", time.Now().Format("2006-01-02T15:04:05.000000000"),
		l.id, src.thread, show, origin, fmt.Sprintf(format, args...))
	out := l.file
	if out < 0 {
		out = l.stdout
	}
	if !writeOrDrop(out, []byte(line)) {
		l.missed++
	}
}

// missedLines is how many lines could not be written.
func (l *logger) missedLines() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.missed
}

// openNonblock opens a log, metrics or serial output as the original does:
// created if missing, neither truncated nor appended to, and without waiting
// for the reader of a FIFO.
func openNonblock(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}

// writeOrDrop writes all of b, or what can be written without waiting.
func writeOrDrop(fd int, b []byte) bool {
	if fd < 0 {
		return false
	}
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return false
		}
		b = b[n:]
	}
	return true
}
