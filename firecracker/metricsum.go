package firecracker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tangle-network/microvm/fcapi"
	"github.com/tangle-network/microvm/vmm"
)

// Firecracker writes most metrics as what was added since its last line, so a
// total needs every line. The head of the file is cut to keep it bounded; what
// was summed up before that is kept beside it. Whoever reads or writes the two
// holds the metrics file's flock(2).

// metricsSum is what the lines up to Offset sum up to.
type metricsSum struct {
	// Process and Inode say whose lines: a VMM that is started anew begins anew,
	// in a file of its own.
	Process vmm.Identity `json:"process"`
	Inode   uint64       `json:"inode"`
	Offset  int64        `json:"offset"`
	// Missed counts bytes that were cut before anybody had read them, Broken
	// lines that could not be understood.
	Missed int64 `json:"missed,omitempty"`
	Broken int   `json:"broken,omitempty"`
	fcapi.Totals
}

const (
	// sumWorthKeeping is how many bytes may be read again and again before what
	// they sum up to is written down.
	sumWorthKeeping = 64 << 10
	// sumStep bounds the work ahead of a cut.
	sumStep     = 1 << 20
	maxSumBytes = 4 << 20
)

// sumMetrics sums up the whole lines of the metrics file in a run directory, all
// of them or, with keep, about a sumStep, and writes the sum down then. It waits for
// others to be done with it: errSumBusy after that time. A run directory without
// metrics has the zero sum.
func sumMetrics(ctx context.Context, dir *os.File, process vmm.Identity, wait time.Duration, keep bool) (*metricsSum, error) {
	f, err := openRegular(dir, metricsFile)
	if isMissing(err) {
		return &metricsSum{Process: process}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the metrics: %w", err)
	}
	defer f.Close()
	if err := lockMetrics(ctx, f, wait); err != nil {
		return nil, fmt.Errorf("lock the metrics: %w", err)
	}
	// By name, for a child that is about to exec may hold a copy of f.
	defer func() { _ = unix.Flock(int(f.Fd()), unix.LOCK_UN) }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("read the metrics: %w", err)
	}
	s, err := readSum(dir)
	if err != nil {
		return nil, err
	}
	if s == nil || s.Process != process || s.Inode != st.Ino || s.Offset < 0 || s.Offset > st.Size {
		s = &metricsSum{Process: process, Inode: st.Ino}
	}
	from := s.Offset
	limit := int64(-1)
	if keep {
		limit = sumStep
	}
	if err := s.read(ctx, f, st.Size, limit); err != nil {
		return nil, fmt.Errorf("read the metrics: %w", err)
	}
	if keep || s.Offset-from > sumWorthKeeping {
		// Without keep nothing is lost: the lines are still there.
		if err := s.write(dir); err != nil && keep {
			return nil, err
		}
	}
	return s, nil
}

// openRegular opens a file of a directory, never through a link. The VMM could
// have put anything there.
func openRegular(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	path := filepath.Join(dir.Name(), name)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = errors.New("not a regular file")
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// errSumBusy says that somebody else has held the lock all the time: the VMM
// could, too.
var errSumBusy = errors.New("somebody else is at them")

func lockMetrics(ctx context.Context, f *os.File, most time.Duration) error {
	over := time.NewTimer(most)
	defer over.Stop()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-over.C:
			t.Stop()
			return errSumBusy
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// read sums up what follows Offset, up to size, and not much more than limit
// bytes of it unless that is negative. Half a line waits for its end.
func (s *metricsSum) read(ctx context.Context, f *os.File, size, limit int64) error {
	at, err := unix.Seek(int(f.Fd()), s.Offset, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // nothing but a hole
		at = size
	case errors.Is(err, unix.EINVAL): // a file system without holes
		at = s.Offset
	case err != nil:
		return err
	}
	at = min(at, size)
	missed := at > s.Offset
	if missed {
		s.Missed += at - s.Offset
		s.Offset = at
	}
	lines := bufio.NewReaderSize(io.NewSectionReader(f, at, size-at), 64<<10)
	var line []byte
	for limit < 0 || s.Offset-at < limit {
		if err := ctx.Err(); err != nil {
			return err
		}
		var n int64
		if line, n, err = readLine(lines, line[:0]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		s.Offset += n
		// After a miss, the end of a line whose beginning was cut is no surprise.
		if err := s.AddLine(line); err != nil && !missed {
			s.Broken++
		}
		missed = false
	}
	return nil
}

// readLine appends the next line to buf, or nothing of one that is too long, and
// says how long it is: io.EOF when it has no end.
func readLine(r *bufio.Reader, buf []byte) (line []byte, n int64, err error) {
	for {
		part, err := r.ReadSlice('\n')
		n += int64(len(part))
		if n <= fcapi.MaxMetricsLine {
			buf = append(buf, part...)
		} else {
			buf = buf[:0]
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return buf, n, err
		}
	}
}

// readSum is nil when there is no sum, or none that can be used: then the lines
// that are left are all that is known.
func readSum(dir *os.File) (*metricsSum, error) {
	f, err := openRegular(dir, sumFile)
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the sum of the metrics: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSumBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the sum of the metrics: %w", err)
	}
	var s metricsSum
	if len(b) > maxSumBytes || json.Unmarshal(b, &s) != nil {
		return nil, nil
	}
	return &s, nil
}

// write replaces the sum by a rename. It needs no fsync: after a crash of the
// host the process that it is about is gone.
func (s *metricsSum) write(dir *os.File) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write the sum of the metrics: %w", err)
		}
	}()
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	const tmp = "." + sumFile + ".tmp"
	d := int(dir.Fd())
	if err := unix.Unlinkat(d, tmp, 0); err != nil && !isMissing(err) {
		return err
	}
	fd, err := unix.Openat(d, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), tmp)
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = unix.Renameat(d, tmp, d, sumFile)
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(d, tmp, 0))
	}
	return nil
}

// beforeCut sums up a VMM's metrics before their head is cut. It finds the run
// directory by the file, which keeps its inode when the VM is renamed.
func (r *Runtime) beforeCut(process vmm.Identity) func(f *os.File, cut int64) (int64, error) {
	return func(f *os.File, cut int64) (int64, error) {
		path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
		if err != nil {
			return 0, err
		}
		if strings.HasSuffix(path, " (deleted)") {
			return cut, nil // nobody will ask
		}
		dir, err := os.Open(filepath.Dir(path))
		if err != nil {
			return 0, err
		}
		defer dir.Close()
		var st, there unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return 0, err
		}
		if err := unix.Fstatat(int(dir.Fd()), metricsFile, &there, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return 0, err
		}
		if there.Ino != st.Ino || there.Dev != st.Dev {
			return cut, nil // the VMM's time is over: another has its place
		}
		// Other files wait meanwhile.
		s, err := sumMetrics(r.ctx, dir, process, 20*time.Millisecond, true)
		if errors.Is(err, errSumBusy) {
			return 0, nil // later
		}
		if err != nil {
			return 0, err
		}
		return s.Offset, nil
	}
}
